"""Models of a chosen shape with random weights, and prompts for them: speed does not depend on what weights say.

``small`` fits a CPU. ``7b`` and ``8b`` have the true sizes of Qwen2.5-VL-7B and InternVL-3.5-8B.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    PreTrainedConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from acs_bench.errors import BenchError
from acs_core.lvlm.base import LVLM, Family, Prompt
from acs_core.lvlm.internvl import InternVL
from acs_core.lvlm.model import LoadedLVLM
from acs_core.lvlm.qwen2_5_vl import Qwen2_5_VL

PAD, EOS, BOS, IMAGE, VISION_START, VISION_END, VIDEO, FIRST_WORD = 0, 1, 2, 4, 5, 6, 7, 20
SHARED_TEXT, OWN_TEXT = 100, 100  # prompt tokens between image and phrase, and from the phrase on, as in appendix D
PATCH = 14  # pixels; both families merge 2 x 2 patches into one image token
MAX_TILES = 12  # of InternVL's processor
MAX_PIXELS = 16384 * (2 * PATCH) ** 2  # of Qwen2.5-VL's


@dataclass(frozen=True)
class Shape:
    """A model shape: its transformers class, its configuration, and how its family lays a prompt out."""

    name: str
    cls: Any
    config: Callable[[], PreTrainedConfig]
    family: Family


def _small() -> PreTrainedConfig:
    return _qwen(
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


def _7b() -> PreTrainedConfig:
    return _qwen(
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


def _qwen(vision: Mapping[str, Any], text: Mapping[str, Any], rope: list[int]) -> PreTrainedConfig:
    return Qwen2_5_VLConfig(
        vision_config={**vision, "out_hidden_size": text["hidden_size"], "window_size": 112},
        text_config={
            **text,
            "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": rope},
            **_ends(),
        },
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
    )


def _8b() -> PreTrainedConfig:
    return InternVLConfig(
        vision_config={
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
            "image_size": [448, 448],
            "patch_size": [PATCH, PATCH],
        },
        text_config={
            "model_type": "qwen3",
            "vocab_size": 151936,
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 32768,
            **_ends(),
        },
        image_token_id=IMAGE,
        image_seq_length=256,
    )


def _ends() -> dict[str, int]:
    return {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("small", Qwen2_5_VLForConditionalGeneration, _small, Qwen2_5_VL()),
        Shape("7b", Qwen2_5_VLForConditionalGeneration, _7b, Qwen2_5_VL()),
        Shape("8b", InternVLForConditionalGeneration, _8b, InternVL()),
    )
}


def random_lvlm(name: str, device: torch.device, dtype: torch.dtype, seed: int = 0) -> LVLM:
    """A model of shape ``name`` with random weights, made where it stays. It has no processor and no tokenizer.

    Raises:
        BenchError: there is no such shape.
    """
    if name not in SHAPES:
        raise BenchError(f"there is no shape {name!r}: use one of {', '.join(SHAPES)}")
    shape = SHAPES[name]
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.device(device):
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)
        try:
            model = shape.cls(shape.config()).eval()
        finally:
            torch.set_default_dtype(before)
    model.set_attn_implementation("sdpa")
    absent: Any = None  # nothing here turns text or pictures into tokens
    return LoadedLVLM(f"random-{name}", None, shape.family, model, absent, absent, (EOS,), PAD)


def random_prompts(lvlm: LVLM, image_tokens: int, phrases: int = 1, seed: int = 0) -> tuple[Prompt, ...]:
    """Prompts about one random picture of about ``image_tokens`` tokens, as many as ``phrases``, with text of usual
    length.

    Raises:
        BenchError: fewer tokens than the family's smallest picture has.
    """
    generator = torch.Generator().manual_seed(seed)
    dtype = next(lvlm.hf_model.parameters()).dtype
    if lvlm.family == "qwen2_5_vl":
        vision, tokens, grid = _qwen_vision(image_tokens, generator)
    else:
        vision, tokens, grid = _internvl_vision(image_tokens, lvlm.hf_model.config.image_seq_length, generator)
    vision = {k: v.to(lvlm.device, dtype if v.is_floating_point() else v.dtype) for k, v in vision.items()}
    prompts = []
    for k in range(phrases):
        own = [FIRST_WORD + SHARED_TEXT + k, *range(FIRST_WORD, FIRST_WORD + OWN_TEXT - 1)]
        shared = range(FIRST_WORD, FIRST_WORD + SHARED_TEXT)
        ids = [BOS, VISION_START, *[IMAGE] * tokens, VISION_END, *shared, *own]
        input_ids = torch.tensor([ids], device=lvlm.device)
        if lvlm.family == "qwen2_5_vl":
            positions, _ = lvlm.hf_model.model.get_rope_index(
                input_ids, mm_token_type_ids=(input_ids == IMAGE).int(), image_grid_thw=vision["image_grid_thw"]
            )
        else:
            positions = torch.arange(len(ids), device=lvlm.device)[None]
        last = 2 + tokens
        cells = grid[0] * grid[1]
        prompts.append(
            Prompt(f"phrase {k}", input_ids, positions, vision, (last - cells, last), grid, (640, 480), (1e3, 1e3))
        )
    return tuple(prompts)


def tokens_of_frame(name: str, width: int, height: int) -> int:
    """How many image tokens the processor of the model of shape ``name`` makes of a frame, with its usual limits."""
    if isinstance(SHAPES[name].family, Qwen2_5_VL):
        rows, columns = smart_resize(height, width, factor=2 * PATCH, max_pixels=MAX_PIXELS)
        return rows * columns // (2 * PATCH) ** 2
    tile = SHAPES[name].config().vision_config.image_size[0]
    columns, rows = get_optimal_tiled_canvas((height, width), (tile, tile), 1, MAX_TILES)
    tiles = columns * rows
    return (tiles + (tiles > 1)) * SHAPES[name].config().image_seq_length  # and a thumbnail


def _qwen_vision(tokens: int, generator: torch.Generator) -> tuple[dict[str, torch.Tensor], int, tuple[int, int]]:
    rows = math.isqrt(tokens)
    if rows < 1:
        raise BenchError(f"{tokens} image tokens are too few: 1 is the least")
    grid = (rows, tokens // rows)  # image tokens; patches are twice as many on both sides
    patches = torch.randn(4 * grid[0] * grid[1], 3 * 2 * PATCH * PATCH, generator=generator)
    vision = {"pixel_values": patches, "image_grid_thw": torch.tensor([[1, 2 * grid[0], 2 * grid[1]]])}
    return vision, grid[0] * grid[1], grid


def _internvl_vision(
    tokens: int, per_tile: int, generator: torch.Generator
) -> tuple[dict[str, torch.Tensor], int, tuple[int, int]]:
    tiles = round(tokens / per_tile)
    if tiles < 1:
        raise BenchError(f"{tokens} image tokens are too few: a tile has {per_tile}")
    side = math.isqrt(per_tile)
    return {"pixel_values": torch.randn(tiles, 3, 448, 448, generator=generator)}, tiles * per_tile, (side, side)
