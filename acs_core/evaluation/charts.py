"""Charts of an evaluation: accuracy by temperature and by number of samples, reliability, abstention, entropy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from acs_core.evaluation.chart import Chart, Series
from acs_core.evaluation.metrics import GroupMetrics
from acs_core.evaluation.paper_tables import by_samples
from acs_core.evaluation.records import EntropyProfile, Evaluation, Run
from acs_core.evaluation.rows import in_order, label

MOST_LINES, MOST_BANDS = 6, 2  # of the chart by number of samples
COLOURS = 8  # in the page's palette
Colours = Mapping[str, int]


def colours_of(evaluations: Sequence[Evaluation]) -> dict[str, int]:
    """Return a colour index for each method, the same for all charts of a page.

    Our methods come first and have a colour of their own each; if there are more methods than colours, the other
    methods share the remaining ones.
    """
    runs = [run for e in evaluations for group in e.groups for run in group.runs]
    ours = list(dict.fromkeys(run.method for run in runs if run.kind == "ours"))
    others = [method for method in dict.fromkeys(run.method for run in runs) if method not in ours]
    left = max(1, COLOURS - len(ours))
    return {m: i for i, m in enumerate(ours)} | {m: len(ours) + i % left for i, m in enumerate(others)}


def charts_of(measured: GroupMetrics, colours: Colours) -> list[Chart]:
    """Return the charts of a group, without those that have no data."""
    makers = temperature_chart, samples_chart, reliability_chart, abstention_chart
    return [chart for chart in (make(measured, colours) for make in makers) if chart]


def temperature_chart(measured: GroupMetrics, colours: Colours) -> Chart | None:
    """Return the chart of accuracy by temperature, with greedy methods as horizontal lines; None for fewer than two
    temperatures."""
    runs = measured.group.runs
    lines: dict[str, list[int]] = {}
    for r in in_order(runs, measured.main_runs):
        lines.setdefault(runs[r].method, []).append(r)
    taus = sorted({t for r in measured.main_runs if (t := runs[r].temperature) is not None})
    if len(taus) < 2:
        return None
    series = [_line(measured, lines[method][::-1], method, colours, taus[0]) for method in lines]
    return Chart("Temperature", "sampling temperature τ", _measure(measured), tuple(series), tuple(taus))


def samples_chart(measured: GroupMetrics, colours: Colours) -> Chart | None:
    """Return the chart of accuracy by number of samples; None if no method was run with several numbers."""
    runs = measured.group.runs
    found = list(by_samples(measured).values())
    if not found:
        return None
    best = sorted(found, key=lambda line: (runs[line[0]].kind != "ours", -max(map(measured.merit, line))[0]))
    counts = sorted({runs[r].samples for line in found for r in line})
    taus = sorted({runs[line[0]].temperature or 0.0 for line in found})
    series = []
    for line in best[:MOST_LINES]:
        places = [float(counts.index(runs[r].samples)) for r in line]
        one = _line(measured, line, label(runs[line[0]]), colours, 0.0, places)
        # Many bands would hide the lines; the intervals are in the details of each point, too.
        few = len(best) <= MOST_BANDS
        series.append(replace(one, ends=one.ends if few else (), dash=taus.index(runs[line[0]].temperature or 0.0)))
    if measured.reference is not None:
        series.append(_line(measured, [measured.reference], runs[measured.reference].method, colours, 0.0))
    # The x axis is ordinal, since accuracy changes most at the smallest numbers of samples.
    note = "The numbers of samples are evenly spaced, not to scale." if len(counts) > 2 else ""
    ticks, names = tuple(map(float, range(len(counts)))), tuple(map(str, counts))
    return Chart("Number of samples", "samples N", _measure(measured), tuple(series), ticks, note=note, x_names=names)


def reliability_chart(measured: GroupMetrics, colours: Colours) -> Chart | None:
    """Return the chart of the share of right boxes by published score; None without scores."""
    series = []
    for r in _scored(measured):
        found = measured.calibration(r)
        if found:
            run = measured.group.runs[r]
            points = tuple((b.stated, b.right) for b in found.bins)
            details = tuple(f"{b.count} boxes" for b in found.bins)
            series.append(Series(label(run), points, (), colours[run.method], True, details=details))
    if not series:
        return None
    ticks = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    note = "On the dotted line, score and share of right boxes are equal. One point per tenth of the scale with boxes."
    return Chart(
        "Reliability", "published score", "share of right boxes", tuple(series), ticks, (0.0, 1.0), True, note=note
    )


def abstention_chart(measured: GroupMetrics, colours: Colours) -> Chart | None:
    """Return the chart of the accuracy of the kept predictions by the share that is kept; None without scores."""
    series = []
    for r in _scored(measured):
        curve = measured.risk_coverage(r)
        if curve:
            run = measured.group.runs[r]
            step = max(1, len(curve.coverage) // 80)
            kept = [*range(0, len(curve.coverage) - 1, step), len(curve.coverage) - 1]
            # Below 5 % coverage the accuracy comes from too few predictions.
            kept = [k for k in kept if curve.coverage[k] >= 0.05] or kept[-1:]
            points = tuple((100 * float(curve.coverage[k]), 100 * float(curve.accuracy[k])) for k in kept)
            series.append(Series(label(run), points, (), colours[run.method], True))
    if not series:
        return None
    note = "To the left, only the answers with the highest scores are kept. Answers without a box come last, as wrong."
    return Chart(
        "Abstention", "answers kept, %", "accuracy of the kept, %", tuple(series), (0, 20, 40, 60, 80, 100), note=note
    )


def entropy_charts(evaluation: Evaluation) -> list[Chart]:
    """Return one chart of attention entropy by layer for each coordinate, with one line per IoU group (paper figures 4
    and 10)."""
    by_coordinate: dict[str, list[EntropyProfile]] = {}
    for profile in evaluation.entropy:
        if profile.by_layer:
            by_coordinate.setdefault(profile.coordinate, []).append(profile)
    shaded = tuple((layer - 0.5, layer + 0.5) for layer in evaluation.critical_layers)
    values = [v for profile in evaluation.entropy for v in profile.by_layer]
    bounds = (min(values), max(values)) if values and max(values) > min(values) else None
    charts = []
    for coordinate, profiles in by_coordinate.items():
        series = []
        for i, p in enumerate(profiles):
            points = tuple((float(k), v) for k, v in enumerate(p.by_layer))
            series.append(Series(p.iou_group, points, (), i, True, details=(f"{p.count} boxes",) * len(points)))
        note = "Shaded: the layers that matter for the regressor." if shaded else ""
        charts.append(
            Chart(
                f"Attention entropy, {coordinate}",
                "layer",
                "nats",
                tuple(series),
                bounds=bounds,
                shaded=shaded,
                note=note,
            )
        )
    return charts


def _scored(measured: GroupMetrics) -> list[int]:
    return [r for r in measured.highlights if r != measured.reference or len(measured.highlights) == 1]


def _measure(measured: GroupMetrics) -> str:
    return "Acc@0.5, %" if measured.outcomes.single else "F1, %"


def _line(
    measured: GroupMetrics, runs: Sequence[int], name: str, colours: Colours, least: float, places: Sequence[float] = ()
) -> Series:
    """Return the series of ``runs`` over temperature or, if given, ``places``; a run without temperature is level."""
    first: Run = measured.group.runs[runs[0]]
    level = first.temperature is None
    values = [measured.scores[r].accuracy if measured.outcomes.single else measured.scores[r].f1 for r in runs]
    xs = places or [least if (t := measured.group.runs[r].temperature) is None else t for r in runs]
    points = tuple((float(x), 100 * v.value) for x, v in zip(xs, values, strict=True))
    strong = first.kind == "ours"
    ends = tuple((100 * v.low, 100 * v.high) for v in values) if strong else ()
    details = tuple(f"95 % interval {100 * v.low:.1f} to {100 * v.high:.1f}" for v in values)
    return Series(name, points, ends, colours[first.method], strong, level, details)
