"""What makes training fast on a CPU: the same functions, computed in another order.

Attention works on one picture at a time, so that its score matrix stays in the cache: PyTorch's fused CPU kernel is
fast forwards and slow backwards (at 577 patches in bfloat16 its backward pass alone took two thirds of a training
step). Qwen2.5-VL's patch embedding, a 3-D convolution whose kernel is its stride, is one matrix product.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


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


class PatchProduct(torch.nn.Module):
    """Stands in for Qwen2.5-VL's patch embedding and holds its convolution under the same name."""

    def __init__(self, proj: torch.nn.Conv3d) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """(patches, 3 * frames * patch * patch) to (patches, width)."""
        return F.linear(patches, self.proj.weight.flatten(1))
