"""From qualities and scores to the answer of one call: clusters, detections, and a reason for every candidate.

Single object: the best quality of all. Several objects: the best of each cluster of overlapping boxes (section 5.5). A
candidate of quality NaN, which the selector does not consider, takes no part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from acs_core.geometry import Box, overlaps, union_find, votes
from acs_core.plain_text import shorten
from acs_core.selection.labels import names_something_else
from acs_core.types import Candidate, Detection, Outcome, Response

FuseFunction = Callable[[int, Sequence[int]], Box]  # (best, members) -> the box that a group publishes
NOT_CONSIDERED = "the selector does not consider it"
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
        """Return the overlaps of ``candidates``."""
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
    """Pick the answer among the candidates.

    Equal qualities go to the candidate with more agreeing neighbours (other responses with a box at IoU >= 0.5), then
    to the earlier one.

    With ``multiple``, a cluster counts if it holds boxes of at least ``min_votes`` responses. The paper drops the
    other clusters, and so does this function. If no cluster counts, the best candidate of all is the only answer
    ("global best if no cluster forms"). ``min_votes`` is limited to the number of responses, so that one response
    gives all its boxes, without its near-duplicates, and to the number of responses that the selector considers.

    Args:
        candidates: C sampled boxes.
        qualities: (C,), higher is better, NaN where the candidate is not considered.
        scores: (C,) in [0, 1], which are published; a winner below ``min_score`` is no detection.
        num_responses: number of responses, including those without a box.
        multiple: whether several objects may be reported.
        min_score: threshold on the score, in [0, 1].
        min_votes: see above, at least 1.
        fuse: returns the published box of a group of candidates; by default it is the box of the best one.
        overlapping: overlaps of ``candidates``, if the caller has computed them.
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
    """Return two different numbers as text, with the fewest digits, two or more, that tell them apart."""
    for digits in range(2, 17):
        shown = f"{one:.{digits}f}", f"{other:.{digits}f}"
        if shown[0] != shown[1]:
            return shown
    return f"{one!r}", f"{other!r}"


def why_no_candidates(responses: Sequence[Response]) -> str:
    """Return a sentence on why no response gave a box: the problem that all share, or each problem with its count."""
    problems = Counter(r.problem or "no usable box" for r in responses)
    if len(problems) == 1:
        (problem,) = problems
        whose = "the response" if len(responses) == 1 else f"all {len(responses)} responses"
        return f"no box in {whose}: {problem}"
    listed = ", ".join(f"{count} x {problem}" for problem, count in problems.most_common())
    return f"no box in any of {len(responses)} responses: {listed}"
