"""Whether the node kept its word under load: each check in words with its numbers. Nothing here talks to anybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from acs_ros.ledger import percentile

# What becomes of a frame that the node has received, as /diagnostics counts it (acs_ros.ledger.FATES), in words.
FATES = {
    "frames_answered": "answered",
    "replaced": "replaced",
    "bad_images": "bad",
    "images_without_query": "without query",
    "images_unasked": "unasked",
    "dropped": "dropped",
    "failed": "failed",
}
ENDS = {"goals_succeeded": "succeeded", "goals_failed": "aborted", "goals_cancelled": "cancelled"}
COUNTERS = ("images", *FATES, "goals", *ENDS, "queries", "rejected_queries", "restarted", "answered")
Counts = Mapping[str, int]


@dataclass(frozen=True)
class Check:
    """One promise, whether it was ``kept``, and the numbers in words."""

    promise: str
    kept: bool
    said: str

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)


@dataclass(frozen=True)
class Held:
    """Memory of the node in MB, before, at its peak and after: resident, and of it what it shares with others (frames
    in the segments of Fast DDS)."""

    before: float
    peak: float
    after: float
    shared_before: float
    shared_peak: float


def counters(values: Mapping[str, str]) -> dict[str, int]:
    """The counters of a diagnostic.

    Raises:
        KeyError: it has not all of them.
    """
    return {name: int(values[name]) for name in COUNTERS}


def difference(after: Counts, before: Counts) -> dict[str, int]:
    """What was counted between the two."""
    return {name: after[name] - before[name] for name in after}


def judge_frames(sent: int, delta: Counts) -> list[Check]:
    """Every frame that was received became one thing; what was lost on the way is what is missing."""
    received, lost = delta["images"], sent - delta["images"]
    fates = {words: delta[name] for name, words in FATES.items()}
    total = sum(fates.values())
    told = ", ".join(f"{count} {words}" for words, count in fates.items() if count)
    share = f" ({lost / sent:.1%})" if sent else ""
    return [
        Check("no more received than sent", lost >= 0, f"{sent} sent, {received} received, {lost} lost in DDS{share}"),
        Check("counts of frames exact", total == received, f"{received} received, {total} accounted for: {told}"),
    ]


def judge_answers(heard: int, delta: Counts) -> Check:
    """A reliable subscriber that keeps up hears every answer."""
    said = f"{delta['frames_answered']} frames answered, {heard} answers heard"
    return Check("no answer lost", heard == delta["frames_answered"], said)


def judge_newest(seconds: Sequence[float | None], limit: float) -> Check:
    """``seconds`` from sending the last frame of each camera to having its answer; None: there was none."""
    late = [s for s in seconds if s is None or s > limit]
    took = ", ".join("never" if s is None else f"{s:.2f} s" for s in seconds)
    return Check("newest frame answered", not late, f"after {took} (limit {limit:g} s)")


def latencies(ms: Sequence[float]) -> dict[str, float]:
    """How many, and their p50, p95 and largest."""
    ordered = sorted(ms)
    p50, p95 = percentile(ordered, 0.50), percentile(ordered, 0.95)
    return {"calls": len(ordered), "p50": p50 or 0.0, "p95": p95 or 0.0, "most": max(ordered, default=0.0)}


def judge_services(ms: Mapping[str, Sequence[float]], unanswered: int, limit: float) -> list[Check]:
    """Milliseconds of the calls of each service: all answered, 95 of 100 within ``limit``."""
    count = sum(map(len, ms.values()))
    checks = [Check("services answer", not unanswered and count > 0, f"{count} of {count + unanswered} calls answered")]
    for name, values in ms.items():
        found = latencies(values)
        said = f"p50 {found['p50']:.0f}, p95 {found['p95']:.0f}, longest {found['most']:.0f} ms (limit {limit:g})"
        checks.append(Check(f"{name} in time", bool(values) and found["p95"] <= limit, said))
    return checks


def judge_memory(held: Held, limit: float) -> Check:
    """It grows by at most ``limit`` MB."""
    said = (
        f"{held.before:.0f} MB before, {held.peak:.0f} at most, {held.after:.0f} after "
        f"(limit {held.before:.0f} + {limit:g}; shared {held.shared_before:.0f}, at most {held.shared_peak:.0f})"
    )
    return Check("memory bounded", held.peak - held.before <= limit, said)


def judge_queries(
    published: int, unusable: int, set_calls: int, delta: Counts, wanted: Sequence[str], in_force: Sequence[str]
) -> list[Check]:
    """``published`` on the topic, of which ``unusable``; ``set_calls`` of ~/set_queries came on top."""
    taken, rejected = delta["queries"] - set_calls, delta["rejected_queries"]
    lost = published - taken - rejected
    fits = lost >= 0 and 0 <= taken <= published - unusable and rejected <= unusable
    said = f"{published} published, {taken} taken, {rejected} rejected, {lost} overtaken by newer ones"
    return [
        Check("counts of queries exact", fits, said),
        Check("last query in force", tuple(wanted) == tuple(in_force), f"{list(in_force)} (wanted {list(wanted)})"),
    ]


def judge_goals(told: Mapping[str, Any], delta: Counts) -> list[Check]:
    """``told``: what the asker saw, see :class:`acs_stress.callers.GoalAsker`; ``delta``: what the node counted."""
    sent, accepted, ended = told["sent"], told["accepted"], told["ended"]
    seen = {words: told[words] for words in ENDS.values()}
    counted = {words: delta[name] for name, words in ENDS.items()}
    ends = ", ".join(f"{count} {words}" for words, count in seen.items())
    return [
        Check("every goal accepted", accepted == sent, f"{accepted} of {sent} accepted"),
        Check("every goal ended", ended == accepted, f"{ended} of {accepted} ended in {told['seconds']:.1f} s: {ends}"),
        Check("refusals in words", not told["wordless"], f"{told['wordless']} of {told['aborted']} without words"),
        Check(
            "counts of goals exact",
            seen == counted and delta["goals"] == accepted == sum(counted.values()),
            f"the node counts {delta['goals']}: " + ", ".join(f"{n} {words}" for words, n in counted.items()),
        ),
    ]
