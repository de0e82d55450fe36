"""The steps behind a collection, each from files to files: fit, analyse, calibrate. ``build`` is all in a row."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from acs_core.assets import calibration_file
from acs_core.geometry import Box
from acs_core.heads import HeadFile
from acs_core.joint import save_joint
from acs_core.regressor import AttentionIoURegressor, save_regressor
from acs_core.selection import Selector
from training import figures
from training.agreements import agreements, in_words, row
from training.analyze import Analysis, AnalysisConfig, analyze, head_file
from training.calibrate import Reliability, calibrate
from training.errors import DataError
from training.fit import FitConfig, FitResult, Progress, fit, predict
from training.fit_joint import JointConfig, Prepared, fit_joint, judged
from training.made_files import (
    ANALYSIS,
    CALIBRATION,
    FIT,
    HEADS,
    JOINT,
    REGRESSOR,
    check_same_model,
    identity_of,
)
from training.metrics import agreement
from training.offline_choice import Call
from training.pairs import Pair
from training.store import Collection

Say = Callable[[str], None]


def fit_step(
    data: Collection,
    out: Path,
    config: FitConfig,
    made_by: str,
    evaluate: Mapping[str, Collection] | None = None,
    work: Path | None = None,
    say: Say = print,
    progress: Progress = lambda epoch, loss, held: None,
    device: str = "auto",
    workers: int = 0,
    reading: Callable[[int, int], None] = lambda done, total: None,
) -> FitResult:
    """Writes the regressor, the joint quality, ``fit.json`` and its figures into ``out``. ``evaluate`` names further
    collections to judge both on (other temperatures, table 3); their candidates from images that were trained on are
    left out. ``reading`` tells how far the maps are read for the joint quality.

    Raises:
        DataError: see :func:`training.fit.fit`; or a collection of another model.
    """
    for name, other in (evaluate or {}).items():
        check_same_model(other, name, identity_of(data), "the collection to fit")
    fitted = fit(data, config, work, progress, device, workers)
    size = int(data.maps.shape[-2]), int(data.maps.shape[-1])
    out.mkdir(parents=True, exist_ok=True)
    save_regressor(out / REGRESSOR, fitted.regressor, identity_of(data), size, made_by)
    rows = agreements(fitted.predicted, fitted.validation, data)
    for name, other in (evaluate or {}).items():
        index = _unseen(name, fitted, data, other)
        told = agreement(predict(fitted.regressor, other, index), other.iou[index])
        rows.append(row(name, other.manifest.get("temperature"), "all", told))
    for line in rows:
        say(in_words(line))
    joint_config = JointConfig(seed=config.seed)
    joint = joint_step(data, fitted, out, joint_config, made_by, evaluate, reading)
    for line in joint:
        say(f"joint quality, {in_words(line)}")
    content = {
        "config": asdict(config),
        "epochs": fitted.epochs,
        "best_epoch": fitted.best_epoch,
        "candidates": {"train": len(fitted.train), "validation": len(fitted.validation)},
        "held_images": np.unique(data.image[fitted.validation]).tolist(),
        "agreement": rows,
        "joint": {"config": asdict(joint_config), "agreement": joint},
        "history": list(fitted.history),
    }
    (out / FIT).write_text(json.dumps(content, indent=1) + "\n")
    figures.learning_curves(fitted, out / "figures" / "learning_curves.png")
    title = f"held-out images, Pearson r {fitted.held.pearson:.3f}, MAE {fitted.held.mae:.3f}"
    figures.scatter(fitted.predicted, data.iou[fitted.validation], title, out / "figures" / "predicted_iou.png")
    return fitted


def joint_step(
    data: Collection,
    fitted: FitResult,
    out: Path,
    config: JointConfig,
    made_by: str,
    evaluate: Mapping[str, Collection] | None = None,
    reading: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Writes the joint quality into ``out``, fitted to the images that the regressor was fitted to; how well it does on
    the others and on those of ``evaluate``, as rows of ``fit.json``.

    Raises:
        DataError: see :func:`training.fit_joint.fit_joint`.
    """
    made = fit_joint(data, fitted.train, fitted.validation, identity_of(data), made_by, config, reading)
    save_joint(out / JOINT, made.quality)
    rows = agreements(made.predicted, fitted.validation, data)
    temperature = data.manifest.get("temperature")
    rows += [row(f"held-out images, {n} responses", temperature, "all", a) for n, a in made.held_by_count.items()]
    for name, other in (evaluate or {}).items():
        told = judged(made.quality, Prepared.of(other), _unseen(name, fitted, data, other))
        rows.append(row(name, other.manifest.get("temperature"), "all", told))
    return rows


