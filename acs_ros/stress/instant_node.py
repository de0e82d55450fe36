"""The grounding node with a model that answers at once, to measure the overhead of ROS alone."""

from __future__ import annotations

if __name__ == "__main__":  # first: a signal may come while the modules below are imported
    from acs_core.entry import run

    run("acs_ros.stress.instant_node", "grounding", stopped=0)

from collections.abc import Sequence
from typing import Unpack

import numpy as np

from acs_core.geometry import Box
from acs_core.request import GroundOptions
from acs_core.types import Candidate, Detection, GroundingResult, Outcome, Response, ScoreKind
from acs_ros import main as node

CANDIDATES = 10


class InstantGrounder:
    """Grounder that answers at once with one box in the upper left corner, and ten candidates like a real one.

    It has the members that the node needs of a grounder (:class:`acs_ros.node.model_loader.GrounderLike`).
    """

    model_name = "instant"
    selector_name = "instant"
    revision = None
    device = "none"

    def required_score(self, precision: float, second_look: bool = False) -> float:
        """Return 0: no score of this grounder means anything."""
        return 0.0

    def ground_many(
        self, image: np.ndarray, phrases: Sequence[str], **_: Unpack[GroundOptions]
    ) -> tuple[GroundingResult, ...]:
        """Return the same box for every phrase; ``image`` is (H, W, 3) uint8 RGB."""
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


def main() -> int:
    """Run the node and return its exit code."""
    return node.main(load=lambda _settings: InstantGrounder())
