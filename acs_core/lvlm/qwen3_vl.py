"""Qwen3-VL, the dense sizes (``Qwen3VLForConditionalGeneration``).

Prompt, grid and rope positions are those of Qwen2.5-VL (:mod:`acs_core.lvlm.qwen2_5_vl`), with patches of 16 pixels.
What differs is inside the model. DeepStack: features of intermediate layers of the vision tower are added to the hidden
states of the image tokens after the first layers of the language model, in the forward that reads the image and in no
later one. Interleaved mrope: the channels of time, row and column alternate. Queries and keys are normalised per head
before the rope. The engine sees queries and keys after all of it.

Coordinates are stated in 0-1000 of the whole image's width and height, where Qwen2.5-VL states pixels; the notebook on
grounding in the model's own repository says so (:attr:`Qwen3_VL.frame_source`).

The mixture-of-experts sizes are another architecture (``qwen3_vl_moe``) and not supported.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import transformers
from transformers import vision_utils

from acs_core.lvlm.base import RELATIVE
from acs_core.lvlm.qwen2_5_vl import Qwen2_5_VL
from acs_core.lvlm.shapes import ENDS, IMAGE, VIDEO, VISION_END, VISION_START, ModelShape

# (depth, width, MLP width, layers whose features DeepStack adds) of the two vision towers
_SMALL_TOWER = (24, 1024, 4096, (5, 11, 17))
_LARGE_TOWER = (27, 1152, 4304, (8, 16, 24))


class Qwen3VLProcessor(transformers.Qwen3VLProcessor):
    """``transformers.Qwen3VLProcessor`` for images only; see :class:`acs_core.lvlm.base.Family`."""

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(image_processor, tokenizer, None, chat_template=chat_template, **kwargs)


def _config(
    tower: tuple[int, int, int, tuple[int, ...]], layers: int, heads: int, hidden: int, mlp: int, tied: bool
) -> transformers.Qwen3VLConfig:
    """A published size: the vision tower, then layers, heads (with 8 key groups), width and MLP width of the language
    model, and whether its output weights are those of the embeddings."""
    depth, width, inner, stacked = tower
    return transformers.Qwen3VLConfig(
        vision_config={
            "depth": depth,
            "hidden_size": width,
            "intermediate_size": inner,
            "num_heads": 16,
            "deepstack_visual_indexes": list(stacked),
            "out_hidden_size": hidden,
            "patch_size": 16,
        },
        text_config={
            "vocab_size": 151936,
            "hidden_size": hidden,
            "intermediate_size": mlp,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 262144,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "mrope_section": [24, 20, 20],
                "mrope_interleaved": True,
            },
            **ENDS,
        },
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        tie_word_embeddings=tied,
    )


_SIZES = {
    "qwen3-vl-2b": (_SMALL_TOWER, 28, 16, 2048, 6144, True),
    "qwen3-vl-4b": (_SMALL_TOWER, 36, 32, 2560, 9728, True),
    "qwen3-vl-8b": (_LARGE_TOWER, 36, 32, 4096, 12288, False),
    "qwen3-vl-32b": (_LARGE_TOWER, 64, 64, 5120, 25600, False),
}


class Qwen3_VL(Qwen2_5_VL):
    """The Qwen3-VL part of an LVLM."""

    name = "qwen3_vl"
    processor_class = Qwen3VLProcessor
    former_processors = ("Qwen3VLImageProcessor", "Qwen3_VLImageProcessor")
    frame = RELATIVE
    frame_source = "https://github.com/QwenLM/Qwen3-VL/blob/main/cookbooks/2d_grounding.ipynb"
    shapes = MappingProxyType(
        {
            name: ModelShape(transformers.Qwen3VLForConditionalGeneration, partial(_config, *sizes))
            for name, sizes in _SIZES.items()
        }
    )

    def tower_inputs(self, tower: Any, vision: Mapping[str, Any]) -> dict[str, Any]:
        """See :meth:`acs_core.lvlm.base.Family.tower_inputs`."""
        indices, weights = vision_utils.get_vision_interpolation_indices_and_weights(
            vision["image_grid_thw"],
            num_grid_per_side=tower.num_grid_per_side,
            mode=tower.interpolation_mode,
            align_corners=tower.interpolation_align_corners,
            spatial_merge_size=tower.config.spatial_merge_size,
        )
        return {**super().tower_inputs(tower, vision), "interp_indices": indices, "interp_weights": weights}
