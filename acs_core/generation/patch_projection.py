"""Projection of image patches as a matrix product.

Qwen2.5-VL's vision tower projects each patch by a convolution whose kernel covers the patch. That is a linear map, and
a product of matrices computes it several times as fast as PyTorch's convolution with three axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeGuard

import torch
from torch import nn
from torch.nn import functional

from acs_core.lvlm.base import LVLM


class PatchProjection(nn.Module):
    """A convolution of three axes whose input (n, C, T, H, W) has the size of its kernel: (n, D, 1, 1, 1).

    Args:
        convolution: the convolution, whose parameters are taken over with their names.
    """

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the projections.

        Raises:
            ValueError: a patch has not the size of the kernel.
        """
        if x.shape[1:] != self.weight.shape[1:]:
            raise ValueError(f"a patch of {tuple(x.shape[1:])} does not fit a kernel of {tuple(self.weight.shape[1:])}")
        return functional.linear(x.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None, None]


@contextmanager
def patches_by_products(lvlm: LVLM) -> Iterator[None]:
    """Project the patches of the model's vision tower by a product inside the block.

    Nothing changes for a tower without such a convolution, nor for a hooked one or a subclass, whose weights may be of
    another kind.
    """
    embedding = getattr(getattr(lvlm.hf_model.model, "visual", None), "patch_embed", None)
    before = getattr(embedding, "proj", None)
    if embedding is None or not _is_whole(before):
        yield
        return
    embedding.proj = PatchProjection(before)
    try:
        yield
    finally:
        embedding.proj = before


def _is_whole(layer: object) -> TypeGuard[nn.Conv3d]:
    # A forward of its own may move the weights between devices.
    if type(layer) is not nn.Conv3d or "forward" in vars(layer) or layer._forward_hooks or layer._forward_pre_hooks:
        return False
    plain = layer.padding == (0, 0, 0) and layer.dilation == (1, 1, 1) and layer.groups == 1
    return plain and layer.stride == layer.kernel_size
