"""Qwen2.5-VL's vision tower for images of one size, batched over windows.

It computes the same function as that of transformers, which loops over the windows; here the windows of equal length of
all images are one batch. The patch embedding, a 3-D convolution whose kernel equals its stride, is one matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from training.tiny.attention import attend

MERGED = 4  # patches per image token


@dataclass(frozen=True)
class Windows:
    """Window layout of an image's T patches.

    Attributes:
        order: (T / 4,) int64 image token at each position in window order.
        cos: (T, head_dim) cosines of the rope in window order.
        sin: (T, head_dim) sines of the rope in window order.
        near: patch indices (windows, patches per window), one tensor per window size, for layers with windowed
            attention.
        far: the same for layers with full attention.
    """

    order: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor
    near: tuple[torch.Tensor, ...]
    far: tuple[torch.Tensor, ...]


def windows(visual: Any, rows: int, columns: int) -> Windows:
    """Return the windows of an image of ``rows`` x ``columns`` image tokens in the vision tower ``visual``."""
    grid, config, device = torch.tensor([[1, 2 * rows, 2 * columns]]), visual.config, visual.device
    order, edges = get_vision_window_index(grid, 2, config.window_size, config.patch_size)
    positions = get_vision_position_ids(grid, 2).view(-1, MERGED, 2)[order].flatten(0, 1)  # (T, 2)
    cos, sin = visual.rotary_pos_emb(torch.zeros(1, device=device), positions.to(device))
    by_length: dict[int, list[torch.Tensor]] = {}
    for start, stop in pairwise(edges.tolist()):
        by_length.setdefault(stop - start, []).append(torch.arange(start, stop))
    near = tuple(torch.stack(starts).to(device) for starts in by_length.values())
    return Windows(order.to(device), cos, sin, near, (torch.arange(len(positions), device=device)[None],))


def windowed_tokens(visual: Any, patches: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return the merger's output (B, rows * columns, width) for ``patches`` (B * T, patch values) of B images."""
    plan = windows(visual, rows, columns)
    x = F.linear(patches, visual.patch_embed.proj.weight.flatten(1))  # (B * T, vision width)
    x = x.view(-1, rows * columns, MERGED, x.shape[-1])[:, plan.order].flatten(1, 2)  # (B, T, vision width)
    for layer, block in enumerate(visual.blocks):
        seen = plan.far if layer in visual.fullatt_block_indexes else plan.near
        x = x + _attention(block.attn, block.norm1(x), plan, seen)
        x = x + block.mlp(block.norm2(x))
    merged = visual.merger(x.flatten(0, 1)).view(len(x), rows * columns, -1)
    return merged[:, plan.order.argsort()]


def _attention(attn: Any, x: torch.Tensor, plan: Windows, seen: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Compute the attention of every patch of ``x`` (B, T, vision width) over the patches of its window; same shape."""
    q, k, v = attn.qkv(x).unflatten(-1, (3, attn.num_heads, -1)).unbind(2)  # (B, T, heads, head_dim)
    q, k = apply_rotary_pos_emb_vision(q, k, plan.cos, plan.sin)
    out = torch.empty_like(v)
    for index in seen:  # (n, L)
        q_, k_, v_ = (t[:, index].flatten(0, 1).transpose(1, 2) for t in (q, k, v))  # (B * n, heads, L, head_dim)
        out[:, index] = attend(q_, k_, v_, None, attn.scaling).unflatten(0, (len(x), -1))
    return attn.proj(out.flatten(2))
