"""The grounding node with a model that answers at once: what is left is the price of ROS."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Unpack

import numpy as np

from acs_core.asked import GroundOptions
from acs_core.geometry import Box
from acs_core.types import Candidate, Detection, GroundingResult, Outcome, Response, ScoreKind
from acs_ros.main import main

CANDIDATES = 10


class InstantGrounder:
    """Says that the object is in the picture's upper left corner, with as many candidates as usual."""

    model_name = "instant"
    selector_name = "instant"
    device = "none"

    def ground_many(
        self, image: np.ndarray, phrases: Sequence[str], **_: Unpack[GroundOptions]
    ) -> tuple[GroundingResult, ...]:
        """The same answer to every question about an (H, W, 3) picture."""
        return tuple(self._answer(image, phrase) for phrase in phrases)

    def _answer(self, image: np.ndarray, phrase: str) -> GroundingResult:
        candidates = tuple(
            Candidate(Box(1.0, 1.0, 20.0, 20.0 + k), phrase, k, 0, (0, 0, 0, 0), 0.5, 0.5, 0, Outcome.OUTRANKED)
            for k in range(CANDIDATES)
        )
        return GroundingResult(
            phrase=phrase,
            image_size=(image.shape[1], image.shape[0]),
            detections=(Detection(candidates[0].box, 0.5, 0),),
            candidates=candidates,
            responses=tuple(Response("", 1, True) for _ in candidates),
            selector=self.selector_name,
            score_kind=ScoreKind.CALIBRATED,
            model=self.model_name,
            revision=None,
            seed=0,
        )


if __name__ == "__main__":
    sys.exit(main(load=lambda _settings: InstantGrounder()))
