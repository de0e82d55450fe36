"""Report of a soak from its journal: the performed actions, the failures, and whether memory, files or latency grew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from acs_core.output import write_json
from acs_ros.stress.soak_journal import ReportError

SUMMARY, PICTURE = "soak.json", "soak.png"
# Limits. Memory is measured when the node is idle after a round; during the first quarter caches still fill.
MOST_GROWTH_MB, MOST_FDS, MOST_THREADS = 30.0, 3, 1
MOST_MORE_CPU = 1.25


@dataclass(frozen=True)
class SoakCriterion:
    """A requirement, and whether it holds."""

    holds: bool
    text: str


@dataclass(frozen=True)
class Episode:
    """Totals over all runs of one episode; ``counts`` are the numbers of performed actions."""

    name: str
    runs: int
    problems: int
    counts: dict[str, int]


@dataclass(frozen=True)
class Quarter:
    """Medians over a quarter of the soak's rounds.

    Other load on the machine changes the latency, but hardly the processor time.

    Attributes:
        rounds: number of rounds.
        mb: resident memory of the idle node in MB.
        fds: file descriptors of the idle node.
        threads: threads of the idle node.
        latency_ms: latency of single frames in milliseconds.
        latency_p95_ms: 95th percentile of the latency in milliseconds.
        cpu_ms: processor time of the node per single frame in milliseconds.
    """

    rounds: int
    mb: float
    fds: float
    threads: float
    latency_ms: float
    latency_p95_ms: float
    cpu_ms: float


@dataclass(frozen=True)
class SoakSummary:
    """Summary of a journal.

    ``finished`` tells whether the soak reached its planned end, and ``freezes`` how many nodes froze and were replaced.
    ``series`` holds minute, MB and file descriptors of every sample, and minute and latency of every frame.
    """

    minutes: float
    finished: bool
    machine: dict[str, Any]
    params: str
    model: str
    answers: int
    freezes: int
    episodes: tuple[Episode, ...]
    quarters: tuple[Quarter, ...]
    problems: tuple[str, ...]
    peak_mb: float
    verdicts: tuple[SoakCriterion, ...]
    series: dict[str, list[tuple[float, ...]]] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON values, without the series, which are in the journal."""
        return {key: value for key, value in asdict(self).items() if key != "series"}


def summarise(notes: list[dict[str, Any]]) -> SoakSummary:
    """Compute the summary of a journal and check it against the limits.

    Raises:
        ReportError: the journal ended before one round was complete.
    """
    records = [n for n in notes if n["kind"] == "course"]
    rounds = _rounds(notes)
    if not rounds:
        raise ReportError("the soak ended before the node had answered in its first round: see node.log beside it")
    quarters = tuple(_quarter(list(part)) for part in np.array_split(np.array(rounds, object), 4) if len(part))
    problems = [f"minute {c['minute']:.0f}, {c['name']}: {p}" for c in records for p in c["problems"]]
    problems += [f"minute {n['minute']:.0f}: the node died: {n['problem']}" for n in notes if n["kind"] == "died"]
    end = next((n for n in notes if n["kind"] == "end"), None)
    samples = [n for n in notes if n["kind"] in ("sample", "rest")]
    return SoakSummary(
        minutes=notes[-1]["minute"],
        finished=end is not None,
        machine=notes[0]["machine"],
        params=notes[0]["params"],
        model=notes[0]["model"],
        answers=end["answers_checked"] if end else 0,
        freezes=(freezes := sum(n["kind"] == "froze" for n in notes)),
        episodes=tuple(_episodes(records)),
        quarters=quarters,
        problems=tuple(problems),
        peak_mb=max(s["rss_mb"] for s in samples),
        verdicts=tuple(_verdicts(quarters, problems, end is not None, freezes)),
        series={
            "memory": [(s["minute"], s["rss_mb"], s["fds"]) for s in samples],
            "latency": [(c["minute"], ms) for c in records for ms in c["latencies_ms"]],
        },
    )


