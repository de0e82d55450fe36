"""Tables beyond those of the paper: average precision, significance, calibration, abstention, object size, category,
latency, failures."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import astuple
from itertools import pairwise

import numpy as np

from acs_core.evaluation.average_precision import LIBRARY, is_scored
from acs_core.evaluation.metrics import GroupMetrics
from acs_core.evaluation.records import SECOND_LOOK
from acs_core.evaluation.rows import METHOD, TAU, in_order, label, mark_best, named, percent
from acs_core.evaluation.statistics import ON_OBJECT, holm
from acs_core.evaluation.table import Cell, Column, Table, TableRow

SIZE_EDGES = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.2, 1.0)  # shares of the image area
COVERAGES = (0.5, 0.8, 0.9, 1.0)
CONSENSUS = "consensus"  # method that takes the boxes that agree, without attention
MAX_REASONS = 5  # reasons with a column of their own; the others are summed up


def average_precision_table(measured: GroupMetrics) -> Table | None:
    """Return the table of average precisions of all runs with a score; None if there is no such run."""
    group = measured.group
    order = [r for r in in_order(group.runs, measured.main_runs) if is_scored(group.runs[r])]
    if not order or not measured.outcomes.shown.any():
        return None
    rows = []
    for r in order:
        run = group.runs[r]
        values = astuple(measured.average_precisions[r]) if measured.average_precisions else (math.nan,) * 6
        kind = "probability" if any(answer.scores for answer in run.answers) else "confidence"
        rows.append(
            TableRow((*named(run), Cell(kind), *(Cell(None if math.isnan(v) else 100 * v) for v in values)), run.kind)
        )
    columns = (
        *(METHOD, TAU, Column("ranked by")),
        *(Column(name, "percent") for name in ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large")),
    )
    notes = [
        "AP: mean over IoU 0.50 to 0.95, by pycocotools; sizes are COCO's, by the area of the true box (32 and 96 "
        "pixels squared). Phrase-conditioned: each category on the images that were asked about it, so not comparable "
        "with the AP of a detector on the whole data set.",
        "Left out: methods whose boxes have neither a score nor a confidence that is comparable between images.",
    ]
    if not measured.average_precisions:
        notes.insert(0, f"Not computed: {LIBRARY} is not installed (pip install {LIBRARY}).")
    rows = mark_best(rows, [group.runs[r] for r in order], range(3, 9))
    return Table("average-precision", "COCO average precision, phrase-conditioned", columns, tuple(rows), tuple(notes))


def significance_table(measured: GroupMetrics) -> Table | None:
    """Return the table that compares every run with greedy; None without greedy runs, for several objects, or for few
    questions."""
    first = measured.reference
    others = [r for r in in_order(measured.group.runs, measured.main_runs) if r != first]
    if first is None:
        return None
    return _paired_table(measured, first, others, "significance", "Against greedy")


def free_significance_table(measured: GroupMetrics) -> Table | None:
    """Return the table that compares our methods with the best of the baselines that cost nothing but the samples; None
    as for :func:`significance_table`."""
    best = measured.best_free
    if best is None:
        return None
    ours = [r for r in in_order(measured.group.runs, measured.main_runs) if measured.group.runs[r].kind == "ours"]
    title = f"Against the best free baseline, {label(measured.group.runs[best])}"
    note = "This baseline was chosen as the best on these questions, which favours it."
    return _paired_table(measured, best, ours, "significance-free", title, note)


def consensus_significance_table(measured: GroupMetrics) -> Table | None:
    """Return the table that compares our methods with consensus, which uses no attention, on the same responses: that
    of the same temperature and, for a second look, of a second look; None as for :func:`significance_table`."""
    runs = measured.group.runs
    partner = {
        (run.temperature, run.method.endswith(SECOND_LOOK)): r
        for r, run in enumerate(runs)
        if r in measured.main_runs and run.method.removesuffix(SECOND_LOOK) == CONSENSUS
    }
    ours = [r for r in in_order(runs, measured.main_runs) if runs[r].kind == "ours" and r not in partner.values()]
    found = {r: partner.get((runs[r].temperature, runs[r].method.endswith(SECOND_LOOK))) for r in ours}
    firsts = {r: first for r, first in found.items() if first is not None}
    title = f"Against {CONSENSUS} on the same responses"
    return _paired_table(measured, firsts, [*firsts], "significance-consensus", title)


def without_attention_table(measured: GroupMetrics) -> Table | None:
    """Return the table that compares methods with themselves on even attention, on the same responses; None without
    such runs, or as for :func:`significance_table`."""
    order = in_order(measured.group.runs, [*measured.ablated])
    if not order or not measured.outcomes.single or measured.few:
        return None
    paired = {r: measured.against(r, measured.ablated[r]) for r in order}
    corrected = holm([p.mcnemar for p in paired.values()])
    absent = not measured.outcomes.shown.all()
    rows = []
    for (r, p), p_holm in zip(paired.items(), corrected, strict=True):
        both = (r, measured.ablated[r])
        run = measured.group.runs[r]
        values = [percent(measured.scores[k].accuracy) for k in both]
        tests = Cell(p.won), Cell(p.lost), Cell(p.mcnemar), Cell(p_holm), percent(p.miou)
        areas = [Cell(measured.auroc(k)) for k in both]
        curves = [measured.risk_coverage(k) for k in both]
        halves = [Cell(None if curve is None else 100 * curve.accuracy_at(0.5)) for curve in curves]
        rows.append(TableRow((*named(run), *values, percent(p.accuracy), *tests, *halves, *areas), run.kind))
    columns = (
        *(METHOD, TAU, Column("Acc@0.5 %", "percent"), Column("on even attention %", "percent")),
        *(Column("gain, points", "points"), Column("won", "count"), Column("lost", "count")),
        *(Column("p", "p"), Column("p (Holm)", "p"), Column("mIoU gain, points", "points")),
        *(Column("50 % kept", "percent"), Column("50 % kept, on even attention", "percent")),
        *(Column("AUROC of all", "ratio"), Column("AUROC of all, on even attention", "ratio")),
    )
    notes = (
        "On even attention: the same selector, file and calibration choose from the same responses, with each map of "
        "attention replaced by one constant map for all candidates, and each entropy by that of an even map. What is "
        "left is agreement and the shape of the boxes; ties go to the box with which more responses agree, so that a "
        "selector by attention alone becomes a vote.",
        "Gain: with attention minus without, on the same questions, with 95 % intervals of a paired bootstrap over "
        "pictures. Won: right only with attention; lost: only without. p: McNemar's exact test, two-sided; Holm: "
        "corrected for the number of rows.",
        "50 % kept, AUROC of all: as in the tables of abstention and calibration"
        + (", absent objects included." if absent else "."),
    )
    return Table("without-attention", "With attention and without", columns, tuple(rows), notes)


def _paired_table(
    measured: GroupMetrics,
    first: int | Mapping[int, int],
    others: list[int],
    name: str,
    title: str,
    note: str = "",
) -> Table | None:
    """Return the table that compares the runs ``others`` with the run ``first``, or each with that of ``first``."""
    if not others or not measured.outcomes.single or measured.few:
        return None
    of_each = dict.fromkeys(others, first) if isinstance(first, int) else first
    paired = [measured.against(r, of_each[r]) for r in others]
    judged = [k for k, r in enumerate(others) if measured.group.runs[r].kind != "bound"]
    corrected = dict(zip(judged, holm([paired[k].mcnemar for k in judged]), strict=True))
    rows = []
    for k, (r, p) in enumerate(zip(others, paired, strict=True)):
        run = measured.group.runs[r]
        tests = Cell(p.mcnemar), Cell(corrected.get(k)), percent(p.miou), Cell(p.miou_p), percent(p.on_object)
        rows.append(TableRow((*named(run), percent(p.accuracy), Cell(p.won), Cell(p.lost), *tests), run.kind))
    columns = (
        METHOD,
        TAU,
        Column("Acc@0.5, points", "points"),
        Column("won", "count"),
        Column("lost", "count"),
        Column("p", "p"),
        Column("p (Holm)", "p"),
        Column("mIoU, points", "points"),
        Column("p", "p", "mIoU"),
        Column("right object, points", "points"),
    )
    other = label(measured.group.runs[first]) if isinstance(first, int) else CONSENSUS
    notes = (
        f"Difference to {other} on the same questions, with 95 % intervals of a paired bootstrap over pictures, which "
        "also gives the p of mIoU.",
        f"Won: right where {other} is wrong; lost: the reverse. p: McNemar's exact test, two-sided; Holm: corrected "
        "for the number of rows.",
        f"Right object: boxes that lie on the true object, with an IoU above {ON_OBJECT:g}.",
        *([note] if note else []),
    )
    return Table(name, title, columns, tuple(rows), notes)


def calibration_table(measured: GroupMetrics) -> Table | None:
    """Return the table of calibration errors and Brier scores; None if no run has scores."""
    rows, runs = [], []
    for r in in_order(measured.group.runs, measured.main_runs):
        found = measured.calibration(r)
        if found:
            mean = sum(b.count * b.stated for b in found.bins) / found.count
            right = sum(b.count * b.right for b in found.bins) / found.count
            areas = (Cell(measured.auroc(r, answered)) for answered in (True, False))
            of_all = measured.error_of_all(r)
            errors = Cell(100 * found.error), Cell(None if of_all is None else 100 * of_all)
            values = Cell(found.count), Cell(100 * mean), Cell(100 * right), *errors, Cell(found.brier)
            rows.append(TableRow((*named(measured.group.runs[r]), *values, *areas), measured.group.runs[r].kind))
            runs.append(measured.group.runs[r])
    if not rows:
        return None
    columns = (
        METHOD,
        TAU,
        Column("boxes", "count"),
        Column("mean score %", "percent"),
        Column("right %", "percent"),
        Column("calibration error %", "percent"),
        Column("error of all %", "percent"),
        Column("Brier score", "ratio"),
        Column("AUROC", "ratio"),
        Column("AUROC of all", "ratio"),
    )
    notes = (
        "Published score against IoU ≥ 0.5. Calibration error: the expected calibration error (ECE), the mean "
        "gap over ten bins of equal width, weighted by their boxes; lower is better. AUROC: probability that a right "
        "box has a higher score than a wrong one. Of all: over all questions, where no box is wrong, with score 0.",
    )
    best = mark_best(mark_best(rows, runs, (5, 6, 7), highest=False), runs, (8, 9))
    return Table("calibration", "Calibration", columns, tuple(best), notes)


def abstention_table(measured: GroupMetrics) -> Table | None:
    """Return the table of accuracy by coverage, where the predictions with the lowest scores are left out; None without
    scores."""
    rows, runs = [], []
    for r in in_order(measured.group.runs, measured.main_runs):
        curve = measured.risk_coverage(r)
        if curve:
            at = [Cell(100 * curve.accuracy_at(coverage)) for coverage in COVERAGES]
            rows.append(TableRow((*named(measured.group.runs[r]), *at, Cell(curve.area)), measured.group.runs[r].kind))
            runs.append(measured.group.runs[r])
    if not rows:
        return None
    columns = (
        METHOD,
        TAU,
        *(Column(f"{100 * c:g} % kept", "percent") for c in COVERAGES),
        Column("AURC", "ratio"),
    )
    notes = (
        "Accuracy when that share of the questions is answered, the highest scores first. AURC: mean risk (1 - "
        "accuracy) over all shares; lower is better. Unanswered questions come last, as wrong.",
    )
    best = mark_best(mark_best(rows, runs, range(2, 6)), runs, (6,), highest=False)
    return Table("abstention", "Accuracy % against abstention", columns, tuple(best), notes)


def size_table(measured: GroupMetrics) -> Table | None:
    """Return the table of Acc@0.5 by the share of the image that the object covers; None if there is a single bin."""
    o = measured.outcomes
    bins = [(low, high, o.shown & (o.area_share > low) & (o.area_share <= high)) for low, high in pairwise(SIZE_EDGES)]
    bins = [found for found in bins if found[2].any()]
    if not o.single or len(bins) < 2:
        return None
    runs = measured.group.runs
    order = in_order(runs, measured.main_runs)
    rows = []
    for r in order:
        cells = [Cell(100 * float(o.right[r, here].mean())) for _, _, here in bins]
        rows.append(TableRow((*named(runs[r]), *cells), runs[r].kind))
    rows = mark_best(rows, [runs[r] for r in order], range(2, 2 + len(bins)))
    notes = ("Columns: the share of the picture that the object covers.",)
    counted = TableRow((Cell("questions"), Cell(None), *(Cell(str(int(here.sum()))) for _, _, here in bins)))
    columns = METHOD, TAU, *(Column(f"{100 * a:g}–{100 * b:g} %", "percent") for a, b, _ in bins)
    return Table("size", "Acc@0.5 % by object size", columns, (*rows, counted), notes)


def category_table(measured: GroupMetrics) -> Table | None:
    """Return the table of Acc@0.5 of the highlighted runs by category, most frequent first; None for one category."""
    o = measured.outcomes
    names, place = np.unique([q.category for q in measured.group.questions], return_inverse=True)
    counts = np.bincount(place, o.shown, minlength=len(names)).astype(int)
    if not o.single or (counts > 0).sum() < 2:
        return None
    runs, shown = measured.group.runs, measured.highlights
    rows = []
    for k in sorted(range(len(names)), key=lambda k: (-counts[k], str(names[k]))):
        here = o.shown & (place == k)
        if here.any():
            cells = [Cell(100 * float(o.right[r, here].mean())) for r in shown]
            rows.append(TableRow((Cell(str(names[k])), Cell(int(counts[k])), *cells)))
    columns = Column("Category"), Column("questions", "count"), *(Column(label(runs[r]), "percent") for r in shown)
    return Table("category", "Acc@0.5 % by category", columns, tuple(rows))


def latency_table(measured: GroupMetrics) -> Table | None:
    """Return the table of latency percentiles; None if no latency was measured."""
    rows = []
    for r in in_order(measured.group.runs, measured.main_runs):
        found = measured.latency(r)
        if found:
            values = Cell(found.count), Cell(found.p50), Cell(found.p90), Cell(found.p99), Cell(found.mean)
            rows.append(TableRow((*named(measured.group.runs[r]), *values), measured.group.runs[r].kind))
    if not rows:
        return None
    names = ("p50", "p90", "p99", "mean")
    columns = METHOD, TAU, Column("answers", "count"), *(Column(f"{n} ms", "ms") for n in names)
    return Table("latency", "Time of an answer", columns, tuple(rows), ("Wall time from the picture to the answer.",))


def reasons_table(measured: GroupMetrics) -> Table | None:
    """Return the table of reasons for predictions without a box; None if there is no such reason."""
    order = in_order(measured.group.runs, measured.main_runs)
    given = {
        r: Counter(_sort_of(a.reason) for a in measured.group.runs[r].answers if not a.boxes and a.reason)
        for r in order
    }
    total = sum(given.values(), Counter[str]())
    if not total:
        return None
    frequent = [reason for reason, _ in total.most_common(MAX_REASONS)]
    rows = []
    for r in order:
        counts = [given[r][reason] for reason in frequent]
        rest = [Cell(given[r].total() - sum(counts))] if len(total) > len(frequent) else []
        rows.append(TableRow((*named(measured.group.runs[r]), *map(Cell, counts), *rest), measured.group.runs[r].kind))
    columns = [METHOD, TAU, *(Column(reason, "count") for reason in frequent)]
    columns += [Column("other", "count")] if len(total) > len(frequent) else []
    notes = (f"Of {len(measured.group.questions)} questions.",)
    return Table("unanswered", "Questions without a box, and why", tuple(columns), tuple(rows), notes)


def _sort_of(reason: str) -> str:
    """Return ``reason`` with its numbers replaced by N, so that "7 x no box, 3 x cut off" and "6 x no box, 4 x cut off"
    are counted together."""
    return re.sub(r"\d+(\.\d+)?", "N", reason)
