"""The embedded InternVL: one square tile for images of any shape; coordinates are 0-1000 of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import InternVLConfig, InternVLForConditionalGeneration
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from acs_core.lvlm.internvl import InternVLProcessor
from training.tiny.arch import TinyConfig, cosine_filters, normalised, resized, set_end, text_config
from training.tiny.recipe import TrainConfig, standard_phases
from training.tiny.tokenizer import build_tokenizer, chat_template

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_IMAGE_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
RECIPE = TrainConfig(standard_phases((600, 1800, 1000, 2100, 2300)))


@dataclass(frozen=True)
class InternVLArch:
    """InternVL as a :class:`training.tiny.arch.Arch`; its vision tower has absolute positions."""

    size: TinyConfig = field(default_factory=TinyConfig)
    name: str = "internvl"
    model_name: str = "tiny-internvl"
    video_processor: str = "InternVLVideoProcessor"
    teacher_layers: int = 0
    guided_layer: int = 2
    digit_places: tuple[int, ...] = (100, 10)  # units are less than half a pixel
    recipe: TrainConfig = RECIPE

    @property
    def side(self) -> int:
        """Number of image tokens along one side."""
        return self.size.image_size // self.size.token_size

    def build_processor(self, names: Sequence[str]) -> InternVLProcessor:
        """Return the processor, which resizes every image to one square tile, without crops."""
        image_processor = GotOcr2ImageProcessorPil(
            size={"height": self.size.image_size, "width": self.size.image_size},
            min_patches=1,
            max_patches=1,
            image_mean=list(MEAN),
            image_std=list(STD),
        )
        return InternVLProcessor(
            image_processor,
            build_tokenizer(names, _IMAGE_TOKENS),
            image_seq_length=self.side**2,
            chat_template=chat_template("<IMG_CONTEXT>\n"),
        )

    def build_model(self, processor: InternVLProcessor) -> InternVLForConditionalGeneration:
        """Return a model for ``processor``, with its vision tower initialised to cosine filters and sine-cosine
        positions."""
        size, tokenizer = self.size, processor.tokenizer
        model = InternVLForConditionalGeneration(
            InternVLConfig(
                vision_config={
                    "hidden_size": size.vision_width,
                    "num_hidden_layers": size.vision_layers,
                    "num_attention_heads": size.vision_heads,
                    "intermediate_size": size.vision_intermediate,
                    "image_size": [size.image_size] * 2,
                    "patch_size": [size.patch_size] * 2,
                    "layer_scale_init_value": 1.0,
                },
                text_config={
                    "model_type": "qwen3",
                    **text_config(size, tokenizer),
                    "head_dim": size.width // size.heads,
                },
                image_token_id=tokenizer.context_image_token_id,
                image_seq_length=self.side**2,
                downsample_ratio=0.5,
                tie_word_embeddings=True,
            )
        )
        set_end(model, tokenizer)
        embeddings: Any = model.model.vision_tower.embeddings
        with torch.no_grad():
            filters = cosine_filters(size.vision_width, size.patch_size)
            embeddings.patch_embeddings.projection.weight.copy_(filters)
            embeddings.position_embeddings[0, 1:] = _positions(size)
        return model

    def frame(self, width: int, height: int) -> tuple[int, int]:
        """Return (1000, 1000) for every image size."""
        return 1000, 1000

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Return the tile's (rows, columns) for every image size."""
        return self.side, self.side

    def vision_inputs(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return ``pixel_values`` (B, 3, image_size, image_size)."""
        tile = (self.size.image_size, self.size.image_size)
        return {"pixel_values": normalised(resized(pictures.permute(0, 3, 1, 2), tile), MEAN, STD)}

    def image_tokens(self, model: Any, pictures: torch.Tensor) -> torch.Tensor:
        """Compute the image tokens as transformers does."""
        return torch.as_tensor(model.model.get_image_features(**self.vision_inputs(pictures)).pooler_output)

    def image_text(self, processor: InternVLProcessor, width: int, height: int) -> str:
        """Return the tile's tokens between their start and end tokens."""
        tokens = "<IMG_CONTEXT>" * processor.image_seq_length
        return f"{processor.start_image_token}{tokens}{processor.end_image_token}"

    def text_inputs(self, processor: InternVLProcessor, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return no further arguments."""
        return {}

    def prefix_positions(self, model: Any, ids: torch.Tensor, width: int, height: int) -> torch.Tensor:
        """Return 0, 1, 2, ... as (1, P)."""
        return torch.arange(ids.shape[1])[None]


def _positions(size: TinyConfig) -> torch.Tensor:
    """Return sine-cosine position embeddings (patches, vision width): rows in the first half, columns in the second."""
    g, width = size.image_size // size.patch_size, size.vision_width
    rate = 100.0 ** -(torch.arange(width // 4) / (width / 4))
    y, x = torch.meshgrid(torch.arange(g).float(), torch.arange(g).float(), indexing="ij")
    angles = [t.flatten()[:, None] * rate for t in (y, x)]  # each (g*g, width/4)
    return 0.3 * torch.cat([wave for a in angles for wave in (a.sin(), a.cos())], dim=1)
