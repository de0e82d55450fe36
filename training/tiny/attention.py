"""The attention that models are trained with: fast on each device, and open to the guide."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from training.tiny.cpu import row_by_row_attention
from training.tiny.guide import Guide

NAME = "acs_training"


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float
) -> torch.Tensor:
    """Softmax attention (B, T, heads, head_dim) of ``query`` (B, heads, T, head_dim) over ``key`` and ``value``
    (B, key-value heads, S, head_dim): :func:`training.tiny.cpu.row_by_row_attention` on a CPU, fused elsewhere.
    ``mask`` is bool (1 or B, 1, T, S), True where a row may look."""
    if query.device.type == "cpu":
        return row_by_row_attention(query, key, value, mask, scaling)
    groups = query.shape[1] // key.shape[1]  # repeated here: no kernel takes both groups and a mask
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    return F.scaled_dot_product_attention(query, key, value, mask, scale=scaling).transpose(1, 2).contiguous()


def training_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    guide: Guide | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """:func:`attend` as transformers calls it; shows the guide its layer."""
    scaling = scaling if scaling is not None else query.shape[-1] ** -0.5
    if guide is not None and attention_mask is not None and module.layer_idx == guide.layer:
        guide.look(query, key, attention_mask, scaling)
    return attend(query, key, value, attention_mask, scaling), None


def use_for_training(model: Any) -> None:
    """Sets the model, text and vision, to this attention. Text masks must be given as bool (1 or B, 1, T, S)."""
    AttentionInterface.register(NAME, training_attention)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
    model.set_attn_implementation({"text_config": NAME, "vision_config": NAME})