def analyze_step(
    data: Collection,
    regressor: AttentionIoURegressor,
    index: np.ndarray,
    out: Path,
    config: AnalysisConfig,
    made_by: str,
    pairs: Sequence[Pair] = (),
    say: Say = print,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Analysis, HeadFile]:
    """Writes the head file, ``analysis.json`` and the figures of the candidates ``index`` into ``out``. With the
    ``pairs`` of the collection it also draws attention over two pictures.

    Raises:
        DataError: see :func:`training.analyze.analyze`.
    """
    analysis = analyze(regressor, data, index, config, progress)
    heads = head_file(analysis, identity_of(data), made_by, config)
    out.mkdir(parents=True, exist_ok=True)
    heads.save(out / HEADS)
    (out / ANALYSIS).write_text(json.dumps(analysis.to_dict(config), indent=1) + "\n")
    drawn = out / "figures"
    figures.layer_importance(analysis, drawn / "layer_importance.png")
    figures.entropy_by_layer(analysis, config, drawn / "entropy_by_layer.png")
    figures.head_heat_map(analysis, config, drawn / "entropy_gap.png")
    _draw_examples(data, index, {p.key: p for p in pairs}, drawn)
    say(f"layers, the most important first: {', '.join(map(str, analysis.layer_ranking))}")
    sizes = "/".join(map(str, analysis.group_sizes))
    say(f"critical layers {', '.join(map(str, heads.layers))}; IoU groups high/low/zero {sizes}")
    share = analysis.chosen_share if config.restrict else analysis.chosen_share_anywhere
    for name, c in (("x1", 0), ("y1", 1), ("x2", 2), ("y2", 3)):
        told = (f"{h.layer}.{h.head} ({share[c, h.layer, h.head]:.0%})" for h in heads.heads[c])
        say(f"heads for {name}, layer.head (chosen in so many of {config.draws} draws): {', '.join(told)}")
    return analysis, heads


def calibrate_step(
    data: Collection,
    selectors: Sequence[Selector],
    out: Path,
    made_by: str,
    say: Say = print,
    looked_again: Mapping[str, Sequence[Call]] | None = None,
) -> dict[str, Reliability]:
    """Writes a calibration for each selector, ``calibration.json`` and the reliability diagrams into ``out``; where
    ``looked_again`` has a selector's answers with a second look, also one for those.

    Raises:
        DataError: see :func:`training.calibrate.calibrate`.
    """
    identity, told, content = identity_of(data), {}, {}
    again = looked_again or {}
    out.mkdir(parents=True, exist_ok=True)
    for selector, found in [(s, None) for s in selectors] + [(s, again[s.name]) for s in selectors if s.name in again]:
        second = found is not None
        name = selector.name + (", second look" if second else "")
        origin = made_by + (", with a second look" if second else "")
        curve, held = calibrate(selector, data, identity, origin, looked_again=found)
        file = calibration_file(selector.name, second)
        curve.save(out / file)
        title = f"{name}, tau = {data.manifest.get('temperature')}"
        figure = file.replace("calibration", "reliability", 1).replace(".json", ".png")
        figures.reliability_diagram(held, title, out / "figures" / figure)
        told[name] = held
        content[name] = {
            "answered": len(held.hit),
            "unanswered": held.unanswered,
            "right": round(float(held.hit.mean()), 4),
            "expected_calibration_error": round(held.error, 4),
            "expected_iou_error": round(held.expected_iou_error, 4),
            "working_points": [asdict(p) for p in curve.working_points],
        }
        say(
            f"calibration of {name} from {curve.num_samples} answers: expected calibration error "
            f"{held.error:.3f} on images it was not fitted on"
        )
        for p in curve.working_points:
            say(f"  min_score {p.min_score:.2f}: precision {p.precision:.2f}, {p.kept:.0%} of the answers kept")
    (out / CALIBRATION).write_text(json.dumps(content, indent=1) + "\n")
    return told


def _unseen(name: str, fitted: FitResult, data: Collection, other: Collection) -> np.ndarray:
    """The candidates of ``other`` whose images were not trained on."""
    index = np.arange(len(other.iou))
    if other.manifest.get("data") == data.manifest.get("data"):
        index = np.flatnonzero(~np.isin(other.image, data.image[fitted.train]))
    if not len(index):
        raise DataError(f"all images of {name} were trained on: evaluate on other ones")
    return index


def _draw_examples(data: Collection, index: np.ndarray, pairs: Mapping[str, Pair], folder: Path) -> None:
    """Attention over a picture with a good box and over one with a bad one, if the pictures can be read."""
    keys = data.manifest.get("pairs", [])
    order = index[np.argsort(-data.iou[index], kind="stable")]
    for name, i in (("good", order[0]), ("bad", order[-1])):
        pair = pairs.get(keys[data.pair[i]]) if data.pair[i] < len(keys) else None
        if pair is None:
            continue
        box, title = Box(*data.box[i]), f'"{pair.category}", IoU {data.iou[i]:.2f}: mean attention of each layer'
        maps = data.maps[np.array([i])][0]
        figures.attention_over_picture(pair.read(), maps, box, pair.truth, title, folder / f"attention-{name}.png")
