"""Correlation of low entropy with IoU, size and position of the box, and with the agreement of the samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from acs_core.artifacts.heads import Head, HeadFile
from acs_core.evaluation.table import Cell, Column, Table, TableRow
from acs_core.geometry import iou_matrix
from acs_core.selection.acs_free import mean_entropies
from training.collection.offline_selection import calls
from training.collection.store import Collection
from training.evaluation.ablate import StepCollections, check_same
from training.fitting.analyze import AnalysisConfig, best_heads, entropy_gap

HEADS = 3  # heads per coordinate in the critical layers, as in ACS-Free
QUANTITIES = ("IoU", "size", "distance from the centre", "agreement")
HELD = ("size", "distance from the centre")  # held constant in the last row


@dataclass(frozen=True)
class CandidateProperties:
    """Properties of the C candidates of all questions with at least two candidates.

    Attributes:
        low: (C,) negative mean entropy in nats.
        values: (C,) values of each of ``QUANTITIES``.
        question: (C,) index of the question.
    """

    low: np.ndarray
    values: dict[str, np.ndarray]
    question: np.ndarray


def follows_table(steps: Sequence[StepCollections], critical: HeadFile, config: AnalysisConfig | None = None) -> Table:
    """Return a table with the correlation of low entropy, in the heads of ACS-Free, with each of ``QUANTITIES``, for
    every step, across all candidates and within questions.

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
            rows.append(TableRow((Cell(step.name), Cell(name), *map(Cell, r))))
        held = (partial_correlation(c.low, c.values["IoU"], [c.values[name] for name in HELD]) for c in (found, within))
        rows.append(TableRow((Cell(step.name), Cell("IoU, size and place held equal"), *map(Cell, held))))
    columns = Column("step"), Column("low entropy with"), Column("r across", "ratio"), Column("r within", "ratio")
    return Table("follows", "What low entropy goes together with", columns, tuple(rows), NOTES)


NOTES = (
    f"Pearson's r of low mean entropy in the {HEADS} heads a coordinate of the critical layers: across all candidates, "
    "and within questions (after the mean of each is taken away).",
    "size: logarithm of the box's area; agreement: mean IoU with the other candidates of the question.",
)


def candidates_of(data: Collection, heads: HeadFile) -> CandidateProperties:
    """Compute the properties of the candidates of ``data``."""
    low: list[np.ndarray] = []
    question: list[np.ndarray] = []
    columns: dict[str, list[np.ndarray]] = {name: [] for name in QUANTITIES}
    for number, call in enumerate(calls(data, False)):
        if len(call.candidates) < 2 or call.image_size is None:
            continue
        low.append(-mean_entropies(call.record, heads.pairs()).mean(axis=1))
        question.append(np.full(len(call.candidates), number))
        boxes, size = data.box[call.index], np.array(call.image_size, float)
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2 / size - 0.5  # offset from the image's centre, in image sides
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) / size.prod()
        overlap = iou_matrix(boxes, boxes)
        columns["IoU"].append(data.iou[call.index].astype(float))
        columns["size"].append(np.log(np.maximum(area, 1e-9)))
        columns["distance from the centre"].append(np.linalg.norm(centre, axis=1))
        columns["agreement"].append((overlap.sum(axis=1) - 1) / (len(boxes) - 1))
    empty = [np.zeros(0)]
    values = {name: np.concatenate(found or empty) for name, found in columns.items()}
    return CandidateProperties(np.concatenate(low or empty), values, np.concatenate(question or empty).astype(int))


def centred(found: CandidateProperties) -> CandidateProperties:
    """Subtract from every value the mean of its question."""
    _, place, count = np.unique(found.question, return_inverse=True, return_counts=True)

    def less(x: np.ndarray) -> np.ndarray:
        return x - (np.bincount(place, x, minlength=len(count)) / count)[place] if len(x) else x

    return CandidateProperties(less(found.low), {k: less(v) for k, v in found.values.items()}, found.question)


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Return Pearson's r; NaN if either is constant."""
    if len(x) < 2 or np.std(x) < 1e-12 or np.std(y) < 1e-12:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def partial_correlation(x: np.ndarray, y: np.ndarray, held: Sequence[np.ndarray]) -> float:
    """Return Pearson's r of the residuals of ``x`` and ``y``, (C,) each, after a linear fit to ``held``."""
    if len(x) < 2:
        return float("nan")
    known = np.stack([np.ones(len(x)), *held], axis=1)
    left = [v - known @ np.linalg.lstsq(known, v, rcond=None)[0] for v in (x, y)]
    return correlation(left[0], left[1])
