"""Attention kernels for training, and the supervision of one layer's attention in the first steps of phase B.

Localization requires two skills at once: to find the image token that shows the phrase, and to copy its coordinates.
Neither lowers the loss without the other, so without help the loss stays on a plateau for most of a short run.
:class:`AttentionSupervision` therefore trains one layer, for some steps, to attend to the image token of the object's
centre at the tokens that open a box and emit the first digits of its coordinates, and to the first token of the prompt
at an answer without a box. Other steps omit this loss.

On a CPU, PyTorch's fused kernel has a fast forward and a slow backward pass: at 577 patches in bfloat16 its backward
pass alone took two thirds of a training step. :func:`row_by_row_attention` computes one image at a time instead, so
that the score matrix stays in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

NAME = "acs_training"


@dataclass(frozen=True)
class AttentionSupervision:
    """Loss that trains the attention of one layer.

    Attributes:
        layer: index of the layer.
        emits: (M, 2) int64 (image, row) pairs of the supervised queries, those of one image adjacent.
        keys: (M,) int64 column that each of them should attend to.
    """

    layer: int
    emits: torch.Tensor
    keys: torch.Tensor
    _missed: list[torch.Tensor] = field(default_factory=list)

    def look(self, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor, scaling: float) -> None:
        """Record the share of attention on the wanted columns.

        Args:
            query: (B, heads, T, d).
            key: (B, key-value heads, T, d).
            mask: bool (1 or B, 1, T, T), True where a row may attend.
            scaling: factor of the scores.
        """
        groups = query.shape[1] // key.shape[1]
        picture, row = self.emits.unbind(dim=1)  # (M,) each
        # The rows of each image side by side, (B, R): one product per image, instead of a copy of its keys per row.
        count = torch.bincount(picture, minlength=len(query))
        slot = torch.arange(len(picture), device=row.device) - (count.cumsum(0) - count)[picture]
        rows = row.new_zeros(len(query), int(count.max()))
        rows[picture, slot] = row
        asked = query.gather(2, rows[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[3]))
        scores = scaling * asked @ key.repeat_interleave(groups, 1).transpose(-1, -2)  # (B, heads, R, T)
        visible = mask.expand(len(query), -1, -1, -1)[:, 0].gather(1, rows[..., None].expand(-1, -1, mask.shape[-1]))
        attention = scores.float().masked_fill(~visible[:, None], float("-inf")).softmax(dim=-1).mean(dim=1)
        there = attention[picture, slot].gather(1, self.keys[:, None])[:, 0]  # (M,)
        self._missed.append(-torch.log(there + 1e-6))

    def loss(self) -> torch.Tensor:
        """Return the mean negative logarithm of the attention (averaged over heads) on the wanted columns, a scalar."""
        return torch.cat(self._missed).mean()


def row_by_row_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float
) -> torch.Tensor:
    """Compute softmax attention one image at a time.

    Args:
        query: (B, heads, T, head_dim).
        key: (B, key-value heads, S, head_dim).
        value: (B, key-value heads, S, head_dim).
        mask: bool (1 or B, 1, T, S), True where a row may attend.
        scaling: factor of the scores.

    Returns:
        (B, T, heads, head_dim).
    """
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


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float
) -> torch.Tensor:
    """Compute softmax attention, with :func:`row_by_row_attention` on a CPU and a fused kernel elsewhere; arguments and
    result as there."""
    if query.device.type == "cpu":
        return row_by_row_attention(query, key, value, mask, scaling)
    groups = query.shape[1] // key.shape[1]  # repeated here: no kernel supports both grouped queries and a mask
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    return F.scaled_dot_product_attention(query, key, value, mask, scale=scaling).transpose(1, 2).contiguous()


def training_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    guide: AttentionSupervision | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Call :func:`attend` with the interface of transformers; ``guide`` records the attention of its layer."""
    scaling = scaling if scaling is not None else query.shape[-1] ** -0.5
    if guide is not None and attention_mask is not None and module.layer_idx == guide.layer:
        guide.look(query, key, attention_mask, scaling)
    return attend(query, key, value, attention_mask, scaling), None


def use_for_training(model: Any) -> None:
    """Switch the model, text and vision, to :func:`training_attention`. Text masks must be bool (1 or B, 1, T, S)."""
    AttentionInterface.register(NAME, training_attention)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
    model.set_attn_implementation({"text_config": NAME, "vision_config": NAME})
