"""The selector that prefers small boxes: a check that entropy does not just favour them (baseline of section 5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from acs_core.attention import AttentionNeeds, Evidence
from acs_core.types import Candidate, ScoreKind


@dataclass(frozen=True)
class Smallest:
    """Prefers the box of the smallest area. That says nothing about how good it is, so there is no score."""

    name: str = "smallest"
    greedy_decoding: bool = False
    needs: AttentionNeeds = field(default_factory=AttentionNeeds)
    score_kind: ScoreKind = ScoreKind.NONE
    feature: str = ""

    def qualities(self, candidates: Sequence[Candidate], evidence: Evidence, image_size: tuple[int, int]) -> np.ndarray:
        """(C,) in [0, 1): the share of the picture that the box leaves free."""
        width, height = image_size
        return 1.0 - np.array([c.box.area for c in candidates]) / (width * height)

    def confidences(
        self, candidates: Sequence[Candidate], evidence: Evidence, qualities: np.ndarray
    ) -> np.ndarray | None:
        """None: nothing here could be calibrated."""
        return None
