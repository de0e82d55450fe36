"""What a selector is: something that says how good each candidate of one call is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from acs_core.attention import AttentionNeeds, Evidence
from acs_core.geometry import Box
from acs_core.types import Candidate, ScoreKind


class Selector(Protocol):
    """Ranks the candidates of one call."""

    @property
    def name(self) -> str:
        """What it is asked for by."""

    @property
    def needs(self) -> AttentionNeeds:
        """The attention to capture for it."""

    @property
    def score_kind(self) -> ScoreKind:
        """What a quality means when it is published without a calibration."""

    @property
    def feature(self) -> str:
        """What :meth:`confidences` gives, in one word; "" where it gives nothing."""

    @property
    def greedy_decoding(self) -> bool:
        """Whether it wants one deterministic response instead of samples."""

    def qualities(self, candidates: Sequence[Candidate], evidence: Evidence, image_size: tuple[int, int]) -> np.ndarray:
        """Quality of each of the C candidates, (C,) float64 in [0, 1], higher is better; NaN for one that it does not
        consider. ``image_size`` is (w, h)."""

    def confidences(
        self, candidates: Sequence[Candidate], evidence: Evidence, qualities: np.ndarray
    ) -> np.ndarray | None:
        """An absolute measure (C,) that means the same in every call, higher is better: what a calibration maps to a
        probability. None where the selector has none."""


@runtime_checkable
class MakesBoxes(Selector, Protocol):
    """A selector whose published box is none of the candidates' but made out of several."""

    def box_of(self, best: int, members: Sequence[int], candidates: Sequence[Candidate], qualities: np.ndarray) -> Box:
        """The box to publish for the group ``members`` (indices into ``candidates``, best first), in pixels, with
        positive area: all considered candidates for a single answer, a cluster of overlapping ones where several
        objects are asked for. ``best`` is the member that it stands for, ``qualities`` (C,) those of all candidates."""
