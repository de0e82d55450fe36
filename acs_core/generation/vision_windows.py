"""Attention of a vision tower to windows of the image, with one operation for all windows of the same size.

Most layers of Qwen2.5-VL's vision tower attend within windows of 8 x 8 patches. transformers computes one window after
the other: hundreds of small operations, and before each layer the host waits for the sizes of its windows. Here the
windows of one size are a batch. Windows at the right and lower edge of an image are smaller, so that there are at most
four sizes. The results are the same, since windows do not depend on each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface

from acs_core.device_array import upload
from acs_core.lvlm.base import LVLM

# The vision towers of transformers give the boundaries of the windows, instead of one window at a time, to functions
# with "flash" in their names.
IMPLEMENTATION = "acs_windows_like_flash"


class WindowSizes:
    """The windows of each size, by the boundaries that the layers of one forward share."""

    def __init__(self) -> None:
        self._known: list[tuple[torch.Tensor, list[torch.Tensor | None]]] = []

    def batches(self, boundaries: torch.Tensor) -> list[torch.Tensor | None]:
        """Return, for each size, the places (windows, size) of the tokens on their device; None for a single window.

        Args:
            boundaries: (windows + 1,) ascending, from 0 to the number of tokens.
        """
        for known, batches in self._known:
            if known is boundaries:
                return batches
        edges = boundaries.tolist()
        of_size: dict[int, list[int]] = {}
        for first, last in pairwise(edges):
            of_size.setdefault(last - first, []).append(first)
        found: list[torch.Tensor | None] = [None]
        if len(edges) > 2:
            places = [torch.tensor(firsts)[:, None] + torch.arange(size) for size, firsts in of_size.items() if size]
            found = [upload(some, boundaries.device) for some in places]
        self._known.append((boundaries, found))
        return found


def window_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    cu_seq_lens_q: torch.Tensor,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention function registered with transformers: attend with ``query`` (1, K, S, D) to ``key`` and ``value``
    within the windows that ``cu_seq_lens_q`` (windows + 1,) bounds.

    Returns:
        (1, S, K, D), and None.
    """
    out = torch.empty_like(query.transpose(1, 2))
    for places in module.config.acs_windows.batches(cu_seq_lens_q):
        if places is None:
            return functional.scaled_dot_product_attention(query, key, value, scale=scaling).transpose(1, 2), None
        # (1, K, S, D) to (windows, K, size, D)
        q, k, v = (tensor[0][:, places].transpose(0, 1) for tensor in (query, key, value))
        made = functional.scaled_dot_product_attention(q, k, v, scale=scaling)
        out[0, places] = made.transpose(1, 2)
    return out, None


@contextmanager
def batched_windows(lvlm: LVLM) -> Iterator[None]:
    """Batch the windows of the model's vision tower inside the block; nothing changes for a tower without windows."""
    tower = getattr(lvlm.hf_model.model, "visual", None)
    if tower is None:
        yield
        return
    config = tower.config
    before = config._attn_implementation
    config._attn_implementation, config.acs_windows = IMPLEMENTATION, WindowSizes()
    try:
        yield
    finally:
        config._attn_implementation = before
        del config.acs_windows


AttentionInterface.register(IMPLEMENTATION, window_attention)
