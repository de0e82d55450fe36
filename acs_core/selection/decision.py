"""From attention to the answer of one call: qualities, scores, detections, and a reason for every candidate.

A :class:`Scorer` holds a selector and the calibrations that give its confidence a meaning; :func:`decide` picks. Single
object: the best quality of all. Several objects: the best of each cluster of overlapping boxes (section 5.5). A
candidate of quality NaN, which the selector does not consider, takes no part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from acs_core.artifacts.calibration import ADVICE, Calibration
from acs_core.artifacts.identity import ModelInfo
from acs_core.attention import AttentionNeeds, AttentionRecord
from acs_core.errors import CalibrationError, NonFiniteError
from acs_core.geometry import Box, overlaps, union_find, votes
from acs_core.plain_text import shorten
from acs_core.selection.evidence import FEATURES, PRESENCE, Evidence, estimate, feature_names
from acs_core.selection.labels import names_something_else
from acs_core.selection.registry import (
    BoxFusingSelector,
    FirstResponse,
    Selector,
)
from acs_core.selection.second_look import Window
from acs_core.types import BROKEN, Candidate, Detection, Outcome, Response, ScoreKind, SecondLook

FuseFunction = Callable[[int, Sequence[int]], Box]  # (best, members) -> the box that a group publishes
NOT_CONSIDERED = "the selector does not consider it"
ROUNDING = 1e-6  # error of sums of weights
TIE = 1e-9  # qualities closer than this are equal: rank sums are multiples of 1/2, far coarser


@dataclass(frozen=True)
class Decision:
    """``candidates`` with quality, score, cluster, outcome and reason filled in, in their old order; ``detections`` by
    falling score; ``reason`` says why there is none, and is empty otherwise. ``qualities`` (C,) float64 are those of
    the selector, NaN where it does not consider a candidate."""

    candidates: tuple[Candidate, ...]
    detections: tuple[Detection, ...]
    reason: str = ""
    qualities: np.ndarray = field(default_factory=lambda: np.zeros(0), compare=False, repr=False)

    @property
    def foremost(self) -> Candidate | None:
        """The candidate of the first detection or, without detections, the best one; None without candidates."""
        if self.detections:
            return self.candidates[self.detections[0].candidate]
        return max(self.candidates, key=lambda c: (c.outcome is not Outcome.OUTRANKED, c.quality), default=None)


@dataclass(frozen=True)
class Overlapping:
    """Overlaps of C candidates: the number of each one's cluster, and of its agreeing neighbours (C,). It is the same
    for every selector."""

    clusters: list[int]
    neighbours: list[int]

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> Overlapping:
        """That of ``candidates``."""
        agree = overlaps([c.box for c in candidates])
        return cls(union_find(agree), votes(agree, [c.response for c in candidates]))


def mislabelled_as(candidates: Sequence[Candidate], phrase: str) -> tuple[int, ...]:
    """Return the indices of the candidates that are labelled as something else than ``phrase``."""
    labels = ((i, c.label) for i, c in enumerate(candidates) if c.label != phrase)
    return tuple(i for i, label in labels if names_something_else(label, phrase))


def decide(
    candidates: Sequence[Candidate],
    qualities: np.ndarray,
    scores: np.ndarray,
    *,
    num_responses: int,
    multiple: bool = False,
    min_score: float = 0.0,
    min_votes: int = 2,
    fuse: FuseFunction | None = None,
    overlapping: Overlapping | None = None,
    mislabelled: Collection[int] = (),
) -> Decision:
    """Picks the answer.

    Equal qualities go to the candidate with more agreeing neighbours (other responses with a box at IoU >= 0.5), then
    to the earlier one.

    With ``multiple``, a cluster counts when boxes of at least ``min_votes`` responses fall into it: the paper drops
    what only one sample saw, and so do we unless no cluster gets that far; then the best candidate of all stands alone
    ("global best if no cluster forms"). ``min_votes`` never asks for more responses than there are, so one response
    gives all its boxes, without its near-duplicates. Nor for more than those that the selector considers.

    Args:
        candidates: C sampled boxes.
        qualities: (C,), higher is better, NaN where the candidate is not considered.
        scores: (C,) in [0, 1], what is published; a winner below ``min_score`` is no detection.
        num_responses: how many responses were drawn, those without a box included.
        multiple: whether several objects may be reported.
        min_score: threshold on the score, in [0, 1].
        min_votes: see above, at least 1.
        fuse: makes the published box of a group out of its members; by default it is the best one's own.
        overlapping: that of ``candidates``, where the caller has it.
        mislabelled: indices of candidates that are labelled as something else than was asked for. They take part only
            if all of those that the selector considers are.
    """
    if not candidates:
        return Decision((), (), "no candidate boxes")
    responses = [c.response for c in candidates]
    found = overlapping or Overlapping.of(candidates)
    clusters, neighbours = found.clusters, found.neighbours
    quality = np.asarray(qualities, dtype=np.float64)
    considered = np.flatnonzero(~np.isnan(quality)).tolist()
    if not considered:
        out = [replace(c, cluster=k, reason=NOT_CONSIDERED) for c, k in zip(candidates, clusters, strict=True)]
        return Decision(tuple(out), (), "the selector considers none of the candidate boxes", quality)

    asked = [i for i in considered if i not in mislabelled] or considered
    order = sorted(asked, key=lambda i: (-round(float(quality[i]) / TIE), -neighbours[i], i))
    groups: dict[int, list[int]] = {}  # cluster (or 0 for the single answer) -> members, best first
    for i in order:
        groups.setdefault(clusters[i] if multiple else 0, []).append(i)

    support = {k: len({responses[i] for i in asked if clusters[i] == k}) for k in clusters}
    voters = num_responses if len(considered) == len(candidates) else len({responses[i] for i in considered})
    needed = min(min_votes, voters)
    formed = {g for g in groups if support[g] >= needed} if multiple else {0}
    if not formed:
        formed = {next(iter(groups))}  # groups are in order of their best member: the global best leads the first

    verdicts = dict.fromkeys(range(len(candidates)), (Outcome.OUTRANKED, NOT_CONSIDERED))
    for i in set(considered).difference(asked):
        label = shorten(candidates[i].label)
        verdicts[i] = Outcome.OUTRANKED, f"labelled {label}, which is not what was asked for (check_labels)"
    for g, members in groups.items():
        best = members[0]
        seen = f"in {support[clusters[best]]} of {num_responses} responses"
        verdicts[best] = _verdict_of_best(g in formed, float(scores[best]), min_score, seen, needed)
        for i in members[1:]:
            verdicts[i] = Outcome.OUTRANKED, _why_outranked(i, best, quality, neighbours)

    filled = tuple(
        replace(
            c,
            quality=0.0 if np.isnan(quality[i]) else float(quality[i]),
            score=0.0 if np.isnan(quality[i]) else float(scores[i]),
            cluster=clusters[i],
            outcome=verdicts[i][0],
            reason=verdicts[i][1],
        )
        for i, c in enumerate(candidates)
    )
    winners = sorted(
        (i for i, c in enumerate(filled) if c.outcome is Outcome.SELECTED),
        key=lambda i: (-filled[i].score, order.index(i)),
    )
    if winners:
        group = {members[0]: members for members in groups.values()}
        published = {i: fuse(i, group[i]) if fuse else filled[i].box for i in winners}
        detections = tuple(Detection(published[i], filled[i].score, i) for i in winners)
        return Decision(filled, detections, qualities=quality)
    top = max(float(scores[members[0]]) for g, members in groups.items() if g in formed)
    rare = max((float(scores[members[0]]) for g, members in groups.items() if g not in formed), default=top)
    few = (
        f"; a box with score {_unlike(rare, top)[0]} is in fewer than {needed} responses (min_votes)"
        if rare > top
        else ""
    )
    score, limit = _unlike(top, min_score)
    return Decision(filled, (), f"best score {score} is below {limit} (min_score){few}", quality)


def _verdict_of_best(formed: bool, score: float, min_score: float, seen: str, needed: int) -> tuple[Outcome, str]:
    if not formed:
        return Outcome.FEW_VOTES, f"{seen}, {needed} needed (min_votes)"
    if score < min_score:
        low, limit = _unlike(score, min_score)
        return Outcome.BELOW_THRESHOLD, f"best, but its score {low} is below {limit} (min_score)"
    return Outcome.SELECTED, f"best quality, {seen}"


def _why_outranked(i: int, best: int, quality: np.ndarray, neighbours: Sequence[int]) -> str:
    if round(float(quality[i]) / TIE) < round(float(quality[best]) / TIE):
        own, others = _unlike(float(quality[i]), float(quality[best]))
        return f"quality {own}, candidate {best} has {others}"
    if neighbours[i] < neighbours[best]:
        return f"as good as candidate {best}, but {neighbours[i]} other responses agree instead of {neighbours[best]}"
    return f"as good as candidate {best}, which came first"


def _unlike(one: float, other: float) -> tuple[str, str]:
    """Two different numbers with as many digits, two or more, as tell them apart."""
    for digits in range(2, 17):
        shown = f"{one:.{digits}f}", f"{other:.{digits}f}"
        if shown[0] != shown[1]:
            return shown
    return f"{one!r}", f"{other!r}"


@dataclass(frozen=True)
class Scorer:
    """Scores the candidates of one call by ``selector`` and decides; without a ``calibration`` a quality is published
    as it is. ``second_look`` is the calibration of answers that came with a second look; without it they have that of
    the first.
    """

    selector: Selector
    calibration: Calibration | None
    second_look: Calibration | None = None

    @property
    def score_kind(self) -> ScoreKind:
        """Meaning of the scores."""
        return self.kind_of(looked_again=False)

    def kind_of(self, looked_again: bool) -> ScoreKind:
        """Meaning of the scores of an answer that came with a second look, or without one."""
        curve = self._curve(looked_again)
        if curve is None:
            return self.selector.score_kind
        return ScoreKind.CALIBRATED if curve.counts_absent else ScoreKind.CALIBRATED_IF_PRESENT

    @property
    def needs(self) -> AttentionNeeds:
        """What has to be captured: the needs of the selector and of the calibrations' score models."""
        curves = (self.calibration, self.second_look)
        wanted = any(FEATURES[name].tokens for curve in curves if curve for name in curve.features)
        needs = self.selector.needs
        return replace(needs, token_statistics=True) if wanted and not needs.token_statistics else needs

    def check(self, lvlm: ModelInfo) -> None:
        """Makes sure that the calibrations were made for ``lvlm``, the selector, and as many looks as they serve.

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
        """Whether the boxes of its decisions are made out of several candidates."""
        return self._fuse is not None

    @cached_property
    def _fuse(self) -> Callable[..., Box] | None:
        """Kept, since asking whether something is of a protocol takes as long as choosing."""
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
        """The answer to one phrase, with a reason for the outcome of each candidate and for an empty answer.

        ``candidates`` are the valid boxes of ``responses``, ``record`` is theirs, ``image_size`` (w, h);
        ``looked_again``: there was a second look, whether it found something or not; for the rest see
        :func:`acs_core.selection.decision.decide`.

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
        """The window of a second look after ``decision``, the answer of the first: around its detection or, without
        one, around the best candidate. Or None, and a sentence that says why there is no second look.

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
        """Whether a second look can change the decision: not that of a selector that takes the first answer."""
        return not isinstance(self.selector, FirstResponse)

    def _rate(
        self,
        candidates: Sequence[Candidate],
        record: AttentionRecord,
        image_size: tuple[int, int],
        curve: Calibration | None,
    ) -> tuple[np.ndarray, np.ndarray, dict[int, float]]:
        """Qualities and scores, (C,) each, and the expected IoU of each candidate, if the calibration knows it."""
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


def why_no_candidates(responses: Sequence[Response]) -> str:
    """One sentence on why no response gave a box: the problem all share, or each problem with its count."""
    problems = Counter(r.problem or "no usable box" for r in responses)
    if len(problems) == 1:
        (problem,) = problems
        whose = "the response" if len(responses) == 1 else f"all {len(responses)} responses"
        return f"no box in {whose}: {problem}"
    listed = ", ".join(f"{count} x {problem}" for problem, count in problems.most_common())
    return f"no box in any of {len(responses)} responses: {listed}"


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
