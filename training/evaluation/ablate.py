"""Ablation of ACS-Free and ACS-Fusion by step, layers and number of heads, and the correlation of attention entropy
with IoU across and within questions.

The correlation within questions shows whether entropy ranks the candidates of a question, rather than only separating
easy from hard questions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from acs_core.artifacts.heads import Head, HeadFile
from acs_core.evaluation.table import Cell, Column, Table, TableRow
from acs_core.selection.acs_free import mean_entropies
from acs_core.selection.registry import AcsFree, AcsFusion, Selector
from training.collection.offline_selection import calls, choose_offline
from training.collection.store import Collection
from training.errors import DataError
from training.fitting.analyze import best_heads, entropy_gap
from training.settings import ABLATION_HEADS, AnalysisConfig


@dataclass(frozen=True)
class StepCollections:
    """Two collections with the attention of the same step.

    Attributes:
        name: name of the step, "emitting" or "consuming".
        chosen_on: collection that heads are chosen on, of images of another split.
        judged_on: collection that the selectors are evaluated on.
    """

    name: str
    chosen_on: Collection
    judged_on: Collection


@dataclass(frozen=True)
class Ranking:
    """Pearson correlation of low entropy with IoU.

    Attributes:
        across: over all candidates of all questions.
        within: after subtraction of each question's mean from both.
    """

    across: float
    within: float


def ablate(
    steps: Sequence[StepCollections],
    critical: HeadFile,
    counts: Sequence[int] = ABLATION_HEADS,
    config: AnalysisConfig | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Table:
    """Compute Acc@0.5 and mIoU of ACS-Free and ACS-Fusion for every step, for heads of the localization-critical layers
    (those of ``critical``) and of all layers, and for each number of heads per coordinate.

    Raises:
        DataError: a collection is of another model than ``critical``, or too small to choose heads from.
    """
    config = config or AnalysisConfig()
    rows = [_first_valid(steps[0].judged_on)]
    done, total = 0, len(steps) * 2 * len(counts)
    for step in steps:
        for collection in (step.chosen_on, step.judged_on):
            check_same(collection, critical)
        gap = entropy_gap(step.chosen_on, config)
        for where, layers in (("critical", critical.layers), ("all", None)):
            for count in counts:
                chosen = tuple(tuple(Head(*pair) for pair in best_heads(g, count, layers)) for g in gap)
                heads = HeadFile(critical.identity, "heads", chosen, critical.layers)
                rows.append(_row(step, where, count, heads))
                done += 1
                progress(done, total)
    asked = len(steps[0].judged_on.pairs)
    return Table("ablation", f"Ablation over {asked} questions", COLUMNS, tuple(rows), NOTES)


COLUMNS = (
    Column("step"),
    Column("layers"),
    Column("heads", "count"),
    Column("Acc@0.5", "percent", "acs-free"),
    Column("mIoU", "percent", "acs-free"),
    Column("Acc@0.5", "percent", "acs-fusion"),
    Column("mIoU", "percent", "acs-fusion"),
    Column("across", "ratio", "r"),
    Column("within", "ratio", "r"),
)
NOTES = (
    "Accuracies in percent. The first row is the first valid box, without attention.",
    "r: correlation of low entropy with IoU, across all candidates, and within questions (after the mean of each is "
    "taken away), which is what choosing needs.",
)


def check_same(data: Collection, heads: HeadFile) -> None:
    """Check that ``data`` is of the model that ``heads`` was made for.

    Raises:
        DataError: it is not.
    """
    model = data.manifest.get("model", {}).get("model")
    if model != heads.identity.model:
        raise DataError(f"the collection is of {model}, the head file of {heads.identity.model}")


def ranking(data: Collection, heads: HeadFile) -> Ranking:
    """Compute the correlation with IoU of the mean entropy over ``heads`` (equation 4, averaged over coordinates)."""
    low, iou, low_within, iou_within = [], [], [], []
    for call in calls(data, False):
        if len(call.candidates) < 2:
            continue
        h, y = -mean_entropies(call.record, heads.pairs()).mean(axis=1), data.iou[call.index].astype(float)
        low += h.tolist()
        iou += y.tolist()
        low_within += (h - h.mean()).tolist()
        iou_within += (y - y.mean()).tolist()
    return Ranking(_pearson(low, iou), _pearson(low_within, iou_within))


def _row(step: StepCollections, where: str, count: int, heads: HeadFile) -> TableRow:
    found: list[float] = []
    for selector in (AcsFree(heads), AcsFusion(heads)):
        found += _accuracy(selector, step.judged_on)
    told = ranking(step.judged_on, heads)
    cells = (Cell(step.name), Cell(where), Cell(count), *map(Cell, found), Cell(told.across), Cell(told.within))
    return TableRow(cells, "ours")


def _first_valid(data: Collection) -> TableRow:
    iou = np.array([data.iou[call.index[0]] if len(call.index) else 0.0 for call in calls(data, False)])
    accuracy = Cell(100 * float((iou >= 0.5).mean())), Cell(100 * float(iou.mean()))
    return TableRow((Cell("first valid"), Cell(""), Cell(0), *accuracy, *accuracy, Cell(None), Cell(None)), "baseline")


def _accuracy(selector: Selector, data: Collection) -> tuple[float, float]:
    """Return Acc@0.5 and mIoU in percent."""
    iou = choose_offline(selector, data).iou
    return 100 * float((iou >= 0.5).mean()), 100 * float(iou.mean())


def _pearson(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Pearson's r; NaN if either is constant."""
    if len(x) < 2 or np.std(x) == 0 or np.std(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])
