"""What is measured: a model of a shape with random weights, or a real one, with prompts and words to answer in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from acs_bench.shapes import FIRST_WORD, SHAPES, random_lvlm, random_prompts, tokens_of_frame
from acs_core.assets import resolve_model
from acs_core.heads import Head, HeadFile
from acs_core.identity import ModelIdentity
from acs_core.lvlm import load_lvlm
from acs_core.lvlm.base import LVLM, Prompt
from acs_core.lvlm.loading import DTYPES, pick_device
from acs_core.regressor import AttentionIoURegressor
from acs_core.selection.acs_free import AcsFree
from acs_core.selection.acs_learned import AcsLearned

HEADS_PER_COORDINATE = 8
CRITICAL_LAYERS = 4
MAP_SIZES = {"qwen2_5_vl": (24, 24), "internvl": (16, 16)}  # appendix A.3
PHRASES = ("key", "apple", "cup", "book", "clock", "ball", "car", "dog")


@dataclass(frozen=True)
class Subject:
    """A model with the prompts about one picture, and ``words``, token ids that responses are made of."""

    lvlm: LVLM
    prompts: tuple[Prompt, ...]
    words: tuple[int, ...]

    def free(self) -> AcsFree:
        """ACS-Free on eight heads a coordinate, in the middle layers."""
        layers, heads = self.lvlm.num_layers, self.lvlm.num_heads
        middle = layers // 2
        chosen = [
            tuple(
                Head((middle + k % CRITICAL_LAYERS) % layers, (c + 3 * (k // CRITICAL_LAYERS)) % heads, 0.0)
                for k in range(min(HEADS_PER_COORDINATE, heads))
            )
            for c in range(4)
        ]
        return AcsFree(HeadFile(ModelIdentity.of(self.lvlm), "heads", tuple(chosen)))

    def learned(self) -> AcsLearned:
        """ACS-Learned with a regressor of random weights, of the model's size, on the maps of appendix A.3."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            regressor = AttentionIoURegressor(self.lvlm.num_layers, self.lvlm.num_heads)
        return AcsLearned(regressor.to(self.lvlm.device), MAP_SIZES[self.lvlm.family])


def load_subject(
    shape: str, image_tokens: int | None, phrases: int, device: str, dtype: str, frame: tuple[int, int] = (640, 480)
) -> Subject:
    """The model that ``shape`` names, a shape or a model's name, folder or hub id, and prompts for it.

    A random model's picture has about ``image_tokens`` tokens or, with None, as many as its processor would make of a
    ``frame`` of (width, height) pixels; a real one decides itself.

    Raises:
        BenchError, ModelError: it cannot be made or loaded.
    """
    target = pick_device(device)
    if shape in SHAPES:
        half = torch.bfloat16 if target.type == "cuda" else torch.float32
        lvlm = random_lvlm(shape, target, half if dtype == "auto" else DTYPES[dtype])
        words: Sequence[int] = range(FIRST_WORD, FIRST_WORD + 200)
        tokens = image_tokens or tokens_of_frame(shape, *frame)
        return Subject(lvlm, random_prompts(lvlm, tokens, phrases), tuple(words))
    lvlm = load_lvlm(resolve_model(shape), device=device, dtype=dtype)
    width, height = frame
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    names = [PHRASES[k % len(PHRASES)] for k in range(phrases)]
    words = lvlm.tokenizer("0 1 2 3 4 5 6 7 8 9, [ ]", add_special_tokens=False)["input_ids"]
    return Subject(lvlm, lvlm.prepare_many(picture, names), tuple(words))
