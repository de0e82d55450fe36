"""Steps that follow a collection, each from files to files: fit, analyse, calibrate. :mod:`training.fitting.build` runs
them all.

Each kind of file that selectors read (:class:`acs_core.selection.base.ArtifactKind`) is made by a :class:`FittingStep`.
A new one is a module of its own in this package, with its step as one entry of ``STEPS`` in
:mod:`training.fitting.build`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger

from acs_core.artifacts.heads import HeadFile
from acs_core.artifacts.registry import calibration_file
from acs_core.artifacts.sealed import seal
from acs_core.artifacts.table_1 import compare_readings, describe, supported_reading
from acs_core.geometry import Box
from acs_core.selection.acs_free import HEADS as HEADS_KIND
from acs_core.selection.base import ArtifactKind
from acs_core.selection.box_regressor import BOX_REGRESSOR
from acs_core.selection.joint_model import JOINT_MODEL, save_joint
from acs_core.selection.registry import Selector
from acs_core.selection.regressor import REGRESSOR as REGRESSOR_KIND
from acs_core.selection.regressor import AttentionIoURegressor, save_regressor
from training.collection.offline_selection import Call
from training.collection.store import Collection
from training.data.pairs import Pair
from training.fitting import figures
from training.fitting.analyze import Analysis, AnalysisConfig, analyze, head_file
from training.fitting.artifacts import (
    ANALYSIS,
    BOX,
    CALIBRATION,
    FIT,
    HEADS,
    JOINT,
    REGRESSOR,
    check_same_model,
    identity_of,
)
from training.fitting.calibrate import MODEL_ANSWERS, Reliability, calibrate
from training.fitting.fit import FitConfig, FitResult, Progress, fit, predict, unseen
from training.fitting.fit_box import box_step
from training.fitting.fit_joint import JointConfig, Prepared, fit_joint, judged
from training.fitting.metrics import agreement, agreements, in_words, row
from training.fitting.read_ahead import prepare_maps
from training.settings import BuildConfig

Say = Callable[[str], None]
# Patterns of the file names that each step writes, relative to its folder.
FIT_FILES = (
    REGRESSOR,
    BOX,
    JOINT,
    FIT,
    *(f"figures/{name}{of}.png" for of in ("", "_box") for name in ("learning_curves", "predicted_iou")),
)
ANALYZE_FILES = (
    HEADS,
    ANALYSIS,
    *(f"figures/{n}.png" for n in ("layer_importance", "entropy_by_layer", "entropy_gap", "attention-*")),
)
CALIBRATE_FILES = ("calibration-*.json", CALIBRATION, "figures/reliability*.png")


@dataclass(frozen=True)
class FittingJob:
    """Input of a step of `acs-train build`.

    Attributes:
        data: the collection to fit to.
        fresh: the collection of the calibration images, which only calibrations are fitted to.
        pairs: pairs of ``data``, with their image files.
        config: all settings.
        made_by: origin of the files, for their metadata.
        work: folder for checkpoints.
        say: prints a line.
        progress: called with (stage, done, total).
        device: "auto", "cpu", "cuda" or "cuda:N".
        workers: number of threads that read maps ahead; None for as many as the CPUs allow.
        results: results of earlier steps, by name.
    """

    data: Collection
    fresh: Collection
    pairs: Sequence[Pair]
    config: BuildConfig
    made_by: str
    work: Path
    say: Say = print
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None
    device: str = "auto"
    workers: int | None = None
    results: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FittingStep:
    """Step of `acs-train build` that makes files for selectors.

    Attributes:
        name: key of the step's result in :attr:`FittingJob.results`.
        makes: kinds of file that the step writes.
        files: patterns of all file names that the step writes, relative to its folder.
        run: makes the files in the given folder, which holds only the files of earlier steps; returns the result for
            later steps.
    """

    name: str
    makes: tuple[ArtifactKind, ...]
    files: tuple[str, ...]
    run: Callable[[FittingJob, Path], Any]


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
    workers: int | None = None,
    state: Callable[[int, int], None] = lambda done, total: None,
    loggers: Sequence[Logger] = (),
    progress_of_box: Progress = lambda epoch, loss, held: None,
) -> FitResult[AttentionIoURegressor]:
    """Fit the regressor, the box regressor and the joint model, and write them, ``fit.json`` and its figures into
    ``out``.

    Args:
        data: the collection to fit to.
        out: folder to write into.
        config: settings of the two regressors.
        made_by: origin of the files, for their metadata.
        evaluate: further collections to measure the models on, by name (other temperatures, table 3); candidates of
            training images are left out.
        work: folder of checkpoints.
        say: prints a line.
        progress: called with (epoch, training loss, validation loss) of the regressor.
        device: as in :func:`training.fitting.fit.fit_network`.
        workers: number of threads that read maps ahead; None for as many as the CPUs allow.
        state: called with (done, total) while the maps are read for the joint model.
        loggers: loggers of Lightning that get the numbers of each epoch of the regressor.
        progress_of_box: called as ``progress``, for the box regressor.

    Returns:
        Result of the regressor's fit.

    Raises:
        DataError: see :func:`training.fitting.fit.fit_network`; or a collection of another model.
    """
    for name, other in (evaluate or {}).items():
        check_same_model(other, name, identity_of(data), "the collection to fit")
    say(prepare_maps(data.maps, workers))
    fitted = fit(data, config, work, progress, device, workers, loggers)
    size = int(data.maps.shape[-2]), int(data.maps.shape[-1])
    out.mkdir(parents=True, exist_ok=True)
    save_regressor(out / REGRESSOR, fitted.regressor, identity_of(data), size, made_by)
    rows = agreements(fitted.predicted, fitted.validation, data)
    for name, other in (evaluate or {}).items():
        index = unseen(name, fitted.train, data, other)
        told = agreement(predict(fitted.regressor, other, index), other.iou[index])
        rows.append(row(name, other.manifest.get("temperature"), "all", told))
    for line in rows:
        say(in_words(line))
    boxed = box_step(data, out, config, made_by, evaluate, work, say, progress_of_box, device, workers)
    joint_config = JointConfig(seed=config.seed)
    joint = joint_step(data, fitted, out, joint_config, made_by, evaluate, state)
    for line in joint:
        say(f"joint model, {in_words(line)}")
    content = {
        "config": asdict(config),
        "epochs": fitted.epochs,
        "best_epoch": fitted.best_epoch,
        "candidates": {"train": len(fitted.train), "validation": len(fitted.validation)},
        "held_images": np.unique(data.image[fitted.validation]).tolist(),
        "agreement": rows,
        "box": boxed.content,
        "joint": {"config": asdict(joint_config), "agreement": joint},
        "history": list(fitted.history),
    }
    (out / FIT).write_text(json.dumps(seal(content), indent=1) + "\n")
    _draw_fit(fitted, data, out / "figures")
    _draw_fit(boxed.fitted, data, out / "figures", "_box")
    return fitted


def joint_step(
    data: Collection,
    fitted: FitResult[Any],
    out: Path,
    config: JointConfig,
    made_by: str,
    evaluate: Mapping[str, Collection] | None = None,
    state: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Fit the joint model to the regressor's training images and write it into ``out``.

    Returns:
        Rows of ``fit.json`` with the agreement on the held-out images and on the collections of ``evaluate``.

    Raises:
        DataError: see :func:`training.fitting.fit_joint.fit_joint`.
    """
    made = fit_joint(data, fitted.train, fitted.validation, identity_of(data), made_by, config, state)
    save_joint(out / JOINT, made.quality)
    rows = agreements(made.predicted, fitted.validation, data)
    temperature = data.manifest.get("temperature")
    rows += [row(f"held-out images, {n} responses", temperature, "all", a) for n, a in made.held_by_count.items()]
    for name, other in (evaluate or {}).items():
        told = judged(made.quality, Prepared.of(other), unseen(name, fitted.train, data, other))
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
    """Analyse the candidates ``index`` and write the head file, ``analysis.json`` and figures into ``out``. If
    ``pairs`` holds the pairs of the collection, figures of attention over two images are drawn, too.

    Raises:
        DataError: see :func:`training.fitting.analyze.analyze`.
    """
    analysis = analyze(regressor, data, index, config, progress)
    heads = head_file(analysis, identity_of(data), made_by, config)
    out.mkdir(parents=True, exist_ok=True)
    heads.save(out / HEADS)
    readings = compare_readings(analysis.importance.mean(axis=(0, 2)), heads.identity)
    table_1 = {"readings": [asdict(reading) for reading in readings], "supported": supported_reading(readings)}
    (out / ANALYSIS).write_text(json.dumps(analysis.to_dict(config) | {"table_1": table_1}, indent=1) + "\n")
    drawn = out / "figures"
    figures.layer_importance(analysis, drawn / "layer_importance.png")
    figures.entropy_by_layer(analysis, config, drawn / "entropy_by_layer.png")
    figures.head_heat_map(analysis, config, drawn / "entropy_gap.png")
    _draw_examples(data, index, {p.key: p for p in pairs}, drawn)
    say(f"layers, the most important first: {', '.join(map(str, analysis.layer_ranking))}")
    sizes = "/".join(map(str, analysis.group_sizes))
    say(f"critical layers {', '.join(map(str, heads.layers))}; IoU groups high/low/zero {sizes}")
    for line in describe(readings, heads.identity):
        say(line)
    share = analysis.chosen_share if config.restrict else analysis.chosen_share_anywhere
    for name, c in (("x1", 0), ("y1", 1), ("x2", 2), ("y2", 3)):
        told = (f"{h.layer}.{h.head} ({share[c, h.layer, h.head]:.0%})" for h in heads.heads[c])
        say(f"heads for {name}, layer.head (chosen in so many of {config.draws} draws): {', '.join(told)}")
    return analysis, heads


