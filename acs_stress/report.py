"""What a soak's journal says: what was tried, what broke, and whether the node ended as it began."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from acs_stress.journal import JOURNAL

SUMMARY, PICTURE = "soak.json", "soak.png"
# The bars. The node's memory is looked at when it rests after a round; the first quarter still fills caches.
MOST_GROWTH_MB, MOST_FDS, MOST_THREADS = 30.0, 3, 1
MOST_MORE_CPU = 1.25


class ReportError(Exception):
    """There is no journal to report; the message says what to do."""


@dataclass(frozen=True)
class Verdict:
    """One thing that had to hold."""

    holds: bool
    text: str


@dataclass(frozen=True)
class Episode:
    """All runs of one episode together. ``counts``: what was done in them."""

    name: str
    runs: int
    problems: int
    counts: dict[str, int]


@dataclass(frozen=True)
class Quarter:
    """A quarter of the soak, by the rounds' ends: medians. ``mb``, ``fds``, ``threads`` at rest. ``latency_ms`` of
    single frames sent to the idle node, and ``cpu_ms`` that the node computed for one: what else the machine does makes
    the first longer and hardly the second."""

    rounds: int
    mb: float
    fds: float
    threads: float
    latency_ms: float
    latency_p95_ms: float
    cpu_ms: float


@dataclass(frozen=True)
class Summary:
    """A journal in numbers. ``finished``: it came to its planned end. ``freezes``: how often a node stood still and
    another took its place. ``series``: minute, MB and file descriptors of
    every look, and minute and latency of every single frame."""

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
    verdicts: tuple[Verdict, ...]
    series: dict[str, list[tuple[float, ...]]] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, without the series, which are the journal's."""
        return {key: value for key, value in asdict(self).items() if key != "series"}


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``folder``'s journal; a last one that was cut off is left out.

    Raises:
        ReportError: there is none, or it holds something else.
    """
    file = folder / JOURNAL
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ReportError(f"there is no journal {file} ({error.strerror}): make one with acs-soak --out") from error
    notes = []
    for number, line in enumerate(lines, 1):
        try:
            note = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise ReportError(f"{file}, line {number} is not JSON: is it the journal of acs-soak?") from error
        if not isinstance(note, dict) or "kind" not in note:
            raise ReportError(f"{file}, line {number} is none of acs-soak's")
        notes.append(note)
    if not notes or notes[0]["kind"] != "begin":
        raise ReportError(f"{file} does not begin as a journal of acs-soak does")
    return notes


def summarise(notes: list[dict[str, Any]]) -> Summary:
    """The numbers and what they are held to.

    Raises:
        ReportError: it ended before one round was complete.
    """
    courses = [n for n in notes if n["kind"] == "course"]
    rounds = _rounds(notes)
    if not rounds:
        raise ReportError("the soak ended before the node had answered in its first round: see node.log beside it")
    quarters = tuple(_quarter(list(part)) for part in np.array_split(np.array(rounds, object), 4) if len(part))
    problems = [f"minute {c['minute']:.0f}, {c['name']}: {p}" for c in courses for p in c["problems"]]
    problems += [f"minute {n['minute']:.0f}: the node died: {n['problem']}" for n in notes if n["kind"] == "died"]
    end = next((n for n in notes if n["kind"] == "end"), None)
    samples = [n for n in notes if n["kind"] in ("sample", "rest")]
    return Summary(
        minutes=notes[-1]["minute"],
        finished=end is not None,
        machine=notes[0]["machine"],
        params=notes[0]["params"],
        model=notes[0]["model"],
        answers=end["answers_checked"] if end else 0,
        freezes=(freezes := sum(n["kind"] == "froze" for n in notes)),
        episodes=tuple(_episodes(courses)),
        quarters=quarters,
        problems=tuple(problems),
        peak_mb=max(s["rss_mb"] for s in samples),
        verdicts=tuple(_verdicts(quarters, problems, end is not None, freezes)),
        series={
            "memory": [(s["minute"], s["rss_mb"], s["fds"]) for s in samples],
            "latency": [(c["minute"], ms) for c in courses for ms in c["latencies_ms"]],
        },
    )


def _rounds(notes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The looks at rest, each with the single frames of its round."""
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
    told = (float(p50), float(p95), float(np.median([r["cpu_ms"] for r in rounds])))
    return Quarter(len(rounds), middle["rss_mb"], middle["fds"], middle["threads"], *told)


def _episodes(courses: list[dict[str, Any]]) -> Iterator[Episode]:
    for name in dict.fromkeys(c["name"] for c in courses):
        mine = [c for c in courses if c["name"] == name]
        counts: Counter[str] = Counter()
        for course in mine:
            counts.update(course["counts"])
        yield Episode(name, len(mine), sum(len(c["problems"]) for c in mine), dict(counts))


def _verdicts(quarters: tuple[Quarter, ...], problems: list[str], finished: bool, freezes: int) -> Iterator[Verdict]:
    yield Verdict(finished, "came to its planned end" if finished else "did not come to its planned end")
    yield Verdict(not problems, f"{len(problems)} broken promises")
    if freezes:
        yield Verdict(True, f"stood still in the middleware {freezes} times, ended itself and was started again")
    if len(quarters) < 2:
        yield Verdict(True, "one round: too short to say whether anything grows")
        return
    # The first quarter loads what later ones use again; a leak goes on after it.
    early, last = quarters[1 if len(quarters) > 2 else 0], quarters[-1]
    grown = last.mb - early.mb
    yield Verdict(
        grown <= MOST_GROWTH_MB,
        f"memory at rest {early.mb:.0f} MB, at the end {last.mb:.0f} MB (bar: {MOST_GROWTH_MB:.0f} MB more)",
    )
    yield Verdict(
        last.fds - early.fds <= MOST_FDS,
        f"open files {early.fds:.0f}, at the end {last.fds:.0f} (bar: {MOST_FDS} more)",
    )
    yield Verdict(
        last.threads - early.threads <= MOST_THREADS,
        f"threads {early.threads:.0f}, at the end {last.threads:.0f} (bar: {MOST_THREADS} more)",
    )
    more = last.cpu_ms / early.cpu_ms
    yield Verdict(
        more <= MOST_MORE_CPU,
        f"CPU time a frame {early.cpu_ms:.0f} ms, at the end {last.cpu_ms:.0f} ms: {more:.2f} times (bar: "
        f"{MOST_MORE_CPU:g}); latency, with all else at work, {early.latency_ms:.0f} and {last.latency_ms:.0f} ms",
    )


def table_of(found: Summary) -> Table:
    """The episodes and what was done in them."""
    table = Table(title=f"{found.minutes:.0f} minutes, {found.answers} answers held against their questions", box=None)
    for name in ("episode", "runs", "broken", "in them"):
        table.add_column(name, justify="right" if name in ("runs", "broken") else "left", overflow="fold")
    for e in found.episodes:
        table.add_row(e.name, str(e.runs), str(e.problems), ", ".join(f"{n} {what}" for what, n in e.counts.items()))
    return table


def write_summary(found: Summary, folder: Path) -> Path:
    """``soak.json`` in ``folder``."""
    file = folder / SUMMARY
    file.write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")
    return file


def draw(found: Summary, folder: Path) -> Path:
    """``soak.png`` in ``folder``: memory, file descriptors and the latency of single frames over the minutes."""
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
    figure.savefig(file, dpi=110)
    return file
