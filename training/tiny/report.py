"""How good an embedded model and its selectors are, on pictures of the test split, through the engine itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.optimize import linear_sum_assignment

from acs_core.assets import asset_for
from acs_core.calibration import Calibration
from acs_core.candidates import ABSENT, CUT_OFF, EMPTY, UNPARSEABLE
from acs_core.geometry import Box, iou_matrix
from acs_core.grounder import Grounder
from acs_core.lvlm.base import LVLM
from acs_core.overlay import draw_result
from acs_core.sampling import greedy
from acs_core.selection import Selector
from acs_core.types import ScoreKind
from training.calibrate import calibration_error
from training.collect import collect
from training.collect_job import CollectConfig
from training.errors import DataError
from training.offline_choice import choose_offline, drawn_by_auto
from training.pairs import Pair
from training.store import Collection, read_responses, read_store

TIMED_ANSWERS = 20


@dataclass(frozen=True)
class Row:
    """One line of the table: Acc@0.5 and mIoU in percent; ``calibration_error`` in percent is the mean gap between the
    published probability of IoU >= 0.5 and its observed share (None where no probability is published); ``samples`` is
    how many responses it took on average."""

    method: str
    accuracy: float
    miou: float
    calibration_error: float | None = None
    samples: float = 1.0


@dataclass(frozen=True)
class TinyReport:
    """``cases`` objects that are there and ``absent`` that are not were asked for, samples drawn at ``temperature``.
    ``unparseable`` percent of all answers about objects that are there, greedy and sampled, hold neither a box nor
    ``[]``; ``refused`` percent of the greedy answers about objects that are not there say so. Asked for ``several``
    categories of which a picture shows two or more, ``recall`` percent of the objects are among the greedily answered
    boxes with IoU >= 0.5, ``precision`` percent of the boxes are such (no object has two boxes, nor a box two objects).
    ``answer_ms`` is the median time of a greedy answer on one CPU thread, from the picture to the tokens."""

    model: str
    cases: int
    absent: int
    several: int
    temperature: float
    rows: tuple[Row, ...]
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
    temperature: float = 1.0,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> TinyReport:
    """Greedy, every selector on the same ten samples of ``pairs``, and the best of the ten as the bound; greedy answers
    about ``absent``, which no picture shows, and ``several``, each of which has two or more true boxes. Answers are
    kept in ``work``, so that a stopped evaluation goes on.

    Raises:
        DataError: a picture cannot be read.
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
    few = drawn_by_auto(data, read_responses(work / "samples"), config.samples)
    for selector in selectors:
        rows.append(_row_of(lvlm, selector, first if selector.greedy_decoding else data, config.samples))
        if selector.score_kind is not ScoreKind.NONE:
            chosen = choose_offline(selector, data, few)
            rows.append(_row(f"{selector.name}, auto", chosen.iou, samples=float(few.mean())))
    rows.append(_row("best of N", choose_offline(selectors[0], data).oracle, samples=config.samples))
    problems = [r["problem"] for name in ("greedy", "samples") for r in read_responses(work / name)]
    refused = [r["problem"] == ABSENT for r in read_responses(work / "absent")]
    listed = read_store(work / "several", may_be_empty=True)
    found = sum(count_found(listed.box[listed.pair == i], pair.truth) for i, pair in enumerate(several))
    return TinyReport(
        lvlm.name,
        len(pairs),
        len(absent),
        len(several),
        temperature,
        tuple(rows),
        100 * float(np.mean([p in (UNPARSEABLE, EMPTY, CUT_OFF) for p in problems])),
        100 * float(np.mean(refused)),
        100 * found / max(1, len(listed.box)),
        100 * found / sum(len(pair.truth) for pair in several),
        _answer_ms(lvlm, pairs[:TIMED_ANSWERS], config.max_new_tokens),
    )


def count_found(boxes: np.ndarray, truth: Sequence[Box]) -> int:
    """How many of ``truth`` have a box of their own among ``boxes`` (M, 4) with IoU >= 0.5."""
    good = iou_matrix(boxes, np.array([t.as_tuple() for t in truth])) >= 0.5  # (M, N)
    return int(good[linear_sum_assignment(good, maximize=True)].sum())


def write_report(report: TinyReport, file: Path) -> None:
    """The report as JSON."""
    file.write_text(json.dumps(asdict(report), indent=2) + "\n")


def draw_scenes(model: str, pairs: Sequence[Pair], folder: Path) -> None:
    """One PNG a pair in ``folder``: the truth, the chosen box and every candidate of acs-free."""
    folder.mkdir(parents=True, exist_ok=True)
    grounder = Grounder.from_pretrained(model, selector="acs-free", device="cpu")
    for pair in pairs:
        image = pair.read()
        drawn = draw_result(image, grounder.ground(image, pair.category), pair.truth)
        file = folder / f"{pair.image_id:06d}_{pair.category.replace(' ', '_')}.png"
        Image.fromarray(drawn).save(file)


def _row_of(lvlm: LVLM, selector: Selector, data: Collection, samples: int) -> Row:
    chosen = choose_offline(selector, data)
    curve = asset_for(lvlm, f"calibration-{selector.name}.json")
    error = None
    if curve is not None:
        known = np.isfinite(chosen.confidence)
        stated = Calibration.load(curve).apply(chosen.confidence[known])
        error = 100 * calibration_error(stated, chosen.iou[known] >= 0.5)
    return _row(selector.name, chosen.iou, error, 1.0 if selector.greedy_decoding else samples)


def _row(method: str, iou: np.ndarray, error: float | None = None, samples: float = 1.0) -> Row:
    return Row(method, 100 * float((iou >= 0.5).mean()), 100 * float(iou.mean()), error, samples)


def _answer_ms(lvlm: LVLM, pairs: Sequence[Pair], max_new_tokens: int) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    try:
        for pair in (pairs[0], *pairs):  # the first one warms up
            image = pair.read()
            start = time.perf_counter()
            greedy(lvlm, lvlm.prepare(image, pair.category), max_new_tokens)
            times.append(1000 * (time.perf_counter() - start))
    finally:
        torch.set_num_threads(threads)
    return float(np.median(times[1:]))
