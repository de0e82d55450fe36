"""How good an embedded model and its selectors are, on pictures of the test split, through the engine itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from acs_core.assets import asset_for
from acs_core.calibration import Calibration
from acs_core.lvlm.base import LVLM
from acs_core.selection import Selector
from training.calibrate import calibration_error
from training.coco import Pair
from training.collect import CollectConfig, collect
from training.offline_choice import choose_offline
from training.store import read_store


@dataclass(frozen=True)
class Row:
    """One line of the table: Acc@0.5 and mIoU in percent; ``calibration_error`` in percent is the mean gap between the
    published probability of IoU >= 0.5 and its observed share (None where no probability is published)."""

    method: str
    accuracy: float
    miou: float
    calibration_error: float | None = None


def tiny_report(
    lvlm: LVLM,
    pairs: Sequence[Pair],
    selectors: Sequence[Selector],
    work: Path,
    temperature: float = 1.0,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> tuple[Row, ...]:
    """Greedy, every selector on the same ten samples, and the best of the ten as the bound. Answers are kept in
    ``work``, so that a stopped evaluation goes on."""
    config = CollectConfig(greedy=True, seed=seed)
    collect(lvlm, pairs, work / "greedy", config, lambda d, t: progress("greedy", d, t))
    sampled = replace(config, greedy=False, temperature=temperature)
    collect(lvlm, pairs, work / "samples", sampled, lambda d, t: progress("samples", d, t))
    first, data = read_store(work / "greedy"), read_store(work / "samples")
    rows = []
    for selector in selectors:
        chosen = choose_offline(selector, first if selector.greedy_decoding else data)
        curve = asset_for(lvlm, f"calibration-{selector.name}.json")
        error = None
        if curve is not None:
            known = np.isfinite(chosen.confidence)
            stated = Calibration.load(curve).apply(chosen.confidence[known])
            error = 100 * calibration_error(stated, chosen.iou[known] >= 0.5)
        rows.append(_row(selector.name, chosen.iou, error))
    rows.append(_row("best of N", choose_offline(selectors[0], data).oracle))
    return tuple(rows)


def _row(method: str, iou: np.ndarray, error: float | None = None) -> Row:
    return Row(method, 100 * float((iou >= 0.5).mean()), 100 * float(iou.mean()), error)