def _run_fit(job: FittingJob, out: Path) -> FitResult[AttentionIoURegressor]:
    epochs = job.config.fit.epochs
    fitted = fit_step(
        job.data,
        out,
        job.config.fit,
        job.made_by,
        {"calibration images": job.fresh},
        job.work / "fit",
        job.say,
        lambda epoch, _, __: job.progress("fit", epoch, epochs),
        job.device,
        job.workers,
        state=lambda done, total: job.progress("read maps", done, total),
        progress_of_box=lambda epoch, _, __: job.progress("fit with the box", epoch, epochs),
    )
    for stage in ("fit", "fit with the box"):
        job.progress(stage, epochs, epochs)  # training may have stopped early
    return fitted


def _run_analyze(job: FittingJob, out: Path) -> tuple[Analysis, HeadFile]:
    fitted: FitResult[AttentionIoURegressor] = job.results[FIT_STEP.name]
    return analyze_step(
        job.data,
        fitted.regressor,
        fitted.validation,
        out,
        job.config.analysis,
        job.made_by,
        job.pairs,
        job.say,
        lambda done, total: job.progress("analyse", done, total),
    )


FIT_STEP = FittingStep("fit", (REGRESSOR_KIND, BOX_REGRESSOR, JOINT_MODEL), FIT_FILES, _run_fit)
ANALYZE_STEP = FittingStep("analyze", (HEADS_KIND,), ANALYZE_FILES, _run_analyze)


