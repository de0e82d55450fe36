"""Qwen2.5-VL (``Qwen2_5_VLForConditionalGeneration``).

The processor resizes the picture to whole patches near its own size; ``merge_size`` x ``merge_size`` patches make one
image token, so the map's grid varies with the picture. Answers are absolute pixels of the resized picture. The rope
has three axes (time, row, column) on image tokens and counts all three alike on text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from acs_core.lvlm.base import Layout


class Qwen2_5_VL:
    """The Qwen2.5-VL part of an LVLM; holds no state."""

    name = "qwen2_5_vl"

    def check(self, hf_model: Any, processor: Any) -> None:
        """Nothing beyond what every family is checked for."""

    def layout(self, hf_model: Any, processor: Any, input_ids: torch.Tensor, vision: Mapping[str, Any]) -> Layout:
        """All image tokens as the grid the processor chose, and positions computed here.

        Positions are passed to every forward, so the model never falls back on ``rope_deltas``, which it keeps from
        one prompt to the next.
        """
        is_image = input_ids == hf_model.config.image_token_id  # (1, S)
        grid_thw = vision["image_grid_thw"]
        positions, _ = hf_model.model.get_rope_index(
            input_ids, mm_token_type_ids=is_image.int(), image_grid_thw=grid_thw
        )  # (3, 1, S)
        start = int(torch.nonzero(is_image[0])[0])
        _, rows, columns = (int(n) for n in grid_thw[0])  # in patches
        merge, patch = processor.image_processor.merge_size, processor.image_processor.patch_size
        grid = (rows // merge, columns // merge)
        frame = (float(columns * patch), float(rows * patch))
        return Layout(positions, (start, start + grid[0] * grid[1]), grid, frame)
