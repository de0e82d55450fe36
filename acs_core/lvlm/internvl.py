"""InternVL3 and InternVL3.5 (``InternVLForConditionalGeneration``, the HF-native folders such as
OpenGVLab/InternVL3_5-8B-HF and OpenGVLab/InternVL3-8B-hf).

The processor cuts the picture into tiles of ``image_seq_length`` tokens each and adds a thumbnail of the whole picture
as the last one; a picture of one tile has only that. The map is the attention on these last tokens (paper appendix
A.3: 256 tokens, whose native 16 x 16 grid is kept).

Answers are 0-1000 of the whole picture's width and height, as in the training data of InternVL 2.0 and 2.5
(:attr:`InternVL.frame_source`); nothing later is published. No public source says what the models do with a prompt
whose examples look like pixels, as that of the paper does.

The sizes differ in their language model: Qwen2 in InternVL3 (a Llama layout in 9B and in some of InternVL2.5), Qwen3 in
the dense sizes of InternVL3.5. Refused are InternVL3.5-20B-A4B, whose GPT-OSS has attention sinks and sliding windows,
and the mixtures of experts 30B-A3B and 241B-A28B.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import transformers
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
    GotOcr2ImageProcessorPil,
    get_optimal_tiled_canvas,
)

from acs_core.errors import BenchError, ModelError
from acs_core.lvlm.base import RELATIVE, Family, Layout
from acs_core.lvlm.device_pixels import DevicePixels, is_usual, normalise, resized, tiles
from acs_core.lvlm.picture import limit_tiles, most_tiles
from acs_core.lvlm.shapes import ENDS, IMAGE, ModelShape, RandomPicture
from acs_core.plain_text import shorten

MAX_TILES = 12  # of the processor, with its usual settings
TEXT_MODELS = ("qwen2", "qwen3", "llama")  # model_type of the language models that the adapter reads


class InternVLProcessor(transformers.InternVLProcessor):
    """``transformers.InternVLProcessor`` for images only; see :class:`acs_core.lvlm.base.Family`."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        image_seq_length: int = 256,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            image_processor, tokenizer, None, image_seq_length=image_seq_length, chat_template=chat_template, **kwargs
        )


_TOWERS: Mapping[str, Mapping[str, Any]] = {
    "300m": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    "6b": {
        "hidden_size": 3200,
        "num_hidden_layers": 45,
        "num_attention_heads": 25,
        "intermediate_size": 12800,
        "use_qk_norm": True,
        "norm_type": "rms_norm",
    },
}
# InternViT, then type, layers, heads, key groups, width and MLP width of the language model.
_SIZES = {
    "internvl3-1b": ("300m", "qwen2", 24, 14, 2, 896, 4864),
    "internvl3-2b": ("300m", "qwen2", 28, 12, 2, 1536, 8960),
    "internvl3-8b": ("300m", "qwen2", 28, 28, 4, 3584, 18944),
    "internvl3-14b": ("300m", "qwen2", 48, 40, 8, 5120, 13824),
    "internvl3-38b": ("6b", "qwen2", 64, 40, 8, 5120, 27648),
    "internvl3-78b": ("6b", "qwen2", 80, 64, 8, 8192, 29568),
    "internvl3.5-1b": ("300m", "qwen3", 28, 16, 8, 1024, 3072),
    "internvl3.5-2b": ("300m", "qwen3", 28, 16, 8, 2048, 6144),
    "internvl3.5-4b": ("300m", "qwen3", 36, 32, 8, 2560, 9728),
    "8b": ("300m", "qwen3", 36, 32, 8, 4096, 12288),  # InternVL3.5-8B
    "internvl3.5-14b": ("300m", "qwen3", 40, 40, 8, 5120, 17408),
    "internvl3.5-38b": ("6b", "qwen3", 64, 64, 8, 5120, 25600),
}


def _config(
    tower: str, kind: str, layers: int, heads: int, groups: int, hidden: int, mlp: int
) -> transformers.InternVLConfig:
    return transformers.InternVLConfig(
        vision_config={**_TOWERS[tower], "image_size": [448, 448], "patch_size": [14, 14]},
        text_config={
            "model_type": kind,
            "vocab_size": 151936 if kind == "qwen3" else 151674,
            "hidden_size": hidden,
            "intermediate_size": mlp,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": groups,
            **({"head_dim": 128} if kind == "qwen3" else {}),  # Qwen3's does not follow from its width
            "max_position_embeddings": 32768,
            **ENDS,
        },
        image_token_id=IMAGE,
        image_seq_length=256,
        tie_word_embeddings=False,  # transformers' default is True; no published size shares its output weights
    )