def calibrate_step(
    data: Collection,
    selectors: Sequence[Selector],
    out: Path,
    made_by: str,
    say: Say = print,
    looked_again: Mapping[str, Sequence[Call]] | None = None,
    answers: Sequence[Mapping[str, Any]] = (),
    presence: bool = False,
) -> dict[str, Reliability]:
    """Write a calibration for each selector, ``calibration.json`` and the reliability diagrams into ``out``. Selectors
    in ``looked_again``, which holds their calls with a second look, also get a calibration for these. ``answers`` are
    the responses of the collection, which tell the labels of the boxes. ``presence``: whether a presence probe is one
    more feature of the scores.

    Raises:
        DataError: see :func:`training.fitting.calibrate.calibrate`.
    """
    identity, told, content = identity_of(data), {}, {}
    again = looked_again or {}
    out.mkdir(parents=True, exist_ok=True)
    for selector, found in [(s, None) for s in selectors] + [(s, again[s.name]) for s in selectors if s.name in again]:
        second = found is not None
        name = selector.name + (", second look" if second else "")
        origin = made_by + (", with a second look" if second else "")
        curve, held = calibrate(
            selector, data, identity, origin, looked_again=found, answers=answers, presence=presence
        )
        if presence and curve.presence is None:
            say(
                f"{name}: no presence probe, since there is no score model to read it: one needs {MODEL_ANSWERS} "
                f"answers about several images, there are {curve.num_samples}"
            )
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
            "absent": curve.absent,
            "expected_calibration_error": round(held.error, 4),
            "auroc": _rounded(held.auroc),
            "auroc_of_confidence": _rounded(held.auroc_confidence),
            "auroc_of_all_questions": _rounded(held.auroc_all),
            "expected_iou_error": round(held.expected_iou_error, 4),
            "working_points": [asdict(p) for p in curve.working_points],
        }
        say(
            f"calibration of {name} from {curve.num_samples} answers to {curve.questions} questions, {curve.absent} "
            f"about absent objects: expected calibration error {held.error:.3f} on images it was not fitted on; AUROC "
            f"{in_figures(held.auroc)} (confidence alone {in_figures(held.auroc_confidence)}), over all questions "
            f"{in_figures(held.auroc_all)}"
        )
        for p in curve.working_points:
            least = math.ceil(1e4 * p.min_score) / 1e4  # rounded up: a lower one admits answers that were not counted
            say(
                f"  min_score {least:.4f}: precision {p.precision:.2f}, at least {p.wanted:.2f} with 95 % confidence; "
                f"{p.answers} answers kept, {p.kept:.0%}"
            )
    (out / CALIBRATION).write_text(json.dumps(content, indent=1) + "\n")
    return told


