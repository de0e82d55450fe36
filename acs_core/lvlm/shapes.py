"""Models of a chosen size with random weights, for measurements: speed does not depend on what the weights say.

A family lists its sizes in :attr:`acs_core.lvlm.base.Family.shapes`. Such a model has no tokenizer and no processor;
its prompts are made of the token ids below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

PAD, EOS, BOS, IMAGE, VISION_START, VISION_END, VIDEO, FIRST_WORD = 0, 1, 2, 4, 5, 6, 7, 20
ENDS: Mapping[str, int] = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}


@dataclass(frozen=True)
class ModelShape:
    """The class of transformers that holds a model, and the function that makes its configuration.

    The configuration names :data:`IMAGE` as its image token and has the end tokens :data:`ENDS`.
    """

    model_class: Any
    config: Callable[[], Any]


@dataclass(frozen=True)
class RandomPicture:
    """The pixel inputs of a picture of noise, the number of its image tokens, and the grid (Hv, Wv) of its map."""

    vision: Mapping[str, torch.Tensor]
    tokens: int
    grid: tuple[int, int]