class InternVL(Family):
    """The InternVL part of an LVLM."""

    name = "internvl"
    processor_class = InternVLProcessor
    max_image_tokens = 2304  # eight tiles of 256 and the thumbnail: 4 x 2 for 16:9, 3 x 2 for 4:3
    image_processor_class = GotOcr2ImageProcessorPil
    former_processors = ("InternVLImageProcessor",)
    frame = RELATIVE
    frame_source = (
        "https://internvl.readthedocs.io/en/latest/get_started/chat_data_format.html#grounding-detection-data"
    )
    shapes = MappingProxyType(
        {
            name: ModelShape(transformers.InternVLForConditionalGeneration, partial(_config, *sizes))
            for name, sizes in _SIZES.items()
        }
    )

    def check_config(self, config: Mapping[str, Any]) -> None:
        """Check that the language model is one of :data:`TEXT_MODELS`.

        Raises:
            ModelError: it is not.
        """
        kind = config.get("text_config", {}).get("model_type", "qwen2")
        if kind not in TEXT_MODELS:
            raise ModelError(
                f"an InternVL with the language model {shorten(kind)} is not supported: use a size whose language "
                f"model is one of {', '.join(TEXT_MODELS)}, such as InternVL3_5-8B-HF or -14B-HF"
            )

    def check(self, model: Any, processor: Any) -> None:
        """Check that processor and model agree on a square number of tokens per tile.

        Raises:
            ModelError: they do not.
        """
        tokens, declared = processor.image_seq_length, model.config.image_seq_length
        if tokens != declared or math.isqrt(tokens) ** 2 != tokens:
            raise ModelError(
                f"image_seq_length must be a square number and the same in both files: config.json says {declared}, "
                f"processor_config.json says {tokens}"
            )

    def layout(self, hf_model: Any, input_ids: torch.Tensor, vision: Mapping[str, Any]) -> Layout:
        """The last tile's tokens as a square grid; text-like positions; a frame of 0-1000 on both axes."""
        stop = int(torch.nonzero(input_ids[0] == hf_model.config.image_token_id)[-1]) + 1
        side = math.isqrt(hf_model.config.image_seq_length)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]  # (1, S)
        return Layout(positions, (stop - side * side, stop), (side, side), (1000.0, 1000.0))

    def limit_picture(self, processor: Any, tokens: int) -> None:
        """Lowers the largest number of tiles."""
        limit_tiles(processor.image_processor, tokens, processor.image_seq_length)

    def input_size(self, processor: Any, vision: Mapping[str, Any], image_size: tuple[int, int]) -> tuple[int, int]:
        """That of the canvas which is cut into tiles."""
        image, (width, height) = processor.image_processor, image_size
        side = image.size["width"], image.size["height"]
        if len(vision["pixel_values"]) == 1:
            return side
        columns, rows = get_optimal_tiled_canvas((height, width), side[::-1], image.min_patches, image.max_patches)
        return columns * side[0], rows * side[1]

    def device_pixels(
        self, processor: Any, picture: np.ndarray, device: torch.device, resize_there: bool = True
    ) -> DevicePixels | None:
        """Tiles of a canvas, and the thumbnail where there are several."""
        image = processor.image_processor
        side = image.size.height, image.size.width
        if not (is_usual(image) and all(side)):
            return None
        height, width = picture.shape[:2]
        columns, rows = get_optimal_tiled_canvas((height, width), side, image.min_patches, image.max_patches)
        sizes = [(rows * side[0], columns * side[1])] + [side] * (rows * columns > 1)
        sized = resized(picture, sizes, image.resample, device, resize_there)
        cut = torch.cat([tiles(whole, side) for whole in sized])  # (tiles, 3, height, width)
        vision = {"pixel_values": normalise(cut, image)}
        names = [processor.start_image_token, processor.image_token, processor.end_image_token]
        start, token, end = processor.tokenizer.convert_tokens_to_ids(names)
        return DevicePixels(vision, vision, [start, *[token] * (processor.image_seq_length * len(cut)), end])

    def image_tokens(self, config: Any, width: int, height: int, max_tokens: int | None = None) -> int:
        """Those of the tiles, and of the thumbnail where there are several."""
        tile = config.vision_config.image_size[0]
        most = MAX_TILES if max_tokens is None else min(MAX_TILES, most_tiles(max_tokens, config.image_seq_length))
        columns, rows = get_optimal_tiled_canvas((height, width), (tile, tile), 1, most)
        tiles = columns * rows
        return int((tiles + (tiles > 1)) * config.image_seq_length)

    def random_picture(self, config: Any, tokens: int, generator: torch.Generator) -> RandomPicture:
        """Noise in as many tiles as come nearest to ``tokens``."""
        per_tile = config.image_seq_length
        tiles = round(tokens / per_tile)
        if tiles < 1:
            raise BenchError(f"{tokens} image tokens are too few: a tile has {per_tile}")
        side, pixels = math.isqrt(per_tile), config.vision_config.image_size
        noise = torch.randn(tiles, 3, *pixels, generator=generator)
        return RandomPicture({"pixel_values": noise}, tiles * per_tile, (side, side))
