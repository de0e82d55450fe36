"""What makes training fast on a CPU: attention on one picture at a time, and a heap that keeps what was freed.

The score matrix of one picture stays in the cache. PyTorch's fused CPU kernel is fast forwards and slow backwards: at
577 patches in bfloat16 its backward pass alone took two thirds of a training step. And a step frees gigabytes in large
pieces, which glibc gives back to the system at once: the next step's pages come from there again, each cleared first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from acs_core.heap import M_MMAP_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, trim_heap, tune_heap

MOST = 2**31 - 1
# What glibc's own adaption comes to where large pieces are freed; it ends with the first setting made by hand.
USUAL = ((M_MMAP_MAX, 65536), (M_MMAP_THRESHOLD, 32 << 20), (M_TRIM_THRESHOLD, 64 << 20))


@contextmanager
def kept_heap() -> Iterator[None]:
    """Within, freed memory waits for the next step, and the process keeps its largest size; afterwards it goes back to
    the system. For steps whose sizes repeat: where they vary, the gaps between what is kept grow. Nothing happens where
    the C library has no such settings."""
    tune_heap(((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, MOST)))
    try:
        yield
    finally:
        tune_heap(USUAL)
        trim_heap()


def row_by_row_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float
) -> torch.Tensor:
    """Softmax attention (B, T, heads, head_dim) of ``query`` (B, heads, T, head_dim) over ``key`` and ``value``
    (B, key-value heads, S, head_dim); ``mask`` is bool (1 or B, 1, T, S), True where a row may look."""
    groups = query.shape[1] // key.shape[1]
    query = query * scaling
    bias = None
    if mask is not None:
        bias = torch.zeros(mask.shape, dtype=query.dtype).masked_fill_(~mask, float("-inf"))
        bias = bias.expand(len(query), -1, -1, -1)
    rows = []
    for b, (q, k, v) in enumerate(zip(query, key, value, strict=True)):
        k, v = k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0)
        # (heads, T, S)
        scores = q @ k.transpose(-1, -2) if bias is None else torch.baddbmm(bias[b], q, k.transpose(-1, -2))
        rows.append((scores.softmax(dim=-1) @ v).transpose(0, 1))  # (T, heads, head_dim)
    return torch.stack(rows)
