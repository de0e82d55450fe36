"""All numbers of a group of questions, computed once: tables, plots and comparisons read them from here.

Conventions (paper section 5.1): a box is right from an IoU of 0.5 on; a question without a valid answer counts as
IoU 0. Acc@0.5 and mIoU look at the first box, over the questions whose picture shows the thing. Precision, recall and
F1 (table 6) count boxes: those of all questions together, matched one to one (:func:`acs_eval.outcomes.matched`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from acs_eval.bootstrap import DRAWS, Drawn, Estimate, Resampling
from acs_eval.confidence import Calibration, RiskCoverage, calibration, risk_coverage
from acs_eval.outcomes import Outcomes, outcomes_of
from acs_eval.records import Group, Run
from acs_eval.significance import Paired, pair

REFERENCE = "greedy"
PAPER_SAMPLES = 10  # N of section 5.1


@dataclass(frozen=True)
class Scores:
    """What one run is worth; all are shares in [0, 1]. ``gain`` is the relative one in accuracy over greedy, None
    without greedy answers; ``answered`` the share of questions that got a box; ``false_alarms`` that of the questions
    whose picture does not show the thing and that got one all the same, None where each shows it."""

    run: Run
    accuracy: Estimate
    miou: Estimate
    precision: Estimate
    recall: Estimate
    f1: Estimate
    gain: Estimate | None
    answered: float
    false_alarms: float | None


@dataclass(frozen=True)
class Percentiles:
    """Of ``count`` latencies in milliseconds."""

    count: int
    p50: float
    p90: float
    p99: float
    mean: float


@dataclass(frozen=True)
class Measured:
    """A group with its ``outcomes``; ``draws`` and ``seed`` belong to the bootstrap."""

    group: Group
    outcomes: Outcomes
    draws: int = DRAWS
    seed: int = 0

    @cached_property
    def drawn(self) -> dict[str, Drawn]:
        """ "accuracy", "miou", "precision", "recall" and "f1" of every run, on the same resampled pictures."""
        o, shown = self.outcomes, self.outcomes.shown.astype(float)
        resampling = Resampling(o.image, self.draws, self.seed)
        truths = np.minimum(o.truths, 1) if o.single else o.truths
        return {
            "accuracy": resampling.ratio(o.right * shown, shown),
            "miou": resampling.ratio(o.iou * shown, shown),
            "precision": resampling.ratio(o.hits, o.told),
            "recall": resampling.ratio(o.hits, truths),
            "f1": resampling.ratio(2 * o.hits, o.told + truths),
        }

    @cached_property
    def scores(self) -> tuple[Scores, ...]:
        """One for each run."""
        estimates = [drawn.estimates() for drawn in self.drawn.values()]
        gains: list[Estimate] | list[None] = [None] * len(self.group.runs)
        if self.reference is not None:
            accuracy = self.drawn["accuracy"]
            gains = accuracy.relative_to(accuracy.run(self.reference)).estimates()
        answered, shown = self.outcomes.told > 0, self.outcomes.shown
        alarms = answered[:, ~shown].mean(axis=1).tolist() if not shown.all() else [None] * len(answered)
        some = answered.mean(axis=1)
        return tuple(
            Scores(run, acc, miou, precision, recall, f1, gains[r], float(some[r]), alarms[r])
            for r, (run, acc, miou, precision, recall, f1) in enumerate(zip(self.group.runs, *estimates, strict=True))
        )

    @cached_property
    def reference(self) -> int | None:
        """The run that others are compared with: greedy decoding."""
        return next((r for r, run in enumerate(self.group.runs) if run.method.lower() == REFERENCE), None)

    @cached_property
    def main_samples(self) -> int | None:
        """How many samples most methods have chosen from: tables show these runs, and those of methods that have no
        other. Of equals the one nearest to the paper's; None without runs that sample."""
        methods = {(run.method, run.temperature, run.samples) for run in self.group.runs if run.temperature is not None}
        counts = Counter(samples for _, _, samples in methods)
        return max(counts, key=lambda n: (counts[n], -abs(n - PAPER_SAMPLES)), default=None)

    @cached_property
    def main_runs(self) -> tuple[int, ...]:
        """Runs with :attr:`main_samples`, or of a method that was never run with so many."""
        have = {run.method for run in self.group.runs if run.samples == self.main_samples}
        return tuple(
            r for r, run in enumerate(self.group.runs) if run.samples == self.main_samples or run.method not in have
        )

    @cached_property
    def highlights(self) -> tuple[int, ...]:
        """The few runs that plots and long tables show: greedy, and the best setting of each method of ours."""
        best: dict[str, int] = {}
        for r in self.main_runs:
            run = self.group.runs[r]
            if run.kind == "ours" and r != self.reference:
                best[run.method] = max(best.get(run.method, r), r, key=self.merit)
        first = () if self.reference is None else (self.reference,)
        return (*first, *best.values()) or self.main_runs[:1]

    @cached_property
    def ours(self) -> int | None:
        """The best run of our methods; of all methods where none is ours. None where greedy is alone."""
        others = [r for r in self.main_runs if r != self.reference and self.group.runs[r].kind != "bound"]
        own = [r for r in others if self.group.runs[r].kind == "ours"]
        return max(own or others, key=self.merit, default=None)

    def merit(self, run: int) -> tuple[float, float]:
        """What runs are ranked by: Acc@0.5, or F1 where several objects count; then mIoU."""
        scores = self.scores[run]
        value = scores.accuracy.value if self.outcomes.single else scores.f1.value
        return float(np.nan_to_num(value, nan=-1.0)), float(np.nan_to_num(scores.miou.value, nan=-1.0))

    def against(self, run: int, other: int) -> Paired:
        """``run`` against ``other`` over the questions whose picture shows the thing."""
        o = self.outcomes
        right, iou = o.right[:, o.shown], o.iou[:, o.shown]
        return pair(right[run], iou[run], right[other], iou[other], self._resampling_shown)

    @cached_property
    def _resampling_shown(self) -> Resampling:
        o = self.outcomes
        return Resampling(np.unique(o.image[o.shown], return_inverse=True)[1], self.draws, self.seed)

    def calibration(self, run: int) -> Calibration | None:
        """Of the boxes that ``run`` published with a score."""
        boxes = self.outcomes.published[run]
        return calibration(boxes.score, boxes.hit)

    def risk_coverage(self, run: int) -> RiskCoverage | None:
        """Over all questions, those whose picture does not show the thing included: an answer there is wrong."""
        o = self.outcomes
        return risk_coverage(o.score[run], o.right[run], o.told[run] > 0)

    def latency(self, run: int) -> Percentiles | None:
        """Percentiles of the measured latencies of ``run``; None where none was."""
        values = self.outcomes.latency_ms[run]
        values = values[np.isfinite(values)]
        if not len(values):
            return None
        p50, p90, p99 = (float(p) for p in np.percentile(values, [50, 90, 99]))
        return Percentiles(len(values), p50, p90, p99, float(values.mean()))


def measure(group: Group, draws: int = DRAWS, seed: int = 0) -> Measured:
    """Compares the group's answers with the truth; the numbers follow when they are asked for."""
    return Measured(group, outcomes_of(group), draws, seed)
