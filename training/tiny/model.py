"""The embedded InternVL: the transformers class itself, small, with a start that suits learning from scratch.

Two starts are set by hand because a few thousand steps cannot discover them: sine-cosine position embeddings, and
patch filters that are cosine bases, so that the first layer already sees colour, edges and where they lie.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import InternVLConfig, InternVLForConditionalGeneration
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from acs_core.lvlm.processors import InternVLProcessor
from training.tiny.tokenizer import CHAT_TEMPLATE, END, PAD, build_tokenizer

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class TinyConfig:
    """Sizes of the embedded model; ``image_size`` and ``patch_size`` in pixels, two by two patches a token."""

    image_size: int = 224
    patch_size: int = 14
    vision_width: int = 192
    vision_layers: int = 4
    width: int = 192
    layers: int = 4
    heads: int = 6
    key_value_heads: int = 2
    intermediate: int = 448

    @property
    def patches(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def grid(self) -> int:
        """Image tokens along one side."""
        return self.patches // 2


def build_processor(config: TinyConfig, names: Sequence[str]) -> InternVLProcessor:
    """The processor for pictures of any size: resized to one square tile, no crops."""
    image_processor = GotOcr2ImageProcessorPil(
        size={"height": config.image_size, "width": config.image_size},
        min_patches=1,
        max_patches=1,
        image_mean=list(IMAGE_MEAN),
        image_std=list(IMAGE_STD),
    )
    return InternVLProcessor(
        image_processor, build_tokenizer(names), image_seq_length=config.grid**2, chat_template=CHAT_TEMPLATE
    )


def build_model(config: TinyConfig, processor: InternVLProcessor) -> InternVLForConditionalGeneration:
    """A model with fresh weights (drawn from torch's global generator) that fits ``processor``."""
    tokenizer = processor.tokenizer
    end, pad = tokenizer.convert_tokens_to_ids([END, PAD])
    model = InternVLForConditionalGeneration(
        InternVLConfig(
            vision_config={
                "hidden_size": config.vision_width,
                "num_hidden_layers": config.vision_layers,
                "num_attention_heads": config.vision_width // 32,
                "intermediate_size": config.vision_width * 2,
                "image_size": [config.image_size] * 2,
                "patch_size": [config.patch_size] * 2,
                "layer_scale_init_value": 1.0,
            },
            text_config={
                "model_type": "qwen3",
                "vocab_size": 8 * math.ceil(len(tokenizer) / 8),
                "hidden_size": config.width,
                "intermediate_size": config.intermediate,
                "num_hidden_layers": config.layers,
                "num_attention_heads": config.heads,
                "num_key_value_heads": config.key_value_heads,
                "head_dim": config.width // config.heads,
                "max_position_embeddings": 4096,
                "bos_token_id": None,
                "eos_token_id": end,
                "pad_token_id": pad,
                "tie_word_embeddings": True,
            },
            image_token_id=tokenizer.context_image_token_id,
            image_seq_length=config.grid**2,
            downsample_ratio=0.5,
            tie_word_embeddings=True,
        )
    )
    model.generation_config.eos_token_id = end
    model.generation_config.pad_token_id = pad
    _start_vision(model.model.vision_tower.embeddings, config)
    return model


@torch.no_grad()
def _start_vision(embeddings: Any, config: TinyConfig) -> None:
    width, p, g = config.vision_width, config.patch_size, config.patches
    rate = 100.0 ** -(torch.arange(width // 4) / (width / 4))
    y, x = torch.meshgrid(torch.arange(g).float(), torch.arange(g).float(), indexing="ij")

    def waves(t: torch.Tensor) -> torch.Tensor:
        angle = t.flatten()[:, None] * rate  # (g*g, width/4)
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    embeddings.position_embeddings[0, 1:] = 0.3 * torch.cat([waves(y), waves(x)], dim=1)

    k = torch.arange(p).float()
    basis = torch.cos(math.pi / p * (k + 0.5)[None] * k[:, None])  # (frequency, pixel)
    basis = basis / basis.norm(dim=1, keepdim=True)
    waves_2d = sorted(((u, v) for u in range(p) for v in range(p)), key=lambda f: f[0] ** 2 + f[1] ** 2)[: width // 3]
    filters = torch.zeros(width, 3, p, p)
    for n, (u, v) in enumerate(waves_2d):
        for channel in range(3):
            filters[3 * n + channel, channel] = torch.outer(basis[u], basis[v])
    embeddings.patch_embeddings.projection.weight.copy_(0.5 * filters)


def save(model: InternVLForConditionalGeneration, processor: InternVLProcessor, folder: Path) -> None:
    """Writes a model folder that transformers loads: half-precision safetensors, configuration, processor files."""
    folder.mkdir(parents=True, exist_ok=True)
    copy.deepcopy(model).half().save_pretrained(folder)
    processor.save_pretrained(folder)
