"""Comparison of five ways to answer: the cost of N responses and their attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from acs_core.bench.measure import Measurement, measure, size_mb
from acs_core.bench.methods import Ours, Work, eager, greedy, our_maps, ours, plain
from acs_core.bench.subject import Subject

WAYS = {
    "a": "generate, eager, output_attentions",
    "b": "generate, SDPA, no attention",
    "c": "generate, greedy, one response",
    "d": "ours, ACS-Free",
    "e": "ours, ACS-Learned, all maps",
}
OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True)
class EngineRow:
    """Cost of one way.

    Attributes:
        way: name of the way.
        seconds: wall time; None if it was not measured.
        added_mb: peak memory in MB in addition to the model's own; None if unknown.
        tokens_per_s: tokens written per second; None if it was not measured.
        note: reason why it was not measured.
    """

    way: str
    seconds: float | None
    added_mb: float | None
    tokens_per_s: float | None
    note: str = ""


@dataclass(frozen=True)
class EngineReport:
    """Costs of all ways.

    Attributes:
        rows: cost of each way.
        stages_ms: time of each stage of way (e) in milliseconds.
        ratios: ratios between ways by name.
        map_gap: largest difference between the maps of (a) and (e); None if (a) was not run.
        weights_mb: size of the model's weights in MB.
    """

    rows: tuple[EngineRow, ...]
    stages_ms: dict[str, float]
    ratios: dict[str, float]
    map_gap: float | None
    weights_mb: float

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "rows": [vars(row) for row in self.rows],
            "stages_ms": self.stages_ms,
            "ratios": self.ratios,
            "map_gap": self.map_gap,
            "weights_mb": self.weights_mb,
        }


def compare(
    subject: Subject,
    samples: int,
    new_tokens: int,
    ways: str = "abcde",
    repeats: int = 1,
    say: Callable[[str], None] = lambda _: None,
) -> EngineReport:
    """Measure the ``ways`` with ``samples`` responses of ``new_tokens`` tokens; ``say`` is called with each way."""
    device = subject.lvlm.device
    work = Work.of(subject.lvlm, subject.prompts[0], subject.words, samples, new_tokens)
    free, learned = subject.free(), subject.learned()
    calls: dict[str, Callable[[], Any]] = {
        "a": lambda: eager(work),
        "b": lambda: plain(work),
        "c": lambda: greedy(work),
        "d": lambda: ours(work, free),
        "e": lambda: ours(work, learned),
    }
    plain(Work.of(subject.lvlm, subject.prompts[0], subject.words, 1, 6))  # warm-up
    ours(work, learned)
    measured: dict[str, Measurement[Any] | None] = {}
    for way in ways:
        say(f"({way}) {WAYS[way]}")
        try:
            measured[way] = measure(calls[way], device, repeats)
        except torch.OutOfMemoryError:
            measured[way] = None
    rows = tuple(_row(way, m, new_tokens * (1 if way == "c" else samples)) for way, m in measured.items())
    ran = {way: m for way, m in measured.items() if m is not None}
    stages = ran["e"].value.stages_ms if "e" in ran and isinstance(ran["e"].value, Ours) else {}
    gap = None
    if "a" in ran:
        gap = float(np.abs(ran["a"].value - our_maps(work)).max())
    return EngineReport(rows, stages, _ratios(ran, stages), gap, size_mb(subject.lvlm.hf_model))


def _row(way: str, measured: Measurement[Any] | None, tokens: int) -> EngineRow:
    if measured is None:
        return EngineRow(way, None, None, None, OUT_OF_MEMORY)
    return EngineRow(way, measured.seconds, measured.added_mb, tokens / measured.seconds)


def _ratios(ran: dict[str, Measurement[Any]], stages: dict[str, float]) -> dict[str, float]:
    ratios = {}
    for top, bottom in (("a", "e"), ("e", "b"), ("e", "c"), ("d", "e")):
        if top in ran and bottom in ran:
            ratios[f"time {top} / {bottom}"] = ran[top].seconds / ran[bottom].seconds
    if "a" in ran and "e" in ran and ran["a"].added_mb and ran["e"].added_mb:
        ratios["added memory e / a"] = ran["e"].added_mb / ran["a"].added_mb
    if stages:
        looking = stages["attention"] + stages["selection"]
        ratios["attention and selection / e"] = looking / sum(stages.values())
    return ratios
