"""From attention to qualities and scores: a selector, and the calibration that gives its confidence a meaning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from acs_core.asked import Asked
from acs_core.attention import Evidence
from acs_core.calibration import Calibration
from acs_core.choice import Choice, choose
from acs_core.selection import Selector
from acs_core.types import Candidate, Response, ScoreKind
from acs_core.waves import Answers


@dataclass(frozen=True)
class Judge:
    """Judges the candidates of one call by ``selector``; without a ``calibration`` a quality is published as it is."""

    selector: Selector
    calibration: Calibration | None

    @property
    def score_kind(self) -> ScoreKind:
        """What the scores mean."""
        return ScoreKind.CALIBRATED if self.calibration is not None else self.selector.score_kind

    def choose(self, answers: Answers, evidence: Evidence, asked: Asked) -> Choice:
        """The answer to one phrase, with the reason for every candidate's fate and for an empty answer."""
        qualities, scores, expected = self._judge(answers.candidates, evidence, asked.image_size)
        choice = choose(
            answers.candidates,
            qualities,
            scores,
            num_responses=len(answers.responses),
            multiple=asked.multiple,
            min_score=asked.min_score,
            min_votes=asked.min_votes,
        )
        detections = tuple(replace(d, expected_iou=expected.get(d.candidate)) for d in choice.detections)
        return replace(choice, detections=detections, reason=self._reason(choice.reason, answers))

    def _judge(
        self, candidates: Sequence[Candidate], evidence: Evidence, image_size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, dict[int, float]]:
        """Qualities and scores, (C,) each, and the expected IoU of each candidate, if the calibration knows it."""
        if not candidates:
            return np.zeros(0), np.zeros(0), {}
        qualities = self.selector.qualities(candidates, evidence, image_size)
        if self.calibration is not None:
            confidences = self.selector.confidences(candidates, evidence, qualities)
            if confidences is not None:  # always: the calibration's feature was checked against the selector's
                expected = self.calibration.expected_iou(confidences)
                known = {} if expected is None else dict(enumerate(expected.tolist()))
                return qualities, self.calibration.apply(confidences), known
        if self.selector.score_kind is ScoreKind.NONE:
            return qualities, np.zeros(len(candidates)), {}
        return qualities, np.clip(qualities, 0.0, 1.0), {}

    def _reason(self, reason: str, answers: Answers) -> str:
        if not answers.candidates:
            return why_no_candidates(answers.responses)
        if reason and self.score_kind is ScoreKind.NONE:
            return f"the selector {self.selector.name} gives no score, so nothing reaches min_score; {reason}"
        return reason


def why_no_candidates(responses: Sequence[Response]) -> str:
    """One sentence on why no response gave a box: the problem all share, or each problem with its count."""
    problems = Counter(r.problem or "no usable box" for r in responses)
    if len(problems) == 1:
        (problem,) = problems
        whose = "the response" if len(responses) == 1 else f"all {len(responses)} responses"
        return f"no box in {whose}: {problem}"
    listed = ", ".join(f"{count} x {problem}" for problem, count in problems.most_common())
    return f"no box in any of {len(responses)} responses: {listed}"
