"""Scorer: a selector with its calibrations, which rates the candidates of one call and decides."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from acs_core.artifacts.calibration import ADVICE, Calibration
from acs_core.artifacts.identity import ModelInfo
from acs_core.attention import AttentionNeeds, AttentionRecord
from acs_core.errors import CalibrationError, NonFiniteError
from acs_core.geometry import Box
from acs_core.plain_text import shorten
from acs_core.selection.decision import Decision, Overlapping, decide, why_no_candidates
from acs_core.selection.evidence import FEATURES, PRESENCE, Evidence, estimate, feature_names
from acs_core.selection.registry import BoxFusingSelector, FirstResponse, Selector
from acs_core.selection.second_look import Window
from acs_core.types import BROKEN, Candidate, Outcome, Response, ScoreKind, SecondLook

ROUNDING = 1e-6  # error of sums of weights


@dataclass(frozen=True)
class Scorer:
    """A selector and its calibrations.

    Attributes:
        selector: rates the candidates.
        calibration: gives the scores; None to publish qualities as they are.
        second_look: gives the scores of answers with a second look; None to use ``calibration`` for them.
    """

    selector: Selector
    calibration: Calibration | None
    second_look: Calibration | None = None

    @property
    def score_kind(self) -> ScoreKind:
        """Meaning of the scores."""
        return self.kind_of(looked_again=False)

    def kind_of(self, looked_again: bool) -> ScoreKind:
        """Return the meaning of the scores of an answer with a second look, or without one."""
        curve = self._curve(looked_again)
        if curve is None:
            return self.selector.score_kind
        return ScoreKind.CALIBRATED if curve.counts_absent else ScoreKind.CALIBRATED_IF_PRESENT

    @property
    def needs(self) -> AttentionNeeds:
        """What must be captured for the selector and for the score models of the calibrations."""
        curves = (self.calibration, self.second_look)
        wanted = any(FEATURES[name].tokens for curve in curves if curve for name in curve.features)
        needs = self.selector.needs
        return replace(needs, token_statistics=True) if wanted and not needs.token_statistics else needs

    def check(self, lvlm: ModelInfo) -> None:
        """Check that the calibrations were made for ``lvlm``, for the selector, and with or without a second look.

        Raises:
            CalibrationError: one was not; the message says what differs.
        """
        for curve, second in ((self.calibration, False), (self.second_look, True)):
            if curve is not None:
                curve.check(lvlm, self.selector.name, self.selector.feature, second)
                if PRESENCE in curve.features and curve.presence is None:
                    raise CalibrationError(
                        "this calibration does not fit: its score model reads the estimate of a presence probe, which "
                        f"the file does not hold. {ADVICE}"
                    )
                known = feature_names(self.selector.needs.maps, curve.presence is not None)
                if unknown := [name for name in curve.features if name not in known]:
                    raise CalibrationError(
                        f"this calibration does not fit: its score model reads {shorten(unknown[0])}, which this "
                        f"version of acs does not compute for {self.selector.name}. {ADVICE}"
                    )

    @property
    def fuses_boxes(self) -> bool:
        """Whether the boxes of its decisions are computed from several candidates."""
        return self._fuse is not None

    @cached_property
    def _fuse(self) -> Callable[..., Box] | None:
        """The selector's ``fuse``, or None. Cached, since isinstance with a Protocol takes as long as a choice."""
        return self.selector.fuse if isinstance(self.selector, BoxFusingSelector) else None

    def _curve(self, looked_again: bool) -> Calibration | None:
        return self.second_look or self.calibration if looked_again else self.calibration

    def decide(
        self,
        candidates: Sequence[Candidate],
        responses: Sequence[Response],
        record: AttentionRecord,
        image_size: tuple[int, int],
        *,
        multiple: bool = False,
        min_score: float = 0.0,
        min_votes: int = 2,
        looked_again: bool = False,
        overlapping: Overlapping | None = None,
        mislabelled: Collection[int] = (),
    ) -> Decision:
        """Return the answer to one phrase, with a reason for the outcome of each candidate and for an empty answer.

        Args:
            candidates: C valid boxes of ``responses``.
            responses: all responses.
            record: attention of the candidates.
            image_size: (width, height) in pixels.
            multiple: see :func:`acs_core.selection.decision.decide`, as for the arguments that are not named here.
            looked_again: whether there was a second look, even if it found nothing.

        Raises:
            NonFiniteError: the attention, a quality or a score is NaN or infinite.
            ValueError: the selector gave a quality outside [0, 1].
        """
        if any(r.problem == BROKEN for r in responses):  # even if only one look is broken
            kept = tuple(replace(c, outcome=Outcome.OUTRANKED, reason=BROKEN) for c in candidates)
            return Decision(kept, (), BROKEN if kept else why_no_candidates(responses))
        curve = self._curve(looked_again)
        qualities, scores, expected = self._rate(candidates, record, image_size, curve)
        check_scores(self.selector.name, qualities, scores)
        fuse = None
        if self._fuse is not None:
            fuse = partial(self._fuse, candidates=candidates, qualities=qualities)
        decision = decide(
            candidates,
            qualities,
            scores,
            num_responses=len(responses),
            multiple=multiple,
            min_score=min_score,
            min_votes=min_votes,
            fuse=fuse,
            overlapping=overlapping,
            mislabelled=mislabelled,
        )
        detections = tuple(replace(d, expected_iou=expected.get(d.candidate)) for d in decision.detections)
        return replace(decision, detections=detections, reason=self._reason(decision, responses, looked_again))

    def second_window(
        self, decision: Decision, image_size: tuple[int, int], look: SecondLook, multiple: bool = False
    ) -> tuple[Window | None, str]:
        """Return the window of a second look after ``decision``, the answer of the first, and "": the window is around
        the detection or, without one, around the best candidate. If there is no second look, return None and a sentence
        that says why.

        Args:
            decision: see :meth:`decide`.
            image_size: (width, height) in pixels.
            look: settings of the second look.
            multiple: whether several objects were asked for.
        """
        if not self.can_look_again:
            return None, f"no second look: {self.selector.name} takes the first answer in any case"
        if multiple:
            return None, "no second look: several objects are asked for, and it looks at one"
        best = decision.detections[0] if decision.detections else decision.foremost
        if best is None:
            return None, "no second look: the first found nothing to look at"
        window = Window.around(best.box, image_size, look.zoom)
        return window, "" if window else "no second look: the object is large enough in the picture"

    @property
    def can_look_again(self) -> bool:
        """Whether a second look can change the decision; it cannot for a selector that takes the first answer."""
        return not isinstance(self.selector, FirstResponse)

    def _rate(
        self,
        candidates: Sequence[Candidate],
        record: AttentionRecord,
        image_size: tuple[int, int],
        curve: Calibration | None,
    ) -> tuple[np.ndarray, np.ndarray, dict[int, float]]:
        """Return qualities and scores, (C,) each, and the expected IoU of candidates, if the calibration gives it."""
        if not candidates:
            return np.zeros(0), np.zeros(0), {}
        qualities = self.selector.qualities(candidates, record, image_size)
        if curve is not None:
            confidences = self.selector.confidences(candidates, record, image_size, qualities)
            if confidences is not None:  # always: the calibration's feature was checked against the selector's
                check_confidences(self.selector.name, qualities, confidences)
                if curve.score_model is not None:
                    probe = curve.presence
                    presence = None if probe is None else probe.log_odds(record.hidden)
                    seen = Evidence(candidates, record, image_size, confidences, presence)
                    confidences = estimate(curve.score_model, seen)
                expected = curve.expected_iou(confidences)
                known = {} if expected is None else dict(enumerate(expected.tolist()))
                return qualities, curve.apply(confidences), known
        if self.selector.score_kind is ScoreKind.NONE:
            return qualities, np.zeros(len(candidates)), {}
        return qualities, np.clip(qualities, 0.0, 1.0), {}

    def _reason(self, decision: Decision, responses: Sequence[Response], looked_again: bool) -> str:
        if not decision.candidates:
            return why_no_candidates(responses)
        refused = any(c.outcome is Outcome.BELOW_THRESHOLD for c in decision.candidates)
        if decision.reason and refused and self.kind_of(looked_again) is ScoreKind.NONE:
            return (
                f"the selector {self.selector.name} gives no score, so nothing reaches min_score; {decision.reason}; "
                "choose another selector, or min_score 0"
            )
        return decision.reason


