"""Baseline selectors of section 5.1: by the order of responses (greedy, pass-at-1, first-valid), or the smallest box,
which shows whether entropy merely prefers small boxes. Further, by the confidence that the model states in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from acs_core.attention import AttentionNeeds, AttentionRecord
from acs_core.selection.base import SelectorSpec
from acs_core.types import Candidate, ScoreKind


@dataclass(frozen=True)
class FirstResponse:
    """Selector of the earliest box: of the greedy response, or of the first sampled response with a valid box.

    With ``first_response_only`` only response 0 counts: if it has no valid box, there is no answer.

    The order says nothing about the quality of a box, so the score is published as 0 with ``score_kind`` NONE, and a
    planner that asks for a minimum score never gets such a box.
    """

    name: str
    greedy_decoding: bool
    first_response_only: bool = False
    needs: AttentionNeeds = field(default_factory=lambda: AttentionNeeds(heads=None))
    score_kind: ScoreKind = ScoreKind.NONE
    feature: str = ""

    def qualities(
        self, candidates: Sequence[Candidate], record: AttentionRecord, image_size: tuple[int, int]
    ) -> np.ndarray:
        """Return (C,) qualities in (0, 1]: 1 for the first candidate, decreasing in the order of the responses; NaN for
        excluded candidates."""
        count = len(candidates)
        place = np.empty(count)
        place[sorted(range(count), key=lambda i: (candidates[i].response, candidates[i].order))] = np.arange(count)
        quality = 1.0 - place / max(1, count)
        if self.first_response_only:
            quality[[c.response > 0 for c in candidates]] = np.nan
        return quality

    def confidences(
        self,
        candidates: Sequence[Candidate],
        record: AttentionRecord,
        image_size: tuple[int, int],
        qualities: np.ndarray,
    ) -> np.ndarray | None:
        """Return None: there is nothing to calibrate."""
        return None


@dataclass(frozen=True)
class SmallestBox:
    """Selector of the box with the smallest area. The area says nothing about the quality of a box, so there is no
    score."""

    name: str = "smallest"
    greedy_decoding: bool = False
    needs: AttentionNeeds = field(default_factory=AttentionNeeds)
    score_kind: ScoreKind = ScoreKind.NONE
    feature: str = ""

    def qualities(
        self, candidates: Sequence[Candidate], record: AttentionRecord, image_size: tuple[int, int]
    ) -> np.ndarray:
        """Return (C,) qualities in [0, 1): the share of the image outside the box."""
        width, height = image_size
        return 1.0 - np.array([c.box.area for c in candidates]) / (width * height)

    def confidences(
        self,
        candidates: Sequence[Candidate],
        record: AttentionRecord,
        image_size: tuple[int, int],
        qualities: np.ndarray,
    ) -> np.ndarray | None:
        """Return None: there is nothing to calibrate."""
        return None


@dataclass(frozen=True)
class VerbalConfidence:
    """Selector of the box that the model states the highest confidence for
    (:mod:`acs_core.generation.verbal_confidence`). Boxes without a stated confidence are not considered."""

    name: str = "verbal-confidence"
    greedy_decoding: bool = False
    needs: AttentionNeeds = field(default_factory=lambda: AttentionNeeds(whole_responses=True))
    score_kind: ScoreKind = ScoreKind.RANK_RELATIVE
    feature: str = ""

    def qualities(
        self, candidates: Sequence[Candidate], record: AttentionRecord, image_size: tuple[int, int]
    ) -> np.ndarray:
        """Return (C,) qualities in [0, 1]: the stated confidences; NaN for candidates without one."""
        return np.array([np.nan if c.stated is None else c.stated for c in candidates], np.float64)

    def confidences(
        self,
        candidates: Sequence[Candidate],
        record: AttentionRecord,
        image_size: tuple[int, int],
        qualities: np.ndarray,
    ) -> np.ndarray | None:
        """Return None: most models state no confidence, so there is nothing to calibrate."""
        return None


SPECS = (
    SelectorSpec("greedy", lambda: FirstResponse("greedy", greedy_decoding=True), baseline=True),
    SelectorSpec(
        "pass-at-1",
        lambda: FirstResponse("pass-at-1", greedy_decoding=False, first_response_only=True),
        baseline=True,
    ),
    SelectorSpec("first-valid", lambda: FirstResponse("first-valid", greedy_decoding=False), baseline=True),
    SelectorSpec("smallest", SmallestBox, baseline=True),
    SelectorSpec("verbal-confidence", VerbalConfidence, baseline=True),
)
