"""InternVL (``InternVLForConditionalGeneration``, the HF-native folders such as OpenGVLab/InternVL3_5-8B-HF).

The processor cuts the picture into tiles of ``image_seq_length`` tokens each and adds a thumbnail of the whole picture
as the last one; a picture of one tile has only that. The map is the attention on these last tokens (paper appendix
A.3: 256 tokens, 16 x 16). Answers are 0-1000 of the whole picture's width and height.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from acs_core.errors import ModelError
from acs_core.lvlm.base import Layout


class InternVL:
    """The InternVL part of an LVLM; holds no state."""

    name = "internvl"

    def check(self, hf_model: Any, processor: Any) -> None:
        """Raises ModelError unless processor and model agree on a square number of tokens per tile."""
        tokens, declared = processor.image_seq_length, hf_model.config.image_seq_length
        if tokens != declared or math.isqrt(tokens) ** 2 != tokens:
            raise ModelError(
                f"image_seq_length must be a square number and the same in both files: config.json says {declared}, "
                f"processor_config.json says {tokens}"
            )

    def layout(self, hf_model: Any, processor: Any, input_ids: torch.Tensor, vision: Mapping[str, Any]) -> Layout:
        """The last tile's tokens as a square grid; text-like positions; a frame of 0-1000 on both axes."""
        stop = int(torch.nonzero(input_ids[0] == hf_model.config.image_token_id)[-1]) + 1
        side = math.isqrt(processor.image_seq_length)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]  # (1, S)
        return Layout(positions, (stop - side * side, stop), (side, side), (1000.0, 1000.0))