def check_scores(selector: str, qualities: np.ndarray, scores: np.ndarray) -> None:
    """Check that ``qualities`` and ``scores`` (C,) lie in [0, 1] for the candidates that the selector considers, those
    whose quality is not NaN.

    Raises:
        NonFiniteError: one is infinite, or a score is NaN.
        ValueError: one lies outside [0, 1].
    """
    quality = np.asarray(qualities, dtype=np.float64)
    considered = ~np.isnan(quality)
    for what, values in (("quality", quality[considered]), ("score", np.asarray(scores, np.float64)[considered])):
        if not np.isfinite(values).all():
            raise NonFiniteError(
                f"the selector {selector} gave a {what} that is NaN or infinite: its file, or the attention that it "
                "read, is broken; no score is published"
            )
        if values.size and not (values.min() >= -ROUNDING and values.max() <= 1 + ROUNDING):
            raise ValueError(
                f"the selector {selector} gave a {what} of {values.min():.3g} to {values.max():.3g}, which must lie in "
                "[0, 1]; no score is published"
            )


def check_confidences(selector: str, qualities: np.ndarray, confidences: np.ndarray) -> None:
    """Check that the ``confidences`` (C,) of the candidates that the selector considers are finite: a calibration would
    map an infinite one to the probability of the best.

    Raises:
        NonFiniteError: one is NaN or infinite.
    """
    considered = ~np.isnan(np.asarray(qualities, dtype=np.float64))
    if not np.isfinite(np.asarray(confidences, dtype=np.float64)[considered]).all():
        raise NonFiniteError(
            f"the selector {selector} gave a confidence that is NaN or infinite: its file, or the attention that it "
            "read, is broken; no score is published"
        )
