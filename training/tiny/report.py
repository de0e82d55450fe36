"""Accuracy of an embedded model and of the selectors on rendered images, measured through the engine itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from acs_core.artifacts.calibration import Calibration
from acs_core.artifacts.registry import asset_for
from acs_core.generation.sample import greedy_response
from acs_core.geometry import Box, iou_matrix
from acs_core.grounder import Grounder
from acs_core.lvlm.base import LVLM
from acs_core.output import write_json, write_picture
from acs_core.overlay import draw_result
from acs_core.selection.registry import FirstResponse, Selector, VerbalConfidence
from acs_core.types import ABSENT, CUT_OFF, ECHO, EMPTY, UNPARSEABLE, ScoreKind
from training.collection.collect import collect
from training.collection.offline_selection import Call, Choices, calls, choices_of, choose_offline, drawn_by_auto
from training.collection.regime import Regime, regime_of, right_object_rate, split_questions
from training.collection.store import Collection, read_responses, read_store
from training.data.pairs import Pair
from training.errors import DataError
from training.fitting.calibrate import calibration_error
from training.settings import CollectConfig

TIMED_ANSWERS = 20


@dataclass(frozen=True)
class AccuracyRow:
    """One row of the table.

    Attributes:
        method: name of the method.
        accuracy: Acc@0.5 in percent.
        miou: mIoU in percent.
        calibration_error: expected calibration error of the published probability of IoU >= 0.5, in percent; None if
            none is published.
        samples: mean number of responses per question.
        right_object: percentage of the questions whose samples differ in the object in which the chosen box lies on
            the true one; None if there is no such question, or for a greedy response.
    """

    method: str
    accuracy: float
    miou: float
    calibration_error: float | None = None
    samples: float = 1.0
    right_object: float | None = None


@dataclass(frozen=True)
class TinyReport:
    """Evaluation of an embedded model.

    Attributes:
        model: name of the model.
        cases: number of questions about present objects.
        absent: number of questions about absent objects.
        several: number of questions about categories with two or more objects in the image.
        temperature: sampling temperature.
        rows: accuracy of each method.
        regime: how the samples err.
        unparseable: percentage of all answers about present objects, greedy and sampled, that hold neither a box nor
            ``[]``.
        refused: percentage of the greedy answers about absent objects that state their absence.
        precision: percentage of the greedy boxes of the ``several`` questions that match an object with IoU >= 0.5, one
            to one.
        recall: percentage of the objects of the ``several`` questions that match a greedy box with IoU >= 0.5, one to
            one.
        answer_ms: median time of a greedy answer on one CPU thread in milliseconds, from the image to the tokens.
    """

    model: str
    cases: int
    absent: int
    several: int
    temperature: float
    rows: tuple[AccuracyRow, ...]
    regime: Regime
    unparseable: float
    refused: float
    precision: float
    recall: float
    answer_ms: float


def tiny_report(
    lvlm: LVLM,
    pairs: Sequence[Pair],
    absent: Sequence[Pair],
    several: Sequence[Pair],
    selectors: Sequence[Selector],
    work: Path,
    temperature: float = CollectConfig.temperature,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> TinyReport:
    """Evaluate greedy decoding, every selector on the same ten samples, and the best of the ten as the bound.

    Args:
        lvlm: the model.
        pairs: pairs with one object.
        absent: pairs whose category is absent; answered greedily.
        several: pairs with two or more objects; answered greedily.
        selectors: selectors to compare.
        work: folder of the collections, which are kept so that a stopped evaluation resumes.
        temperature: sampling temperature.
        seed: seed of the samples.
        progress: called with (stage, done, total).

    Raises:
        DataError: an image cannot be read.
    """
    sizes = [s.needs.map_size for s in selectors if s.needs.map_size]
    config = CollectConfig(greedy=True, seed=seed, map_size=sizes[0] if sizes else None)

    def ask(name: str, asked: Sequence[Pair], settings: CollectConfig) -> None:
        skipped = collect(lvlm, asked, work / name, settings, lambda d, t: progress(name, d, t)).skipped
        if skipped:
            raise DataError(f"{len(skipped)} of {len(asked)} questions could not be asked; the first: {skipped[0]}")

    ask("greedy", pairs, config)
    ask("absent", absent, config)
    ask("several", several, config)
    ask("samples", pairs, replace(config, greedy=False, temperature=temperature))
    first, data = (read_store(work / name, may_be_empty=True) for name in ("greedy", "samples"))
    rows = []
    answers = {name: read_responses(work / name) for name in ("greedy", "samples", "absent")}
    split = split_questions(data)
    few = drawn_by_auto(data, answers["samples"], config.samples)
    for selector in selectors:
        if isinstance(selector, VerbalConfidence):  # embedded models state none
            continue
        name, asked = ("greedy", first) if selector.greedy_decoding else ("samples", data)
        chosen = _choices(selector, asked, answers[name])
        row = _row_of(lvlm, selector, chosen, config.samples)
        rows.append(row if asked is first else replace(row, right_object=right_object_rate(chosen, split)))
        if selector.score_kind is not ScoreKind.NONE:
            chosen = _choices(selector, data, answers["samples"], few)
            rows.append(_row(f"{selector.name}, auto", chosen.iou, samples=float(few.mean())))
    oracle = choose_offline(FirstResponse("first-valid", greedy_decoding=False), data).oracle
    rows.append(_row("best of N", oracle, samples=config.samples))
    problems = [r["problem"] for name in ("greedy", "samples") for r in answers[name]]
    refused = [r["problem"] == ABSENT for r in answers["absent"]]
    listed = read_store(work / "several", may_be_empty=True)
    found = sum(count_found(listed.box[listed.pair == i], pair.truth) for i, pair in enumerate(several))
    return TinyReport(
        lvlm.name,
        len(pairs),
        len(absent),
        len(several),
        temperature,
        tuple(rows),
        regime_of(data),
        100 * float(np.mean([p in (UNPARSEABLE, EMPTY, CUT_OFF, ECHO) for p in problems])),
        100 * float(np.mean(refused)),
        100 * found / max(1, len(listed.box)),
        100 * found / sum(len(pair.truth) for pair in several),
        _answer_ms(lvlm, pairs[:TIMED_ANSWERS], config.max_new_tokens),
    )


def count_found(boxes: np.ndarray, truth: Sequence[Box]) -> int:
    """Return the maximum number of boxes of ``truth`` that can be matched one to one with ``boxes`` (M, 4) at IoU >=
    0.5."""
    good = iou_matrix(boxes, np.array([t.as_tuple() for t in truth])) >= 0.5  # (M, N)
    return int(good[linear_sum_assignment(good, maximize=True)].sum())


def write_report(report: TinyReport, file: Path) -> None:
    """Write the report as JSON."""
    write_json(file, asdict(report), "acs-train tiny-eval")


def draw_scenes(model: str, pairs: Sequence[Pair], folder: Path) -> None:
    """Write one PNG per pair into ``folder``: the true box, the chosen box and every candidate of acs-free."""
    grounder = Grounder.from_pretrained(model, selector="acs-free", device="cpu")
    for pair in pairs:
        image = pair.read()
        drawn = draw_result(image, grounder.ground(image, pair.category), pair.truth)
        file = folder / f"{pair.image_id:06d}_{pair.category.replace(' ', '_')}.png"
        write_picture(file, drawn, "acs-train tiny-eval")


def _choices(
    selector: Selector, data: Collection, answers: Sequence[Mapping[str, Any]], drawn: np.ndarray | None = None
) -> Choices:
    """Return the choices of ``selector`` in ``data``, whose responses are ``answers``; with ``drawn`` (P,), only from
    the first ``drawn`` responses of each pair."""
    found: Iterable[Call] = calls(data, selector.needs.maps, answers)
    if drawn is not None:
        found = (call.first(int(count)) for call, count in zip(found, drawn, strict=True))
    return choices_of(selector, found, data)


def _row_of(lvlm: LVLM, selector: Selector, chosen: Choices, samples: int) -> AccuracyRow:
    curve = asset_for(lvlm, f"calibration-{selector.name}.json")
    error = None
    if curve is not None:
        known = np.isfinite(chosen.confidence)
        stated = Calibration.load(curve).apply(chosen.confidence[known])
        error = 100 * calibration_error(stated, chosen.iou[known] >= 0.5)
    alone = isinstance(selector, FirstResponse) and (selector.greedy_decoding or selector.first_response_only)
    return _row(selector.name, chosen.iou, error, 1.0 if alone else samples)


def _row(method: str, iou: np.ndarray, error: float | None = None, samples: float = 1.0) -> AccuracyRow:
    return AccuracyRow(method, 100 * float((iou >= 0.5).mean()), 100 * float(iou.mean()), error, samples)


def _answer_ms(lvlm: LVLM, pairs: Sequence[Pair], max_new_tokens: int) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    try:
        for pair in (pairs[0], *pairs):  # the first one warms up
            image = pair.read()
            start = time.perf_counter()
            greedy_response(lvlm, lvlm.prepare(image, pair.category), max_new_tokens)
            times.append(1000 * (time.perf_counter() - start))
    finally:
        torch.set_num_threads(threads)
    return float(np.median(times[1:]))