def _rounds(notes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the samples of the idle node, each with the single frames of its round."""
    rounds = []
    rest: dict[str, Any] | None = None
    for note in notes:
        if note["kind"] == "rest":
            rest = note
        elif note["kind"] == "course" and note["name"] == "probe" and rest is not None and note["latencies_ms"]:
            frames = note["latencies_ms"]
            rounds.append(rest | {"latencies_ms": frames, "cpu_ms": note["cpu_s"] * 1e3 / len(frames)})
            rest = None
    return rounds


def _quarter(rounds: list[dict[str, Any]]) -> Quarter:
    middle = {key: float(np.median([r[key] for r in rounds])) for key in ("rss_mb", "fds", "threads")}
    latencies = np.concatenate([r["latencies_ms"] for r in rounds])
    p50, p95 = np.percentile(latencies, [50, 95])
    times = (float(p50), float(p95), float(np.median([r["cpu_ms"] for r in rounds])))
    return Quarter(len(rounds), middle["rss_mb"], middle["fds"], middle["threads"], *times)


def _episodes(records: list[dict[str, Any]]) -> Iterator[Episode]:
    for name in dict.fromkeys(c["name"] for c in records):
        mine = [c for c in records if c["name"] == name]
        counts: Counter[str] = Counter()
        for record in mine:
            counts.update(record["counts"])
        yield Episode(name, len(mine), sum(len(c["problems"]) for c in mine), dict(counts))


def _verdicts(
    quarters: tuple[Quarter, ...], problems: list[str], finished: bool, freezes: int
) -> Iterator[SoakCriterion]:
    yield SoakCriterion(finished, "came to its planned end" if finished else "did not come to its planned end")
    yield SoakCriterion(not problems, f"{len(problems)} broken promises")
    if freezes:
        yield SoakCriterion(True, f"stood still in the middleware {freezes} times, ended itself and was started again")
    if len(quarters) < 2:
        yield SoakCriterion(True, "one round: too short to say whether anything grows")
        return
    # Caches fill during the first quarter; a leak continues after it.
    early, last = quarters[1 if len(quarters) > 2 else 0], quarters[-1]
    grown = last.mb - early.mb
    yield SoakCriterion(
        grown <= MOST_GROWTH_MB,
        f"memory at rest {early.mb:.0f} MB, at the end {last.mb:.0f} MB (bar: {MOST_GROWTH_MB:.0f} MB more)",
    )
    yield SoakCriterion(
        last.fds - early.fds <= MOST_FDS,
        f"open files {early.fds:.0f}, at the end {last.fds:.0f} (bar: {MOST_FDS} more)",
    )
    yield SoakCriterion(
        last.threads - early.threads <= MOST_THREADS,
        f"threads {early.threads:.0f}, at the end {last.threads:.0f} (bar: {MOST_THREADS} more)",
    )
    more = last.cpu_ms / early.cpu_ms
    yield SoakCriterion(
        more <= MOST_MORE_CPU,
        f"CPU time a frame {early.cpu_ms:.0f} ms, at the end {last.cpu_ms:.0f} ms: {more:.2f} times (bar: "
        f"{MOST_MORE_CPU:g}); latency, with all else at work, {early.latency_ms:.0f} and {last.latency_ms:.0f} ms",
    )


def table_of(found: SoakSummary) -> Table:
    """Return a table of the episodes and their performed actions."""
    table = Table(title=f"{found.minutes:.0f} minutes, {found.answers} answers held against their questions", box=None)
    for name in ("episode", "runs", "broken", "in them"):
        table.add_column(name, justify="right" if name in ("runs", "broken") else "left", overflow="fold")
    for e in found.episodes:
        table.add_row(e.name, str(e.runs), str(e.problems), ", ".join(f"{n} {what}" for what, n in e.counts.items()))
    return table


def write_summary(found: SoakSummary, folder: Path) -> Path:
    """Write ``soak.json`` into ``folder``; returns its path."""
    file = folder / SUMMARY
    write_json(file, found.to_dict(), "acs-soak")
    return file


def draw(found: SoakSummary, folder: Path) -> Path:
    """Plot memory, file descriptors and latency of single frames over the minutes into ``soak.png`` in ``folder``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    above, middle, below = figure.subplots(3, 1, sharex=True)
    minutes, mb, fds = np.array(found.series["memory"], float).reshape(-1, 3).T
    above.plot(minutes, mb, linewidth=0.8)
    above.set_ylabel("resident MB")
    middle.plot(minutes, fds, linewidth=0.8, color="tab:green")
    middle.set_ylabel("file descriptors")
    at, latency = np.array(found.series["latency"], float).reshape(-1, 2).T
    below.plot(at, latency, ".", markersize=3, color="tab:red")
    below.set_ylabel("one frame, ms")
    below.set_xlabel("minutes")
    for axis in (above, middle, below):
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    file = folder / PICTURE
    figure.savefig(file, dpi=110, metadata={"Software": "acs-soak"})
    return file
