"""Checks of a load test: requirements with descriptions of the measured numbers. Pure functions, without ROS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from acs_ros.diagnostics.statistics import percentile

# Outcomes of frames that the node has received: counter on /diagnostics (acs_ros.diagnostics.statistics.FATES) and
# word in a report.
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
    """Result of one check: the requirement (``promise``), whether it was ``kept``, and a description of the measured
    numbers (``said``)."""

    promise: str
    kept: bool
    said: str

    def to_dict(self) -> dict[str, Any]:
        """Return the check as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class MemoryUsage:
    """Resident memory of the node in MB before a flood, at its peak and after it, and the shared memory in it, such as
    the segments of Fast DDS with frames."""

    before: float
    peak: float
    after: float
    shared_before: float
    shared_peak: float


def counters(values: Mapping[str, str]) -> dict[str, int]:
    """Return the counters in the values of a diagnostic.

    Raises:
        KeyError: a counter is missing.
    """
    return {name: int(values[name]) for name in COUNTERS}


def difference(after: Counts, before: Counts) -> dict[str, int]:
    """Return the difference of two sets of counters."""
    return {name: after[name] - before[name] for name in after}


def check_frames(sent: int, delta: Counts) -> list[Check]:
    """Check that every received frame has exactly one outcome; frames not received were lost in DDS."""
    received, lost = delta["images"], sent - delta["images"]
    fates = {words: delta[name] for name, words in FATES.items()}
    total = sum(fates.values())
    outcomes = ", ".join(f"{count} {words}" for words, count in fates.items() if count)
    share = f" ({lost / sent:.1%})" if sent else ""
    return [
        Check("no more received than sent", lost >= 0, f"{sent} sent, {received} received, {lost} lost in DDS{share}"),
        Check("counts of frames exact", total == received, f"{received} received, {total} accounted for: {outcomes}"),
    ]


def check_answers(heard: int, delta: Counts) -> Check:
    """Check that a reliable subscriber that keeps up received every answer."""
    said = f"{delta['frames_answered']} frames answered, {heard} answers heard"
    return Check("no answer lost", heard == delta["frames_answered"], said)


def check_newest(seconds: Sequence[float | None], limit: float) -> Check:
    """Check the latency of the newest frames. ``seconds`` are the times from the last frame of each camera to its
    answer, None without one."""
    late = [s for s in seconds if s is None or s > limit]
    took = ", ".join("never" if s is None else f"{s:.2f} s" for s in seconds)
    return Check("newest frame answered", not late, f"after {took} (limit {limit:g} s)")


def latencies(ms: Sequence[float]) -> dict[str, float]:
    """Return the number of values, their p50, p95 and maximum."""
    ordered = sorted(ms)
    p50, p95 = percentile(ordered, 0.50), percentile(ordered, 0.95)
    return {"calls": len(ordered), "p50": p50 or 0.0, "p95": p95 or 0.0, "most": max(ordered, default=0.0)}


def check_services(ms: Mapping[str, Sequence[float]], unanswered: int, limit: float) -> list[Check]:
    """Check that all service calls were answered, 95 % of them within ``limit`` ms. ``ms`` are times by service."""
    count = sum(map(len, ms.values()))
    checks = [Check("services answer", not unanswered and count > 0, f"{count} of {count + unanswered} calls answered")]
    for name, values in ms.items():
        found = latencies(values)
        said = f"p50 {found['p50']:.0f}, p95 {found['p95']:.0f}, longest {found['most']:.0f} ms (limit {limit:g})"
        checks.append(Check(f"{name} in time", bool(values) and found["p95"] <= limit, said))
    return checks


def check_memory(held: MemoryUsage, limit: float) -> Check:
    """Check that resident memory grew by at most ``limit`` MB."""
    said = (
        f"{held.before:.0f} MB before, {held.peak:.0f} at most, {held.after:.0f} after "
        f"(limit {held.before:.0f} + {limit:g}; shared {held.shared_before:.0f}, at most {held.shared_peak:.0f})"
    )
    return Check("memory bounded", held.peak - held.before <= limit, said)


def check_queries(
    published: int, unusable: int, set_calls: int, delta: Counts, wanted: Sequence[str], in_force: Sequence[str]
) -> list[Check]:
    """Check the counts of queries, and that the last query is in force: ``published`` on the topic, ``unusable`` of
    them invalid, and ``set_calls`` by service."""
    taken, rejected = delta["queries"] - set_calls, delta["rejected_queries"]
    lost = published - taken - rejected
    fits = lost >= 0 and 0 <= taken <= published - unusable and rejected <= unusable
    said = f"{published} published, {taken} taken, {rejected} rejected, {lost} overtaken by newer ones"
    return [
        Check("counts of queries exact", fits, said),
        Check("last query in force", tuple(wanted) == tuple(in_force), f"{list(in_force)} (wanted {list(wanted)})"),
    ]


def check_goals(counts: Mapping[str, Any], delta: Counts) -> list[Check]:
    """Check the outcomes of goals. ``counts`` are those of a :class:`acs_ros.stress.clients.GoalSender`, ``delta``
    those of the node."""
    sent, accepted, ended = counts["sent"], counts["accepted"], counts["ended"]
    ends_seen = {words: counts[words] for words in ENDS.values()}
    counted = {words: delta[name] for name, words in ENDS.items()}
    ends = ", ".join(f"{count} {words}" for words, count in ends_seen.items())
    return [
        Check("every goal accepted", accepted == sent, f"{accepted} of {sent} accepted"),
        Check(
            "every goal ended", ended == accepted, f"{ended} of {accepted} ended in {counts['seconds']:.1f} s: {ends}"
        ),
        Check(
            "refusals in words", not counts["wordless"], f"{counts['wordless']} of {counts['aborted']} without words"
        ),
        Check(
            "counts of goals exact",
            ends_seen == counted and delta["goals"] == accepted == sum(counted.values()),
            f"the node counts {delta['goals']}: " + ", ".join(f"{n} {words}" for words, n in counted.items()),
        ),
    ]
