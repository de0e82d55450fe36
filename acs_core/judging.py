"""From attention to qualities and scores: a selector, and the calibration that gives its confidence a meaning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np

from acs_core.assets import asset_for, beside, calibration_file
from acs_core.attention import Evidence
from acs_core.calibration import Calibration
from acs_core.choice import Choice, Overlapping, choose
from acs_core.geometry import Box
from acs_core.heads import HeadFile
from acs_core.identity import ModelLike
from acs_core.selection import HasDevice, MakesBoxes, Selector, make_selector, regressor_file
from acs_core.types import Candidate, Outcome, Response, ScoreKind


@dataclass(frozen=True)
class Judge:
    """Judges the candidates of one call by ``selector``; without a ``calibration`` a quality is published as it is.
    ``second_look`` is the calibration of answers that came with a second look; without it they have that of the first.
    """

    selector: Selector
    calibration: Calibration | None
    second_look: Calibration | None = None

    @property
    def score_kind(self) -> ScoreKind:
        """What the scores mean."""
        return self.kind_of(looked_again=False)

    def kind_of(self, looked_again: bool) -> ScoreKind:
        """What the scores of an answer mean that came with a second look, or without one."""
        return ScoreKind.CALIBRATED if self._curve(looked_again) is not None else self.selector.score_kind

    def check(self, lvlm: ModelLike) -> None:
        """Makes sure that the calibrations were made for ``lvlm``, the selector, and as many looks as they serve.

        Raises:
            CalibrationError: one was not; the message says what differs.
        """
        for curve, second in ((self.calibration, False), (self.second_look, True)):
            if curve is not None:
                curve.check(lvlm, self.selector.name, self.selector.feature, second)

    @cached_property
    def _box_of(self) -> Callable[..., Box] | None:
        """Kept, since asking whether something is of a protocol takes as long as choosing."""
        return self.selector.box_of if isinstance(self.selector, MakesBoxes) else None

    def _curve(self, looked_again: bool) -> Calibration | None:
        return self.second_look or self.calibration if looked_again else self.calibration

    def choose(
        self,
        candidates: Sequence[Candidate],
        responses: Sequence[Response],
        evidence: Evidence,
        image_size: tuple[int, int],
        *,
        multiple: bool = False,
        min_score: float = 0.0,
        min_votes: int = 2,
        looked_again: bool = False,
        overlapping: Overlapping | None = None,
    ) -> Choice:
        """The answer to one phrase, with the reason for every candidate's fate and for an empty answer.

        ``candidates`` are the valid boxes of ``responses``, ``evidence`` is theirs, ``image_size`` (w, h);
        ``looked_again``: there was a second look, whether it found something or not; for the rest see
        :func:`acs_core.choice.choose`.
        """
        curve = self._curve(looked_again)
        qualities, scores, expected = self._judge(candidates, evidence, image_size, curve)
        box_of = None
        if self._box_of is not None:
            box_of = partial(self._box_of, candidates=candidates, qualities=qualities)
        choice = choose(
            candidates,
            qualities,
            scores,
            num_responses=len(responses),
            multiple=multiple,
            min_score=min_score,
            min_votes=min_votes,
            box_of=box_of,
            overlapping=overlapping,
        )
        detections = tuple(replace(d, expected_iou=expected.get(d.candidate)) for d in choice.detections)
        return replace(choice, detections=detections, reason=self._reason(choice, responses, looked_again))

    def _judge(
        self,
        candidates: Sequence[Candidate],
        evidence: Evidence,
        image_size: tuple[int, int],
        curve: Calibration | None,
    ) -> tuple[np.ndarray, np.ndarray, dict[int, float]]:
        """Qualities and scores, (C,) each, and the expected IoU of each candidate, if the calibration knows it."""
        if not candidates:
            return np.zeros(0), np.zeros(0), {}
        qualities = self.selector.qualities(candidates, evidence, image_size)
        if curve is not None:
            confidences = self.selector.confidences(candidates, evidence, qualities)
            if confidences is not None:  # always: the calibration's feature was checked against the selector's
                expected = curve.expected_iou(confidences)
                known = {} if expected is None else dict(enumerate(expected.tolist()))
                return qualities, curve.apply(confidences), known
        if self.selector.score_kind is ScoreKind.NONE:
            return qualities, np.zeros(len(candidates)), {}
        return qualities, np.clip(qualities, 0.0, 1.0), {}

    def _reason(self, choice: Choice, responses: Sequence[Response], looked_again: bool) -> str:
        if not choice.candidates:
            return why_no_candidates(responses)
        refused = any(c.outcome is Outcome.BELOW_THRESHOLD for c in choice.candidates)
        if choice.reason and refused and self.kind_of(looked_again) is ScoreKind.NONE:
            return f"the selector {self.selector.name} gives no score, so nothing reaches min_score; {choice.reason}"
        return choice.reason


def judge_for(
    lvlm: HasDevice,
    selector: str,
    *,
    heads: HeadFile | str | Path | None = None,
    regressor: str | Path | None = None,
    calibration: Calibration | str | Path | Literal[False] | None = None,
    built: Path | None = None,
) -> Judge:
    """The selector of that name for ``lvlm``, with its calibrations, of one look and of a second, if there are any.

    What is not given is taken from the folder ``built`` that `acs-train build` wrote, else from the model's own folder
    or the shipped files. Default calibrations belong to the default heads and regressor and are left out where those
    are replaced; a ``calibration`` that is given serves both looks; False leaves them out in any case.

    Raises:
        SelectorError: unknown name.
        HeadFileError, RegressorError, CalibrationError: a file is missing, damaged, or made for another model.
    """
    second_look: Path | None = None
    if calibration is None and heads is None and regressor is None:
        calibration, second_look = (
            beside(built, file) if built else asset_for(lvlm, file)
            for file in (calibration_file(selector), calibration_file(selector, second_look=True))
        )
    if built:
        heads = heads or beside(built, "heads.json")
        regressor = regressor or beside(built, regressor_file(selector))
    chosen = make_selector(selector, lvlm, heads=heads, regressor=regressor)
    curve = Calibration.load(calibration) if isinstance(calibration, str | Path) else calibration or None
    again = Calibration.load(second_look) if second_look else None
    judge = Judge(chosen, curve, again)
    judge.check(lvlm)
    return judge


def why_no_candidates(responses: Sequence[Response]) -> str:
    """One sentence on why no response gave a box: the problem all share, or each problem with its count."""
    problems = Counter(r.problem or "no usable box" for r in responses)
    if len(problems) == 1:
        (problem,) = problems
        whose = "the response" if len(responses) == 1 else f"all {len(responses)} responses"
        return f"no box in {whose}: {problem}"
    listed = ", ".join(f"{count} x {problem}" for problem, count in problems.most_common())
    return f"no box in any of {len(responses)} responses: {listed}"
