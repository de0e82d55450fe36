"""Whole calls: an image is preprocessed and a prompt built for each, tokens are really drawn, and most tokens of an
answer belong to its template, as in the answers of real models.

The answers are forced after drawing, so that every method does the same work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from acs_core.bench.forwards import PieceTokenizer, forced_text
from acs_core.bench.methods import Work
from acs_core.bench.subject import is_random, prompt_about
from acs_core.errors import BenchError
from acs_core.lvlm.base import LVLM, Prompt
from acs_core.lvlm.internvl import MAX_TILES
from acs_core.lvlm.qwen2_5_vl import MAX_TOKENS

PHRASE, OTHER_PHRASE = "traffic light", "cup"
FORM = "in a code block"  # of acs_core.bench.forwards.FORMS
_THREE_DIGITS = 100
_LEAST_PIXELS = 56 * 56  # of the processors of Qwen


@dataclass(frozen=True)
class WholeCall:
    """A model and an image that it is asked about.

    Attributes:
        lvlm: the model.
        prepare: preprocesses the image and returns the prompt about :data:`PHRASE`.
        tokenizer: tokenizer of the answers.
    """

    lvlm: LVLM
    prepare: Callable[[], Prompt]
    tokenizer: Any

    @classmethod
    def about(cls, lvlm: LVLM, frame: tuple[int, int]) -> WholeCall:
        """Return calls about an image of noise of ``frame`` = (width, height) pixels.

        Raises:
            BenchError: a model of random weights whose family names no image processor.
        """
        width, height = frame
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        if not is_random(lvlm):
            return cls(lvlm, partial(lvlm.prepare, image, PHRASE), lvlm.tokenizer)
        return cls(lvlm, partial(_prepare, lvlm, usual_image_processor(lvlm), image), PieceTokenizer())

    def answers(self, samples: int, number: int, phrase: str = PHRASE) -> tuple[tuple[int, ...], ...]:
        """Return ``samples`` different answers about ``phrase`` as token ids; those of each call ``number`` have other
        coordinates, so that no call drafts the coordinates of the one before."""
        chance = np.random.default_rng(number)
        texts = [forced_text(FORM, phrase, chance, _THREE_DIGITS) for _ in range(samples)]
        return tuple(tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)

    def work(self, samples: int, number: int) -> Work:
        """Return the work of the call ``number``, its prompt newly prepared."""
        return Work.writing(self.lvlm, self.prepare(), self.answers(samples, number))


def usual_image_processor(lvlm: LVLM) -> Any:
    """Return the image processor of the model's family with the sizes of the model, and its usual limits.

    Raises:
        BenchError: the family names none.
    """
    made = lvlm.adapter.image_processor_class
    if made is None:
        raise BenchError(f"the family {lvlm.family} names no image processor for a model of random weights")
    vision = lvlm.hf_model.config.vision_config
    if hasattr(vision, "spatial_merge_size"):
        side = vision.patch_size * vision.spatial_merge_size
        return made(
            patch_size=vision.patch_size,
            merge_size=vision.spatial_merge_size,
            temporal_patch_size=vision.temporal_patch_size,
            size={"shortest_edge": _LEAST_PIXELS, "longest_edge": MAX_TOKENS * side**2},
        )
    height, width = vision.image_size
    return made(size={"height": height, "width": width}, crop_to_patches=True, min_patches=1, max_patches=MAX_TILES)


def text_alone(work: Work) -> Work:
    """Return ``work`` with a prompt of the same length without an image: words stand where its image tokens were. So
    it is work for the language model alone."""
    config = work.lvlm.hf_model.config
    ids = work.prompt.input_ids
    word = int(ids[0, -1])
    is_vision = ids == config.image_token_id
    for name in ("vision_start_token_id", "vision_end_token_id"):
        if (token := getattr(config, name, None)) is not None:
            is_vision |= ids == token
    positions = torch.arange(work.prompt.length, device=ids.device)
    prompt = Prompt(
        phrase=work.prompt.phrase,
        input_ids=torch.where(is_vision, word, ids),
        position_ids=positions.expand_as(work.prompt.position_ids).contiguous(),
        vision={},
        map_slice=(0, 1),
        grid=(1, 1),
        image_size=work.prompt.image_size,
        frame_size=work.prompt.frame_size,
    )
    return Work(work.lvlm, prompt, work.responses, work.coordinates)


def _prepare(lvlm: LVLM, image_processor: Any, image: np.ndarray) -> Prompt:
    inputs = image_processor(images=[image], input_data_format="channels_last", return_tensors="pt")
    dtype = next(lvlm.hf_model.parameters()).dtype
    vision = {
        name: inputs[name].to(lvlm.device, dtype if inputs[name].is_floating_point() else None)
        for name in image_processor.model_input_names
    }
    height, width = image.shape[:2]
    tokens = lvlm.adapter.image_tokens(lvlm.hf_model.config, width, height)
    return prompt_about(lvlm, vision, tokens, PHRASE)
