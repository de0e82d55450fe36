"""What the engine knows about a large vision-language model (LVLM), whatever its family.

:class:`LVLM` is what the rest of the package works with. :class:`Family` is what one model family adds: where its
image tokens sit, how they form a grid, which positions its rope uses and in which frame it answers.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from acs_core.geometry import Box
from acs_core.identity import ModelLike

Values = tuple[float, float, float, float]


@dataclass(frozen=True)
class Prompt:
    """One question about one image, ready for the model; tensors are on the model's device.

    ``input_ids`` (1, S). ``position_ids`` (1, S), or (3, 1, S) for a three-axis rope. ``vision`` holds the pixel
    inputs of the forward. ``map_slice`` (start, stop) are the image tokens whose attention is the map, row by row on
    ``grid`` (Hv, Wv). ``image_size`` (width, height) of the original picture; ``frame_size`` (width, height) of the
    frame in which the model states coordinates.
    """

    phrase: str
    input_ids: torch.Tensor
    position_ids: torch.Tensor
    vision: Mapping[str, torch.Tensor]
    map_slice: tuple[int, int]
    grid: tuple[int, int]
    image_size: tuple[int, int]
    frame_size: tuple[float, float]

    @property
    def length(self) -> int:
        """Number of prompt tokens S."""
        return self.input_ids.shape[1]

    @property
    def next_position(self) -> int:
        """Rope position of the first response token; the others count up from it (all axes alike, they are text)."""
        return int(self.position_ids.max()) + 1


@dataclass(frozen=True)
class Layout:
    """Where the map sits in a prompt and how the model counts; the family's part of a :class:`Prompt`."""

    position_ids: torch.Tensor
    map_slice: tuple[int, int]
    grid: tuple[int, int]
    frame_size: tuple[float, float]


class Family(Protocol):
    """What one model family adds; see :mod:`acs_core.lvlm.internvl` for an example."""

    name: str

    def check(self, hf_model: Any, processor: Any) -> None:
        """Raises ModelError when this checkpoint breaks an assumption of the adapter."""

    def layout(self, hf_model: Any, processor: Any, input_ids: torch.Tensor, vision: Mapping[str, Any]) -> Layout:
        """The layout of a prompt ``input_ids`` (1, S) with its pixel inputs."""


@dataclass
class DecodeGraphs:
    """Recorded decode steps of one model, by their sizes, the latest used last (:mod:`acs_core.static_decode`).
    ``usable`` turns False where recording has failed."""

    kept: dict[tuple[int, ...], Any] = field(default_factory=dict)
    usable: bool = True


class LVLM(ModelLike, Protocol):
    """A loaded model. ``lock`` guards it: sampling and capture hold it, so that threads may share one LVLM."""

    @property
    def hf_model(self) -> Any:
        """The transformers model."""

    @property
    def text_model(self) -> Any:
        """Its language model, without vision tower and output head."""

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Tokens that end a response."""

    @property
    def pad_id(self) -> int:
        """Token that fills shorter responses of a batch."""

    @property
    def graphs(self) -> DecodeGraphs:
        """Recorded decode steps, on a GPU."""

    @property
    def lock(self) -> threading.RLock:
        """Held while the model works."""

    def prepare(self, image: np.ndarray, phrase: str) -> Prompt:
        """The prompt of paper appendix D for an RGB image (H, W, 3) uint8. Raises ImageError, PhraseError."""

    def prepare_many(self, image: np.ndarray, phrases: Sequence[str]) -> tuple[Prompt, ...]:
        """One prompt a phrase, all about the same image, whose pixels they share."""

    def to_pixels(self, prompt: Prompt, values: Values) -> Box:
        """Four answered numbers as a box in pixels of the original image, not clipped."""
