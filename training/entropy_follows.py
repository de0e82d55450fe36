"""What low entropy goes together with: how good a box is, how large, where it lies, or how far the samples agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from acs_core.geometry import iou_matrix
from acs_core.heads import Head, HeadFile
from acs_core.selection.acs_free import mean_entropies
from acs_eval.table import Cell, Column, Row, Table
from training.ablate import Step, check_same
from training.analyze import AnalysisConfig, best_heads, entropy_gap
from training.offline_choice import calls
from training.store import Collection

HEADS = 3  # per coordinate, of the critical layers: those of ACS-Free
QUANTITIES = ("IoU", "size", "distance from the centre", "agreement")
HELD = ("size", "distance from the centre")  # kept equal in the last row


@dataclass(frozen=True)
class Candidates:
    """C candidates of the questions with two or more: ``low`` (C,) is the negative mean entropy, ``values`` a (C,) for
    each of ``QUANTITIES``, ``question`` (C,) numbers the questions."""

    low: np.ndarray
    values: dict[str, np.ndarray]
    question: np.ndarray


def follows_table(steps: Sequence[Step], critical: HeadFile, config: AnalysisConfig | None = None) -> Table:
    """For every step the correlation of low entropy, in the heads that ACS-Free would use, with each of ``QUANTITIES``:
    across all candidates, and within questions.

    Raises:
        DataError: a collection is of another model than ``critical``, or too small to choose heads from.
    """
    rows = []
    for step in steps:
        for collection in (step.chosen_on, step.judged_on):
            check_same(collection, critical)
        chosen = [
            best_heads(gap, HEADS, critical.layers) for gap in entropy_gap(step.chosen_on, config or AnalysisConfig())
        ]
        heads = tuple(tuple(Head(*pair) for pair in pairs) for pairs in chosen)
        found = candidates_of(step.judged_on, HeadFile(critical.identity, "heads", heads, critical.layers))
        within = centred(found)
        for name in QUANTITIES:
            r = (correlation(c.low, c.values[name]) for c in (found, within))
            rows.append(Row((Cell(step.name), Cell(name), *map(Cell, r))))
        held = (partial_correlation(c.low, c.values["IoU"], [c.values[name] for name in HELD]) for c in (found, within))
        rows.append(Row((Cell(step.name), Cell("IoU, size and place held equal"), *map(Cell, held))))
    columns = Column("step"), Column("low entropy with"), Column("r across", "ratio"), Column("r within", "ratio")
    return Table("follows", "What low entropy goes together with", columns, tuple(rows), NOTES)


NOTES = (
    f"Pearson's r of low mean entropy in the {HEADS} heads a coordinate of the critical layers: across all candidates, "
    "and within questions (after the mean of each is taken away).",
    "size: logarithm of the box's area; agreement: mean IoU with the other candidates of the question.",
)


def candidates_of(data: Collection, heads: HeadFile) -> Candidates:
    """What is known of the candidates of ``data``."""
    low: list[np.ndarray] = []
    question: list[np.ndarray] = []
    columns: dict[str, list[np.ndarray]] = {name: [] for name in QUANTITIES}
    for number, call in enumerate(calls(data, False)):
        if len(call.candidates) < 2 or call.image_size is None:
            continue
        low.append(-mean_entropies(call.evidence, heads).mean(axis=1))
        question.append(np.full(len(call.candidates), number))
        boxes, size = data.box[call.index], np.array(call.image_size, float)
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2 / size - 0.5  # of the picture's sides, from its middle
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) / size.prod()
        overlap = iou_matrix(boxes, boxes)
        columns["IoU"].append(data.iou[call.index].astype(float))
        columns["size"].append(np.log(np.maximum(area, 1e-9)))
        columns["distance from the centre"].append(np.linalg.norm(centre, axis=1))
        columns["agreement"].append((overlap.sum(axis=1) - 1) / (len(boxes) - 1))
    empty = [np.zeros(0)]
    values = {name: np.concatenate(found or empty) for name, found in columns.items()}
    return Candidates(np.concatenate(low or empty), values, np.concatenate(question or empty).astype(int))


def centred(found: Candidates) -> Candidates:
    """The same with the mean of its question taken from every number."""
    _, place, count = np.unique(found.question, return_inverse=True, return_counts=True)

    def less(x: np.ndarray) -> np.ndarray:
        return x - (np.bincount(place, x, minlength=len(count)) / count)[place] if len(x) else x

    return Candidates(less(found.low), {k: less(v) for k, v in found.values.items()}, found.question)


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's r, NaN where one of the two does not vary."""
    if len(x) < 2 or np.std(x) < 1e-12 or np.std(y) < 1e-12:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def partial_correlation(x: np.ndarray, y: np.ndarray, held: Sequence[np.ndarray]) -> float:
    """Pearson's r of what a linear fit to ``held`` leaves of ``x`` and ``y``, (C,) each."""
    if len(x) < 2:
        return float("nan")
    known = np.stack([np.ones(len(x)), *held], axis=1)
    left = [v - known @ np.linalg.lstsq(known, v, rcond=None)[0] for v in (x, y)]
    return correlation(left[0], left[1])