def in_figures(share: float | None) -> str:
    """Return a share in [0, 1] with three digits; "-" for None."""
    return "-" if share is None else f"{share:.3f}"


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)


def _draw_fit(fitted: FitResult[Any], data: Collection, folder: Path, suffix: str = "") -> None:
    """Draw the learning curves and the held-out predictions into ``folder``, under names with ``suffix``."""
    figures.learning_curves(fitted, folder / f"learning_curves{suffix}.png")
    title = f"held-out images, Pearson r {fitted.held.pearson:.3f}, MAE {fitted.held.mae:.3f}"
    figures.scatter(fitted.predicted, data.iou[fitted.validation], title, folder / f"predicted_iou{suffix}.png")


def _draw_examples(data: Collection, index: np.ndarray, pairs: Mapping[str, Pair], folder: Path) -> None:
    """Draw attention over the images of the best and the worst box, if they can be read."""
    keys = data.manifest.get("pairs", [])
    order = index[np.argsort(-data.iou[index], kind="stable")]
    for name, i in (("good", order[0]), ("bad", order[-1])):
        pair = pairs.get(keys[data.pair[i]]) if data.pair[i] < len(keys) else None
        if pair is None:
            continue
        box, title = Box(*data.box[i]), f'"{pair.category}", IoU {data.iou[i]:.2f}: mean attention of each layer'
        maps = data.maps[np.array([i])][0]
        figures.attention_over_picture(pair.read(), maps, box, pair.truth, title, folder / f"attention-{name}.png")
