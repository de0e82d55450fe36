"""From qualities to the answer: which candidates are detections, and why each of the others is not.

Single object: the best quality of all. Several objects: the best of each cluster of overlapping boxes (section 5.5).
What a selector does not consider (quality NaN) takes no part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from acs_core.clusters import overlaps, union_find, votes
from acs_core.geometry import Box
from acs_core.types import Candidate, Detection, Outcome

BoxOf = Callable[[int, Sequence[int]], Box]  # (best, members) -> the box that a group publishes
NOT_CONSIDERED = "the selector does not consider it"
TIE = 1e-9  # qualities closer than this are equal: rank sums are multiples of 1/2, far coarser


@dataclass(frozen=True)
class Choice:
    """``candidates`` with quality, score, cluster, outcome and reason filled in, in their old order; ``detections`` by
    falling score; ``reason`` says why there is none, and is empty otherwise."""

    candidates: tuple[Candidate, ...]
    detections: tuple[Detection, ...]
    reason: str = ""


@dataclass(frozen=True)
class Overlapping:
    """How C candidates overlap: the number of each one's cluster, and of its agreeing neighbours (C,). It is the same
    for every selector."""

    clusters: list[int]
    neighbours: list[int]

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> Overlapping:
        """That of ``candidates``."""
        agree = overlaps([c.box for c in candidates])
        return cls(union_find(agree), votes(agree, [c.response for c in candidates]))


def choose(
    candidates: Sequence[Candidate],
    qualities: np.ndarray,
    scores: np.ndarray,
    *,
    num_responses: int,
    multiple: bool = False,
    min_score: float = 0.0,
    min_votes: int = 2,
    box_of: BoxOf | None = None,
    overlapping: Overlapping | None = None,
) -> Choice:
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
        box_of: makes the published box of a group out of its members; by default it is the best one's own.
        overlapping: that of ``candidates``, where the caller has it.
    """
    if not candidates:
        return Choice((), (), "no candidate boxes")
    responses = [c.response for c in candidates]
    found = overlapping or Overlapping.of(candidates)
    clusters, neighbours = found.clusters, found.neighbours
    quality = np.asarray(qualities, dtype=np.float64)
    considered = np.flatnonzero(~np.isnan(quality)).tolist()
    if not considered:
        out = [replace(c, cluster=k, reason=NOT_CONSIDERED) for c, k in zip(candidates, clusters, strict=True)]
        return Choice(tuple(out), (), "the selector considers none of the candidate boxes")

    order = sorted(considered, key=lambda i: (-round(float(quality[i]) / TIE), -neighbours[i], i))
    groups: dict[int, list[int]] = {}  # cluster (or 0 for the single answer) -> members, best first
    for i in order:
        groups.setdefault(clusters[i] if multiple else 0, []).append(i)

    support = {k: len({responses[i] for i in considered if clusters[i] == k}) for k in clusters}
    voters = num_responses if len(considered) == len(candidates) else len({responses[i] for i in considered})
    needed = min(min_votes, voters)
    formed = {g for g in groups if support[g] >= needed} if multiple else {0}
    if not formed:
        formed = {next(iter(groups))}  # groups are in order of their best member: the global best leads the first

    verdicts = dict.fromkeys(range(len(candidates)), (Outcome.OUTRANKED, NOT_CONSIDERED))
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
        published = {i: box_of(i, group[i]) if box_of else filled[i].box for i in winners}
        detections = tuple(Detection(published[i], filled[i].score, i) for i in winners)
        return Choice(filled, detections)
    top = max(float(scores[members[0]]) for g, members in groups.items() if g in formed)
    return Choice(filled, (), f"best score {top:.2f} is below {min_score:.2f}")


def _verdict_of_best(formed: bool, score: float, min_score: float, seen: str, needed: int) -> tuple[Outcome, str]:
    if not formed:
        return Outcome.FEW_VOTES, f"{seen}, {needed} needed"
    if score < min_score:
        return Outcome.BELOW_THRESHOLD, f"best, but its score {score:.2f} is below {min_score:.2f}"
    return Outcome.SELECTED, f"best quality, {seen}"


def _why_outranked(i: int, best: int, quality: np.ndarray, neighbours: Sequence[int]) -> str:
    if round(float(quality[i]) / TIE) < round(float(quality[best]) / TIE):
        return f"quality {quality[i]:.2f}, candidate {best} has {quality[best]:.2f}"
    if neighbours[i] < neighbours[best]:
        return f"as good as candidate {best}, but {neighbours[i]} other responses agree instead of {neighbours[best]}"
    return f"as good as candidate {best}, which came first"
