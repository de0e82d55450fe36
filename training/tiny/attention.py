"""The attention that models are trained with: fast on each device, and open to the guide."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from training.tiny.cpu import PatchProduct, row_by_row_attention
from training.tiny.guide import Guide

NAME = "acs_training"


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
    """Attention as :func:`training.tiny.cpu.row_by_row_attention` on a CPU, fused elsewhere; shows the guide its
    layer."""
    scaling = scaling if scaling is not None else query.shape[-1] ** -0.5
    if guide is not None and attention_mask is not None and module.layer_idx == guide.layer:
        guide.look(query, key, attention_mask, scaling)
    if query.device.type == "cpu":
        return row_by_row_attention(query, key, value, attention_mask, scaling), None
    out = F.scaled_dot_product_attention(query, key, value, attention_mask, scale=scaling, enable_gqa=True)
    return out.transpose(1, 2).contiguous(), None


def use_for_training(model: Any) -> None:
    """Sets the model, text and vision, to this attention. Text masks must be given as bool (1 or B, 1, T, S)."""
    AttentionInterface.register(NAME, training_attention)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
    model.set_attn_implementation({"text_config": NAME, "vision_config": NAME})
    visual = getattr(model.model, "visual", None)
    if visual is not None and not isinstance(visual.patch_embed, PatchProduct):
        visual.patch_embed = PatchProduct(visual.patch_embed.proj)
