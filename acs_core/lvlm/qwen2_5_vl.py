"""Qwen2.5-VL (``Qwen2_5_VLForConditionalGeneration``).

The processor resizes the image to whole patches near its own size; ``merge_size`` x ``merge_size`` patches make one
image token, so the grid of the attention map depends on the image. Coordinates are stated in pixels of the resized
image (technical report: :attr:`Qwen2_5_VL.frame_source`). The rope has three axes (time, row, column) for image tokens;
for text tokens all three are equal. :mod:`acs_core.lvlm.qwen2_vl` and :mod:`acs_core.lvlm.qwen3_vl` build on this file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import transformers
from transformers import vision_utils
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from acs_core.device_array import upload
from acs_core.errors import BenchError, ModelError
from acs_core.lvlm.base import RELATIVE, RESIZED, Family, Layout
from acs_core.lvlm.device_pixels import DevicePixels, is_usual, normalise, patches, repeated, resized
from acs_core.lvlm.picture import limit_pixels
from acs_core.lvlm.shapes import ENDS, IMAGE, VIDEO, VISION_END, VISION_START, ModelShape, RandomPicture

MAX_TOKENS = 16384  # image tokens of the processor's largest picture, with its usual settings


class Qwen2_5_VLProcessor(transformers.Qwen2_5_VLProcessor):
    """``transformers.Qwen2_5_VLProcessor`` for images only; see :class:`acs_core.lvlm.base.Family`."""

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(image_processor, tokenizer, None, chat_template=chat_template, **kwargs)


def _config_small() -> transformers.Qwen2_5_VLConfig:
    """Sizes that a CPU runs in seconds."""
    return _config(
        vision={
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_heads": 4,
            "fullatt_block_indexes": [1, 3],
        },
        text={
            "vocab_size": 2000,
            "hidden_size": 512,
            "intermediate_size": 1376,
            "num_hidden_layers": 12,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
        },
        rope=[8, 12, 12],
    )


def _config_7b() -> transformers.Qwen2_5_VLConfig:
    """The sizes of Qwen2.5-VL-7B."""
    return _config(
        vision={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        text={
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
        },
        rope=[16, 24, 24],
    )


def _config(vision: Mapping[str, Any], text: Mapping[str, Any], rope: list[int]) -> transformers.Qwen2_5_VLConfig:
    return transformers.Qwen2_5_VLConfig(
        vision_config={**vision, "out_hidden_size": text["hidden_size"], "window_size": 112},
        text_config={
            **text,
            "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": rope},
            **ENDS,
        },
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
    )


class Qwen2_5_VL(Family):
    """The Qwen2.5-VL part of an LVLM."""

    name = "qwen2_5_vl"
    processor_class: Any = Qwen2_5_VLProcessor
    image_processor_class: Any = Qwen2VLImageProcessorPil
    former_processors: tuple[str, ...] = ("Qwen2_5_VLImageProcessor", "Qwen2_5VLImageProcessor")
    frame = RESIZED
    frame_source = "https://arxiv.org/abs/2502.13923"
    map_size = (24, 24)
    max_image_tokens = 1280  # 1,003,520 pixels: 1280 x 720, 1,196 tokens, fits as it is
    shapes = MappingProxyType(
        {
            "small": ModelShape(transformers.Qwen2_5_VLForConditionalGeneration, _config_small),
            "7b": ModelShape(transformers.Qwen2_5_VLForConditionalGeneration, _config_7b),
        }
    )

    def check(self, model: Any, processor: Any) -> None:
        """Checks that processor and model agree on the patches of an image token.

        Raises:
            ModelError: they do not.
        """
        declared, image = model.config.vision_config, processor.image_processor
        mine, theirs = (declared.patch_size, declared.spatial_merge_size), (image.patch_size, image.merge_size)
        if mine != theirs:
            raise ModelError(
                "the size of patches and how many are merged must be the same in both files: config.json says "
                f"{mine[0]} and {mine[1]}, the image processor's file says {theirs[0]} and {theirs[1]}"
            )

    def layout(self, hf_model: Any, input_ids: torch.Tensor, vision: Mapping[str, Any]) -> Layout:
        """All image tokens as the grid the processor chose, and positions computed here.

        The positions are passed to every forward, so the model never uses its ``rope_deltas``, which it keeps from one
        prompt to the next.
        """
        is_image = input_ids == hf_model.config.image_token_id  # (1, S)
        grid_thw = vision["image_grid_thw"]
        positions, _ = hf_model.model.get_rope_index(
            input_ids, mm_token_type_ids=is_image.int(), image_grid_thw=grid_thw
        )  # (3, 1, S)
        start = int(torch.nonzero(is_image[0])[0])
        _, rows, columns = (int(n) for n in grid_thw[0])  # in patches
        merge, patch = hf_model.config.vision_config.spatial_merge_size, hf_model.config.vision_config.patch_size
        grid = (rows // merge, columns // merge)
        frame = (1000.0, 1000.0) if self.frame == RELATIVE else (float(columns * patch), float(rows * patch))
        return Layout(positions, (start, start + grid[0] * grid[1]), grid, frame)

    def generate_inputs(self, hf_model: Any, input_ids: torch.Tensor) -> dict[str, Any]:
        """Which tokens are image tokens, by which the rope's positions are computed."""
        return {"mm_token_type_ids": (input_ids == hf_model.config.image_token_id).int()}

    def limit_picture(self, processor: Any, tokens: int) -> None:
        """Lowers the largest number of pixels."""
        limit_pixels(processor.image_processor, tokens)

    def input_size(self, processor: Any, vision: Mapping[str, Any], image_size: tuple[int, int]) -> tuple[int, int]:
        """That of the grid of patches."""
        _, rows, columns = (int(n) for n in vision["image_grid_thw"][0])
        patch = processor.image_processor.patch_size
        return columns * patch, rows * patch

    def device_pixels(
        self, processor: Any, picture: np.ndarray, device: torch.device, resize_there: bool = True
    ) -> DevicePixels | None:
        """A grid of whole image tokens, cut into patches."""
        image = processor.image_processor
        least, most = image.size.shortest_edge, image.size.longest_edge
        if not (is_usual(image) and least and most):
            return None
        patch, merge = image.patch_size, image.merge_size
        height, width = picture.shape[:2]
        size = smart_resize(height, width, patch * merge, min_pixels=least, max_pixels=most)
        (sized,) = resized(picture, [size], image.resample, device, resize_there)
        grid = torch.tensor([[1, size[0] // patch, size[1] // patch]])
        vision = {
            "pixel_values": repeated(normalise(patches(sized, patch, merge), image), image.temporal_patch_size),
            "image_grid_thw": upload(grid, device),
        }
        token = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
        count = int(grid.prod()) // merge**2
        return DevicePixels(vision, {**vision, "image_grid_thw": grid}, [token] * count)

    def tower_inputs(self, tower: Any, vision: Mapping[str, Any]) -> dict[str, Any]:
        """See :meth:`acs_core.lvlm.base.Family.tower_inputs`."""
        grid, merge = vision["image_grid_thw"], tower.config.spatial_merge_size
        whole = vision_utils.get_vision_cu_seqlens(grid)
        made = {
            "position_ids": vision_utils.get_vision_position_ids(grid, merge),
            "cu_seqlens": whole,
            "max_seqlen": int(whole.diff().max()),
        }
        if hasattr(tower, "window_size"):  # Qwen2-VL and Qwen3-VL have no windows
            order, windows = vision_utils.get_vision_window_index(grid, merge, tower.window_size, tower.patch_size)
            sizes = {"cu_window_seqlens": windows, "max_window_seqlen": int(windows.diff().max())}
            made |= {"window_index": upload(order, grid.device), **sizes}
        return made

    def image_tokens(self, config: Any, width: int, height: int, max_tokens: int | None = None) -> int:
        """Those of the picture resized to whole tokens."""
        side = config.vision_config.patch_size * config.vision_config.spatial_merge_size
        most = min(MAX_TOKENS, max_tokens or MAX_TOKENS)
        rows, columns = smart_resize(height, width, factor=side, max_pixels=most * side**2)
        return int(rows * columns // side**2)

    def random_picture(self, config: Any, tokens: int, generator: torch.Generator) -> RandomPicture:
        """Noise on a grid of exactly ``tokens`` cells if one has sides in a ratio of at most 4, else as square as they
        allow."""
        square = math.isqrt(tokens)
        if square < 1:
            raise BenchError(f"{tokens} image tokens are too few: 1 is the least")
        rows = next((r for r in range(square, (square + 1) // 2, -1) if tokens % r == 0), square)
        grid = (rows, tokens // rows)
        merge, patch = config.vision_config.spatial_merge_size, config.vision_config.patch_size
        frames = config.vision_config.temporal_patch_size  # a still picture enters as equal frames
        patches = torch.randn(merge**2 * grid[0] * grid[1], 3 * frames * patch**2, generator=generator)
        vision = {"pixel_values": patches, "image_grid_thw": torch.tensor([[1, merge * grid[0], merge * grid[1]]])}
        return RandomPicture(vision, grid[0] * grid[1], grid)
