"""Metrics of a group of questions, computed once and shared by tables, charts and comparisons.

Conventions (paper section 5.1): a box is right if its IoU is at least 0.5; a question without a valid box counts as IoU
0. Acc@0.5 and mIoU use the first box only, over the questions whose object is in the image. Precision, recall and F1
(table 6) count the boxes of all questions together, matched one to one (:func:`acs_core.evaluation.outcomes.matched`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from acs_core.arguments import MAX_NUMPY_SEED, set_fields, whole
from acs_core.evaluation.average_precision import AveragePrecision, average_precision, is_installed, is_scored
from acs_core.evaluation.outcomes import Outcomes, outcomes_of
from acs_core.evaluation.records import EVEN_ATTENTION, SECOND_LOOK, Group, Run
from acs_core.evaluation.statistics import (
    DRAWS,
    CalibrationReport,
    Drawn,
    Estimate,
    Paired,
    Resampling,
    RiskCoverage,
    auroc,
    calibration,
    pair,
    risk_coverage,
)

REFERENCE = "greedy"
PAPER_SAMPLES = 10  # N of section 5.1

FEW = 20  # below so many questions, differences between methods are not judged

MAX_DRAWS = 1_000_000  # bounds the memory of the bootstrap


@dataclass(frozen=True)
class Scores:
    """Metrics of one run, all shares in [0, 1].

    Attributes:
        run: the run.
        accuracy: Acc@0.5.
        miou: mean IoU.
        precision, recall, f1: over the boxes of all questions.
        gain: relative gain in accuracy over greedy; None without greedy predictions.
        answered: share of questions with at least one box.
        false_alarms: share of questions with a box among those whose object is not in the image; None if there are no
            such questions.
    """

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
    """Percentiles and mean of ``count`` latencies, in milliseconds."""

    count: int
    p50: float
    p90: float
    p99: float
    mean: float


@dataclass(frozen=True)
class GroupMetrics:
    """Metrics of a group, computed on first access.

    Attributes:
        group: the questions and runs.
        outcomes: comparison of the runs with the ground truth.
        draws: number of bootstrap resamples, 1 to 1,000,000.
        seed: seed of the bootstrap, 0 to 2^32 - 1.

    Raises:
        TypeError: ``draws`` or ``seed`` is not an integer.
        ValueError: ``draws`` or ``seed`` is out of range.
    """

    group: Group
    outcomes: Outcomes
    draws: int = DRAWS
    seed: int = 0

    def __post_init__(self) -> None:
        set_fields(
            self,
            {"draws": whole("draws", self.draws, 1, MAX_DRAWS), "seed": whole("seed", self.seed, 0, MAX_NUMPY_SEED)},
        )

    @cached_property
    def drawn(self) -> dict[str, Drawn]:
        """Bootstrap of "accuracy", "miou", "precision", "recall" and "f1" of every run, all on the same resampled
        images."""
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
        """Scores of each run."""
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
        """Index of the greedy run, which the others are compared with; None if there is none."""
        return next((r for r, run in enumerate(self.group.runs) if run.method.lower() == REFERENCE), None)

    @cached_property
    def best_free(self) -> int | None:
        """Index of the best run of the baselines that choose among the samples at no further cost, without greedy and
        second looks; None if there is none."""
        runs = self.group.runs
        free = (
            r
            for r in self.main_runs
            if r != self.reference
            and (runs[r].kind, runs[r].learned) == ("baseline", False)
            and not runs[r].method.endswith(SECOND_LOOK)
        )
        return max(free, key=self.merit, default=None)

    @property
    def few(self) -> bool:
        """Whether there are fewer than ``FEW`` questions whose object is in the image: one more right answer would then
        be a difference of over five points."""
        return int(self.outcomes.shown.sum()) < FEW

    @cached_property
    def main_samples(self) -> int | None:
        """The number of samples that most methods were run with; main tables show the runs with this number.

        Ties go to the number nearest to the paper's. None if no run samples.
        """
        methods = {(run.method, run.temperature, run.samples) for run in self.group.runs if run.temperature is not None}
        counts = Counter(samples for _, _, samples in methods)
        return max(counts, key=lambda n: (counts[n], -abs(n - PAPER_SAMPLES)), default=None)

    @cached_property
    def main_runs(self) -> tuple[int, ...]:
        """Indices of the runs with :attr:`main_samples`, and of all runs of methods never run with that number; without
        those of :attr:`ablated`."""
        have = {run.method for run in self.group.runs if run.samples == self.main_samples}
        return tuple(
            r
            for r, run in enumerate(self.group.runs)
            if (run.samples == self.main_samples or run.method not in have) and not run.method.endswith(EVEN_ATTENTION)
        )

    @cached_property
    def ablated(self) -> dict[int, int]:
        """Indices of the runs of :attr:`main_runs` whose attention was also taken out, each with that of the run
        without."""
        without = {
            (run.method, run.temperature, run.samples): r
            for r, run in enumerate(self.group.runs)
            if run.method.endswith(EVEN_ATTENTION)
        }
        runs = self.group.runs
        found = {r: (runs[r].method + EVEN_ATTENTION, runs[r].temperature, runs[r].samples) for r in self.main_runs}
        return {r: without[setting] for r, setting in found.items() if setting in without}

    @cached_property
    def highlights(self) -> tuple[int, ...]:
        """Indices of the runs that charts and long tables show: greedy, and the best setting of each of our methods."""
        best: dict[str, int] = {}
        for r in self.main_runs:
            run = self.group.runs[r]
            if run.kind == "ours" and r != self.reference:
                best[run.method] = max(best.get(run.method, r), r, key=self.merit)
        first = () if self.reference is None else (self.reference,)
        return (*first, *best.values()) or self.main_runs[:1]

    @cached_property
    def ours(self) -> int | None:
        """Index of the best run of our methods, or of all methods if none is ours; None if there is only greedy."""
        others = [r for r in self.main_runs if r != self.reference and self.group.runs[r].kind != "bound"]
        own = [r for r in others if self.group.runs[r].kind == "ours"]
        return max(own or others, key=self.merit, default=None)

    def merit(self, run: int) -> tuple[float, float]:
        """Return the sort key of a run: Acc@0.5 (F1 for several objects), then mIoU."""
        scores = self.scores[run]
        value = scores.accuracy.value if self.outcomes.single else scores.f1.value
        return float(np.nan_to_num(value, nan=-1.0)), float(np.nan_to_num(scores.miou.value, nan=-1.0))

    def against(self, run: int, other: int) -> Paired:
        """Compare ``run`` with ``other`` on the questions whose object is in the image."""
        o = self.outcomes
        right, iou = o.right[:, o.shown], o.iou[:, o.shown]
        return pair(right[run], iou[run], right[other], iou[other], self._resampling_shown)

    @cached_property
    def _resampling_shown(self) -> Resampling:
        o = self.outcomes
        return Resampling(np.unique(o.image[o.shown], return_inverse=True)[1], self.draws, self.seed)

    @cached_property
    def average_precisions(self) -> dict[int, AveragePrecision]:
        """COCO's average precisions of the :attr:`main_runs` that have a score, by index; empty without pycocotools."""
        runs = self.group.runs
        scored = [r for r in self.main_runs if is_scored(runs[r])] if is_installed() else []
        return {r: found for r in scored if (found := average_precision(self.group, runs[r]))}

    def calibration(self, run: int) -> CalibrationReport | None:
        """Return the calibration of the boxes that ``run`` published with a score; None without scores."""
        boxes = self.outcomes.published[run]
        return calibration(boxes.score, boxes.hit)

    def auroc(self, run: int, answered: bool = False) -> float | None:
        """Return the area under the ROC curve of right against wrong predictions of ``run``, by their scores.

        Args:
            run: index of the run.
            answered: whether only questions with a box count; otherwise those without one are wrong, with score 0.

        Returns:
            The area in [0, 1]; None without scores, or if all predictions are right or all wrong.
        """
        scored = self._scored(run)
        if scored is None:
            return None
        told, score, right = scored
        return auroc(score[told], right[told]) if answered else auroc(score, right)

    def error_of_all(self, run: int) -> float | None:
        """Return the expected calibration error of ``run`` over all questions, in [0, 1]; those without a box are
        wrong, with score 0. None without scores, also if no question got a box."""
        scored = self._scored(run)
        found = scored and calibration(scored[1], scored[2])
        return found.error if found else None

    def _scored(self, run: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Return for each question whether ``run`` gave a box, its score, 0 without one, and whether it is right, (Q,)
        each; None without scores."""
        o = self.outcomes
        told = o.told[run] > 0
        if not told.any() or not np.isfinite(o.score[run][told]).all():
            return None
        return told, np.where(told, o.score[run], 0.0), o.right[run] & told

    def risk_coverage(self, run: int) -> RiskCoverage | None:
        """Return the risk-coverage curve of ``run`` over all questions; None without scores.

        A prediction for a question whose object is not in the image counts as wrong.
        """
        o = self.outcomes
        return risk_coverage(o.score[run], o.right[run], o.told[run] > 0)

    def latency(self, run: int) -> Percentiles | None:
        """Return the latency percentiles of ``run``; None if no latency was measured."""
        values = self.outcomes.latency_ms[run]
        values = values[np.isfinite(values)]
        if not len(values):
            return None
        p50, p90, p99 = (float(p) for p in np.percentile(values, [50, 90, 99]))
        return Percentiles(len(values), p50, p90, p99, float(values.mean()))


def measure(group: Group, draws: int = DRAWS, seed: int = 0) -> GroupMetrics:
    """Compare the predictions of a group with the ground truth and return its metrics.

    Args:
        group: the questions and runs.
        draws: number of bootstrap resamples, 1 to 1,000,000.
        seed: seed of the bootstrap, 0 to 2^32 - 1.
    """
    return GroupMetrics(group, outcomes_of(group), draws, seed)
