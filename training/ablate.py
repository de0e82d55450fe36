"""What ACS-Free and ACS-Fusion owe to their choices: whose step's attention, which layers, how many heads; and whether
attention ranks the candidates of one question at all, or only tells easy questions from hard ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from acs_core.heads import Head, HeadFile
from acs_core.selection import AcsFree, AcsFusion, Selector
from acs_core.selection.acs_free import mean_entropies
from acs_eval.table import Cell, Column, Row, Table
from training.analyze import AnalysisConfig, best_heads, entropy_gap
from training.errors import DataError
from training.offline_choice import calls, choose_offline
from training.store import Collection

COUNTS = (1, 3, 5, 10)  # heads per coordinate


@dataclass(frozen=True)
class Step:
    """Collections whose attention is of the same ``name``d step: heads are chosen on ``chosen_on``, pictures of another
    split, and judged on ``judged_on``."""

    name: str
    chosen_on: Collection
    judged_on: Collection


@dataclass(frozen=True)
class Ranking:
    """Pearson correlation of low entropy with IoU: over all candidates (``across`` questions), and of both after the
    mean of their question is taken away (``within``)."""

    across: float
    within: float


def ablate(
    steps: Sequence[Step],
    critical: HeadFile,
    counts: Sequence[int] = COUNTS,
    config: AnalysisConfig | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Table:
    """Acc@0.5 and mIoU of ACS-Free and ACS-Fusion for every step, for heads chosen within the localization-critical
    layers (those of ``critical``) and in all layers, and for each number of heads per coordinate.

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
    """Makes sure that ``data`` is of the model that ``heads`` was made for.

    Raises:
        DataError: it is not.
    """
    model = data.manifest.get("model", {}).get("model")
    if model != heads.identity.model:
        raise DataError(f"the collection is of {model}, the head file of {heads.identity.model}")


def ranking(data: Collection, heads: HeadFile) -> Ranking:
    """How well the mean entropy over ``heads`` (equation 4, averaged over coordinates) orders the candidates."""
    low, iou, low_within, iou_within = [], [], [], []
    for call in calls(data, False):
        if len(call.candidates) < 2:
            continue
        h, y = -mean_entropies(call.evidence, heads).mean(axis=1), data.iou[call.index].astype(float)
        low += h.tolist()
        iou += y.tolist()
        low_within += (h - h.mean()).tolist()
        iou_within += (y - y.mean()).tolist()
    return Ranking(_pearson(low, iou), _pearson(low_within, iou_within))


def _row(step: Step, where: str, count: int, heads: HeadFile) -> Row:
    found: list[float] = []
    for selector in (AcsFree(heads), AcsFusion(heads)):
        found += _accuracy(selector, step.judged_on)
    told = ranking(step.judged_on, heads)
    cells = (Cell(step.name), Cell(where), Cell(count), *map(Cell, found), Cell(told.across), Cell(told.within))
    return Row(cells, "ours")


def _first_valid(data: Collection) -> Row:
    iou = np.array([data.iou[call.index[0]] if len(call.index) else 0.0 for call in calls(data, False)])
    accuracy = Cell(100 * float((iou >= 0.5).mean())), Cell(100 * float(iou.mean()))
    return Row((Cell("first valid"), Cell(""), Cell(0), *accuracy, *accuracy, Cell(None), Cell(None)), "baseline")


def _accuracy(selector: Selector, data: Collection) -> tuple[float, float]:
    """Acc@0.5 and mIoU in percent."""
    iou = choose_offline(selector, data).iou
    return 100 * float((iou >= 0.5).mean()), 100 * float(iou.mean())


def _pearson(x: Sequence[float], y: Sequence[float]) -> float:
    """NaN where one of them does not vary."""
    if len(x) < 2 or np.std(x) == 0 or np.std(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])
