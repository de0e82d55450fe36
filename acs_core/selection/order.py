"""The selectors that look at no attention: greedy decoding and the first valid box (baselines of section 5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from acs_core.attention import AttentionNeeds, Evidence
from acs_core.types import Candidate, ScoreKind


@dataclass(frozen=True)
class FirstInOrder:
    """Prefers the earlier box: of the greedy answer, or of the first sampled response that holds one.

    The order says nothing about how good a box is, so the score is published as 0 ("nothing is known"; ``score_kind``
    says that it is none) and a planner that asks for a minimum never gets such a box.
    """

    name: str
    greedy_decoding: bool
    needs: AttentionNeeds = field(default_factory=lambda: AttentionNeeds(heads=None))
    score_kind: ScoreKind = ScoreKind.NONE
    feature: str = ""

    def qualities(self, candidates: Sequence[Candidate], evidence: Evidence, image_size: tuple[int, int]) -> np.ndarray:
        """(C,) in (0, 1]: 1 for the first candidate, falling with the order in which they were answered."""
        count = len(candidates)
        place = np.empty(count)
        place[sorted(range(count), key=lambda i: (candidates[i].response, candidates[i].order))] = np.arange(count)
        return 1.0 - place / max(1, count)

    def confidences(
        self, candidates: Sequence[Candidate], evidence: Evidence, qualities: np.ndarray
    ) -> np.ndarray | None:
        """None: nothing here could be calibrated."""
        return None
