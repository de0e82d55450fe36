"""The embedded Qwen2.5-VL: images keep their shape; coordinates are pixels of the resized image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from acs_core.lvlm.qwen2_5_vl import Qwen2_5_VLProcessor
from training.tiny.arch import TinyConfig, cosine_filters, normalised, resized, set_end, text_config
from training.tiny.recipe import TrainConfig, standard_phases
from training.tiny.tokenizer import build_tokenizer, chat_template
from training.tiny.windows import windowed_tokens

_IMAGE_TOKENS = {
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
}
_FRAMES = 2  # a still image is passed as two equal frames

# The merger and the gated vision layers are larger than InternVL's; the other sizes keep the model below 8 MB.
QWEN_SIZE = TinyConfig(image_size=300, vision_intermediate=256, intermediate=416)
RECIPE = TrainConfig(standard_phases((5000, 4000, 600, 2100, 2650)))


@dataclass(frozen=True)
class Qwen2_5_VLArch:
    """Qwen2.5-VL as a :class:`training.tiny.arch.Arch`; positions enter only through the language model's three-axis
    rope."""

    size: TinyConfig = field(default_factory=lambda: QWEN_SIZE)
    name: str = "qwen2_5_vl"
    model_name: str = "tiny-qwen2.5-vl"
    video_processor: str = "Qwen2VLVideoProcessor"
    teacher_layers: int = 2
    guided_layer: int = 3
    digit_places: tuple[int, ...] = (100, 10, 1)
    recipe: TrainConfig = RECIPE

    @property
    def _pixels(self) -> tuple[int, int]:
        """Minimum and maximum number of pixels of a resized image."""
        most = self.size.image_size**2
        return most * 2 // 3, most

    def build_processor(self, names: Sequence[str]) -> Qwen2_5_VLProcessor:
        """Return the processor, which resizes images to whole image tokens and at most ``image_size`` squared
        pixels."""
        fewest, most = self._pixels
        image_processor = Qwen2VLImageProcessorPil(
            patch_size=self.size.patch_size,
            temporal_patch_size=_FRAMES,
            merge_size=2,
            size={"shortest_edge": fewest, "longest_edge": most},  # both in pixels of area
        )
        template = chat_template("<|vision_start|><|image_pad|><|vision_end|>")
        return Qwen2_5_VLProcessor(image_processor, build_tokenizer(names, _IMAGE_TOKENS), chat_template=template)

    def build_model(self, processor: Qwen2_5_VLProcessor) -> Qwen2_5_VLForConditionalGeneration:
        """Return a model for ``processor``, with its patch embedding initialised to cosine filters."""
        size, tokenizer = self.size, processor.tokenizer
        start_token, end_token, image_token, video_token = tokenizer.convert_tokens_to_ids(list(_IMAGE_TOKENS.values()))
        pairs = size.width // size.heads // 2  # rope frequencies of a head
        model = Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(
                vision_config={
                    "depth": size.vision_layers,
                    "hidden_size": size.vision_width,
                    "num_heads": size.vision_heads,
                    "intermediate_size": size.vision_intermediate,
                    "patch_size": size.patch_size,
                    "spatial_merge_size": 2,
                    "temporal_patch_size": _FRAMES,
                    "window_size": 4 * size.token_size,
                    "out_hidden_size": size.width,
                    "fullatt_block_indexes": list(range(1, size.vision_layers, 2)),
                },
                text_config={
                    **text_config(size, tokenizer),
                    # A dozen rows and columns are to be told apart: frequencies must turn within a dozen positions.
                    "rope_parameters": {
                        "rope_type": "default",
                        "rope_theta": 30.0,
                        "mrope_section": [pairs - 2 * (pairs * 7 // 16), pairs * 7 // 16, pairs * 7 // 16],
                    },
                },
                image_token_id=image_token,
                video_token_id=video_token,
                vision_start_token_id=start_token,
                vision_end_token_id=end_token,
                tie_word_embeddings=True,
            )
        )
        set_end(model, tokenizer)
        patch_embed: Any = model.model.visual.patch_embed
        with torch.no_grad():
            filters = cosine_filters(size.vision_width, size.patch_size)
            patch_embed.proj.weight.copy_(filters[:, :, None].expand(-1, -1, _FRAMES, -1, -1) / _FRAMES)
        return model

    def frame(self, width: int, height: int) -> tuple[int, int]:
        """Return the size to which the processor resizes the image: whole image tokens, at most ``image_size`` squared
        pixels."""
        fewest, most = self._pixels
        resized_height, resized_width = smart_resize(height, width, self.size.token_size, fewest, most)
        return resized_width, resized_height

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Return the (rows, columns) of image tokens."""
        columns, rows = (side // self.size.token_size for side in self.frame(width, height))
        return rows, columns

    def vision_inputs(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return ``pixel_values`` (patches of all images, 3 * 2 * patch * patch) and ``image_grid_thw`` (B, 3)."""
        count, p = len(pictures), self.size.patch_size
        size = (pictures.shape[2], pictures.shape[1])
        rows, columns = self.grid(*size)
        x = normalised(resized(pictures.permute(0, 3, 1, 2), self.frame(*size)), OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
        x = x.reshape(count, 3, rows, 2, p, columns, 2, p).permute(0, 2, 5, 3, 6, 1, 4, 7)  # (B, r, c, 2, 2, 3, p, p)
        x = x.reshape(-1, 3, 1, p, p).expand(-1, -1, _FRAMES, -1, -1).reshape(-1, 3 * _FRAMES * p * p)
        thw = torch.tensor([[1, 2 * rows, 2 * columns]], device=x.device).expand(count, -1)
        return {"pixel_values": x, "image_grid_thw": thw}

    def image_tokens(self, model: Any, pictures: torch.Tensor) -> torch.Tensor:
        """Compute the image tokens with all windows of a size in one batch; see :mod:`training.tiny.windows`."""
        rows, columns = self.grid(pictures.shape[2], pictures.shape[1])
        return windowed_tokens(model.model.visual, self.vision_inputs(pictures)["pixel_values"], rows, columns)

    def image_text(self, processor: Qwen2_5_VLProcessor, width: int, height: int) -> str:
        """Return the image tokens; the chat template adds the start and end tokens."""
        rows, columns = self.grid(width, height)
        return "<|image_pad|>" * (rows * columns)

    def text_inputs(self, processor: Qwen2_5_VLProcessor, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the token types: 1 for image tokens, 0 for text."""
        return {"mm_token_type_ids": (ids == processor.image_token_id).int()}

    def prefix_positions(self, model: Any, ids: torch.Tensor, width: int, height: int) -> torch.Tensor:
        """Return time, row and column of every token, (3, 1, P)."""
        is_image = (ids == model.config.image_token_id).int()
        rows, columns = self.grid(width, height)
        thw = torch.tensor([[1, 2 * rows, 2 * columns]], device=ids.device)
        positions, _ = model.model.get_rope_index(ids, mm_token_type_ids=is_image, image_grid_thw=thw)
        return torch.as_tensor(positions)
