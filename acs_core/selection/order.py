"""The selectors that go by the order of the answers: greedy, pass-at-1, first-valid (baselines of section 5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from acs_core.attention import AttentionNeeds, Evidence
from acs_core.types import Candidate, ScoreKind


@dataclass(frozen=True)
class FirstInOrder:
    """Prefers the earlier box: of the greedy answer, or of the first sampled response that holds one.

    With ``first_response_only`` nothing but response 0 counts: where it holds no valid box there is no answer, whatever
    the others say.

    The order says nothing about how good a box is, so the score is published as 0 ("nothing is known"; ``score_kind``
    says that it is none) and a planner that asks for a minimum never gets such a box.
    """

    name: str
    greedy_decoding: bool
    first_response_only: bool = False
    needs: AttentionNeeds = field(default_factory=lambda: AttentionNeeds(heads=None))
    score_kind: ScoreKind = ScoreKind.NONE
    feature: str = ""

    def qualities(self, candidates: Sequence[Candidate], evidence: Evidence, image_size: tuple[int, int]) -> np.ndarray:
        """(C,) in (0, 1]: 1 for the first candidate, falling with the order in which they were answered; NaN for one
        that does not count."""
        count = len(candidates)
        place = np.empty(count)
        place[sorted(range(count), key=lambda i: (candidates[i].response, candidates[i].order))] = np.arange(count)
        quality = 1.0 - place / max(1, count)
        if self.first_response_only:
            quality[[c.response > 0 for c in candidates]] = np.nan
        return quality

    def confidences(
        self, candidates: Sequence[Candidate], evidence: Evidence, qualities: np.ndarray
    ) -> np.ndarray | None:
        """None: nothing here could be calibrated."""
        return None
