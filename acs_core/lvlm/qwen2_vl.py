"""Qwen2-VL (``Qwen2VLForConditionalGeneration``).

Prompt, grid and rope positions are those of Qwen2.5-VL (:mod:`acs_core.lvlm.qwen2_5_vl`); the vision tower differs, and
so does the frame: coordinates are stated in 0-1000 of the whole image's width and height (paper, section 2.2.1, on
visual grounding: :attr:`Qwen2_VL.frame_source`).
"""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import Any

import transformers

from acs_core.lvlm.base import RELATIVE
from acs_core.lvlm.qwen2_5_vl import Qwen2_5_VL
from acs_core.lvlm.shapes import ENDS, IMAGE, VIDEO, VISION_END, VISION_START, ModelShape


class Qwen2VLProcessor(transformers.Qwen2VLProcessor):
    """``transformers.Qwen2VLProcessor`` for images only; see :class:`acs_core.lvlm.base.Family`."""

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(image_processor, tokenizer, None, chat_template=chat_template, **kwargs)


def _config(
    layers: int, heads: int, groups: int, hidden: int, mlp: int, vocabulary: int, tied: bool
) -> transformers.Qwen2VLConfig:
    """A published size: layers, heads, key groups, width, MLP width and vocabulary of the language model, and whether
    its output weights are those of the embeddings."""
    return transformers.Qwen2VLConfig(
        vision_config={"depth": 32, "embed_dim": 1280, "num_heads": 16, "hidden_size": hidden},
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": hidden,
            "intermediate_size": mlp,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": groups,
            "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
            **ENDS,
        },
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        tie_word_embeddings=tied,
    )


_SIZES = {
    "qwen2-vl-2b": (28, 12, 2, 1536, 8960, 151936, True),
    "qwen2-vl-7b": (28, 28, 4, 3584, 18944, 152064, False),
    "qwen2-vl-72b": (80, 64, 8, 8192, 29568, 152064, False),
}


class Qwen2_VL(Qwen2_5_VL):
    """The Qwen2-VL part of an LVLM."""

    name = "qwen2_vl"
    processor_class = Qwen2VLProcessor
    former_processors = ()
    frame = RELATIVE
    frame_source = "https://arxiv.org/abs/2409.12191"
    shapes = MappingProxyType(
        {
            name: ModelShape(transformers.Qwen2VLForConditionalGeneration, partial(_config, *sizes))
            for name, sizes in _SIZES.items()
        }
    )
