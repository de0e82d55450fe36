"""Fused projections: the linear layers of a block that read the same input are computed as one product.

A decode step reads each weight once and does little else, so that each further kernel costs its launch and its tail:
one product for query, key and value and one for gate and up leave four of the seven products of a layer.

The weights are stored once. The fused matrix replaces the memory of the layers, whose own weights become views of it,
so that names, state dicts and counts of parameters stay as they are. Afterwards the model must be neither moved nor
cast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import nn
from torch.nn import functional

GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))  # names in the language models of all families


def fuse_projections(model: nn.Module) -> int:
    """Fuse the projections of the layers of a language model, in place.

    Quantised layers, and layers with hooks, stay as they are, as do groups of different dtypes. A second call changes
    nothing. At any time, the weights of one group are in memory twice.

    Returns:
        The number of groups that were fused.

    Raises:
        torch.OutOfMemoryError: the device has no memory for one more group; those before are fused.
    """
    count = 0
    for block in list(model.modules()):
        for names in GROUPS:
            linear = [layer for name in names if _is_plain(layer := getattr(block, name, None))]
            if len(linear) < len(names) or len({_kind(layer) for layer in linear}) > 1:
                continue
            together = _Together(linear)
            for place, name in enumerate(names):
                setattr(block, name, FusedPart(together, place, linear[place]))
            count += 1
    return count


class FusedPart(nn.Module):
    """One of the layers of a group: ``x`` (..., A) to (..., B). The first one computes all of them, the others return
    what it computed if they get the same tensor."""

    def __init__(self, together: _Together, place: int, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self._together, self._place = together, place
        weight, bias = together.parts(place)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the projection of ``x``."""
        made = self._together.take(x, self._place)
        return functional.linear(x, self.weight, self.bias) if made is None else made


class _Together:
    """The fused weight of a group of layers, (sum of B, A), and the parts of its last product that were not taken."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        self._sizes = [layer.out_features for layer in layers]
        self._weight = torch.cat([layer.weight.detach() for layer in layers])
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self._bias = torch.cat(biases) if biases else None
        self._input: torch.Tensor | None = None
        self._left: dict[int, torch.Tensor] = {}

    def parts(self, place: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return weight and bias of one layer, as views."""
        weight = self._weight.split(self._sizes)[place]
        return weight, None if self._bias is None else self._bias.split(self._sizes)[place]

    def take(self, x: torch.Tensor, place: int) -> torch.Tensor | None:
        """Return the product of one layer; None if it is not the first one and ``x`` is not the input of the first."""
        if place == 0:
            whole = functional.linear(x, self._weight, self._bias)
            self._input, self._left = x, dict(enumerate(whole.split(self._sizes, dim=-1)))
        elif self._input is not x:
            return None
        made = self._left.pop(place, None)
        if not self._left:
            self._input = None  # so that nothing outlives the forward
        return made


def _is_plain(layer: object) -> TypeGuard[nn.Linear]:
    if type(layer) is not nn.Linear or hasattr(layer, "_hf_hook"):  # a subclass has weights of another kind
        return False
    return not (layer._forward_hooks or layer._forward_pre_hooks)


def _kind(layer: nn.Linear) -> tuple[object, ...]:
    return layer.in_features, layer.weight.dtype, layer.weight.device, layer.bias is None
