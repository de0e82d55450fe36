"""Everything a new LVLM needs, in one go: collect, fit, analyse, calibrate, into one folder of files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from acs_core.assets import BUILT_FILE, BUILT_VERSION, model_names
from acs_core.heads import HeadFile
from acs_core.identity import weights_fingerprint
from acs_core.lvlm.base import LVLM
from acs_core.selection import AcsFree, AcsFusion, AcsJoint, AcsLearned, Selector
from training.analyze import Analysis, AnalysisConfig
from training.calibrate import Reliability
from training.card import write_card
from training.collect import PartRunner, collect
from training.collect_job import CollectConfig
from training.errors import DataError
from training.fit import FitConfig, FitResult
from training.made_files import read_joint
from training.pairs import Pair
from training.steps import analyze_step, calibrate_step, fit_step
from training.store import Collection, read_store

COCO_LAYOUTS = (  # annotations and pictures of the two sides, below the folder of --coco
    (("annotations/instances_train2017.json", "train2017"), ("annotations/instances_val2017.json", "val2017")),
    (("train/instances.json", "train/images"), ("val/instances.json", "val/images")),
    (("zhiyuan_objv2_train.json", "train"), ("zhiyuan_objv2_val.json", "val")),
    (("annotations/zhiyuan_objv2_train.json", "train"), ("annotations/zhiyuan_objv2_val.json", "val")),
)
Source = tuple[Path, Path | None]  # annotations, picture folder


@dataclass(frozen=True)
class BuildConfig:
    """``collect`` is for the training pairs (tau = 1.0, appendix A); the calibration pairs are sampled as at run
    time, with ``run_temperature``."""

    collect: CollectConfig = field(default_factory=CollectConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    analysis: AnalysisConfig = field(default_factory=AnalysisConfig)
    run_temperature: float = 0.5


@dataclass(frozen=True)
class BuildResult:
    """What was made, and how well it does on images that it was not made from."""

    fitted: FitResult
    analysis: Analysis
    heads: HeadFile
    reliability: dict[str, Reliability]


def find_coco(folder: Path) -> tuple[Source, Source]:
    """The training and the validation side of a data set: COCO 2017, Objects365 v2 or `acs-train synth`.

    Raises:
        DataError: ``folder`` has none of these layouts.
    """
    for layout in COCO_LAYOUTS:
        if all((folder / annotations).is_file() for annotations, _ in layout):
            train, val = ((folder / annotations, folder / images) for annotations, images in layout)
            return train, val
    wanted = "; ".join(f"{a[0]} and {b[0]}" for a, b in COCO_LAYOUTS[:3])
    raise DataError(
        f"{folder} is laid out neither as COCO, nor as Objects365, nor as `acs-train synth` writes it ({wanted}): name "
        "the files with --train and --calibration"
    )


def build(
    lvlm: LVLM,
    train: list[Pair],
    calibration: list[Pair],
    work: Path,
    out: Path,
    made_by: str,
    config: BuildConfig | None = None,
    say: Callable[[str], None] = print,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
    model: str = "",
    command: str = "acs-train build",
    sources: tuple[str, str] = ("", ""),
    run: PartRunner | None = None,
    device: str = "auto",
) -> BuildResult:
    """Writes regressor, joint quality, head file, calibrations, figures and a model card into ``out``. Collections and
    checkpoints are kept in ``work``, so that a second run resumes.

    ``model`` is what the folder's ``acs.json`` names, by default the model's own name; a folder that holds a model
    itself gets none. ``sources`` name the two annotation files.

    Raises:
        DataError: the pairs give too few candidates for one of the steps.
    """
    config = config or BuildConfig()
    weights = weights_fingerprint(lvlm)

    def collected(pairs: list[Pair], name: str, settings: CollectConfig, stage: str, source: str) -> Collection:
        report = collect(lvlm, pairs, work / name, settings, lambda d, t: progress(stage, d, t), weights, source, run)
        for problem in report.skipped[:10]:
            say(f"skipped {problem}")
        if len(report.skipped) > 10:
            say(f"skipped {len(report.skipped) - 10} more")
        return read_store(work / name)

    data = collected(train, "train", config.collect, "collect", sources[0])
    say(f"{len(data.iou)} candidates of {len(data.pairs)} pairs, mean IoU {data.iou.mean():.3f}")
    run_config = replace(config.collect, temperature=config.run_temperature, seed=config.collect.seed + 1_000_000)
    fresh = collected(calibration, "calibration", run_config, "collect for calibration", sources[1])
    fitted = fit_step(
        data,
        out,
        config.fit,
        made_by,
        {"calibration images": fresh},
        work / "fit",
        say,
        lambda epoch, _, __: progress("fit", epoch, config.fit.epochs),
        device,
        reading=lambda d, t: progress("read maps", d, t),
    )
    progress("fit", config.fit.epochs, config.fit.epochs)
    analysis, heads = analyze_step(
        data,
        fitted.regressor,
        fitted.validation,
        out,
        config.analysis,
        made_by,
        train,
        say,
        lambda d, t: progress("analyse", d, t),
    )
    size = int(data.maps.shape[-2]), int(data.maps.shape[-1])
    selectors: tuple[Selector, ...] = (
        AcsLearned(fitted.regressor, size),
        AcsFree(heads),
        AcsFusion(heads),
        AcsJoint(read_joint(out, data)),
    )
    told = calibrate_step(fresh, selectors, out, made_by, say)
    if not (out / "config.json").exists():
        name_model(out, model or lvlm.name, lvlm.revision)
    write_card(out, model or lvlm.name, made_by, command, data.manifest)
    return BuildResult(fitted, analysis, heads, told)


def name_model(out: Path, model: str, revision: str | None) -> None:
    """Writes ``acs.json``, which makes ``out`` a folder that ``Grounder.from_pretrained`` takes as a model."""
    if model not in model_names() and Path(model).is_dir():
        model = str(Path(model).resolve())
    content = {"schema_version": BUILT_VERSION, "model": model, "revision": revision}
    (out / BUILT_FILE).write_text(json.dumps(content, indent=1) + "\n")


def describe(config: BuildConfig, train: str, calibration: str) -> str:
    """How the files came about, for their metadata: data, sampling, thresholds. ``train`` and ``calibration`` name the
    pairs."""
    sampling, heads = config.collect, config.analysis
    layers = f"the {heads.layers} most important layers" if heads.layers else "the most important third of the layers"
    where = layers if heads.restrict else "all layers"
    return (
        f"acs-train build: collected and fitted on {train}, N={sampling.samples}, tau={sampling.temperature:g}; "
        f"{heads.heads} heads per coordinate of {where} by the entropy gap between IoU in (0, {heads.low_iou:g}] and "
        f"above {heads.high_iou:g} on held-out images; calibrated on {calibration} at tau={config.run_temperature:g}"
    )
