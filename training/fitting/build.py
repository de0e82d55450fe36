"""All files for a new LVLM: collect, fit, analyse and calibrate into one folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from acs_core.artifacts.built import BUILT_FILE, built_content
from acs_core.artifacts.heads import HeadFile
from acs_core.artifacts.identity import weights_fingerprint
from acs_core.artifacts.registry import model_names
from acs_core.lvlm.base import LVLM
from acs_core.lvlm.picture import PictureOptions
from training.collection.collect import PartRunner, collect
from training.collection.store import Collection, read_responses, read_store
from training.data.pairs import Pair
from training.errors import DataError
from training.fitting.analyze import Analysis
from training.fitting.artifacts import card_name, files_folder, made_selectors, work_folder
from training.fitting.box_layers import BOX_LAYERS_STEP
from training.fitting.calibrate import Reliability
from training.fitting.card import model_card
from training.fitting.fit import FitResult
from training.fitting.steps import (
    ANALYZE_STEP,
    CALIBRATE_FILES,
    FIT_STEP,
    FittingJob,
    FittingStep,
    calibrate_step,
)
from training.settings import RUN_FILE, BuildConfig, CollectConfig

COCO_LAYOUTS = (  # (annotations, images) of training and validation, relative to the folder of --coco
    (("annotations/instances_train2017.json", "train2017"), ("annotations/instances_val2017.json", "val2017")),
    (("train/instances.json", "train/images"), ("val/instances.json", "val/images")),
    (("zhiyuan_objv2_train.json", "train"), ("zhiyuan_objv2_val.json", "val")),
    (("annotations/zhiyuan_objv2_train.json", "train"), ("annotations/zhiyuan_objv2_val.json", "val")),
)
Source = tuple[Path, Path | None]  # annotations, image folder
# Steps that make the selectors' files, in the order of their execution.
STEPS: tuple[FittingStep, ...] = (FIT_STEP, ANALYZE_STEP, BOX_LAYERS_STEP)


@dataclass(frozen=True)
class BuildResult:
    """Result of :func:`build`.

    Attributes:
        fitted: result of the fit.
        analysis: result of the analysis.
        heads: the head file.
        reliability: reliability of each selector on the calibration images, by name.
    """

    fitted: FitResult
    analysis: Analysis
    heads: HeadFile
    reliability: dict[str, Reliability]


def find_coco(folder: Path) -> tuple[Source, Source]:
    """Return the training and the validation side of a data set: COCO 2017, Objects365 v2 or `acs-train synth`.

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
    """Write regressor, joint model, head file, calibrations, figures and a model card into ``out``.

    Args:
        lvlm: the model.
        train: pairs to collect, fit and analyse on.
        calibration: pairs of other images, to calibrate on.
        work: folder of collections and checkpoints, which are kept so that a second run resumes.
        out: folder of the files.
        made_by: origin of the files, for their metadata.
        config: settings.
        say: prints a line.
        progress: called with (stage, done, total).
        model: short name of a shipped model, to be named in ``acs.json`` of the folder; for any other, ``lvlm.name``
            is. A folder that is itself a model gets no ``acs.json``.
        command: command line, for the model card.
        sources: names of the two annotation files.
        run: runner that collects parts elsewhere; see :func:`training.collection.collect.collect`.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        DataError: the pairs give too few candidates for one of the steps, or ``out`` is a model's own folder and
            ``lvlm`` does not have its family's default options for pictures.
        OutputError: ``out`` or a folder of ``work`` holds files that acs did not write, or another process writes to
            it.
    """
    config = config or BuildConfig()
    made = (*(name for step in STEPS for name in step.files), *CALIBRATE_FILES, BUILT_FILE)
    pictures = {pair.file.parent for pair in (*train, *calibration)}
    with files_folder(out, "acs-train build", made, pictures) as folder, ExitStack() as held:
        card_name(folder)  # raises before hours of work rather than after
        if (out / "config.json").exists() and lvlm.picture != PictureOptions(lvlm.adapter.max_image_tokens):
            raise DataError(
                f"{out} is the model's own folder, whose files are used with the default max_image_tokens and "
                "coordinate_frame: name another folder, whose acs.json records them"
            )
        held.enter_context(work_folder(work, pictures))
        weights = weights_fingerprint(lvlm)

        def collected(pairs: list[Pair], name: str, settings: CollectConfig, stage: str, source: str) -> Collection:
            report = collect(
                lvlm, pairs, work / name, settings, lambda d, t: progress(stage, d, t), weights, source, run
            )
            for problem in report.skipped[:10]:
                say(f"skipped {problem}")
            if len(report.skipped) > 10:
                say(f"skipped {len(report.skipped) - 10} more")
            return read_store(work / name)

        data = collected(train, "train", config.collect, "collect", sources[0])
        say(f"{len(data.iou)} candidates of {len(data.pairs)} pairs, mean IoU {data.iou.mean():.3f}")
        run_config = replace(config.collect, temperature=config.run_temperature, seed=config.collect.seed + 1_000_000)
        fresh = collected(calibration, "calibration", run_config, "collect for calibration", sources[1])
        job = FittingJob(data, fresh, train, config, made_by, work, say, progress, device)
        results: dict[str, Any] = {}
        for step in STEPS:
            # Run files of earlier runs describe files that are replaced here.
            with folder.stage(*step.files, f"*{RUN_FILE}") as staged:
                results[step.name] = step.run(replace(job, results=results), staged)
        selectors = made_selectors(out, data)
        with folder.stage(*CALIBRATE_FILES) as staged:
            told = calibrate_step(fresh, selectors, staged, made_by, say, answers=read_responses(work / "calibration"))
        named = model if model in model_names() else lvlm.name  # what was named may be files built for the model
        with folder.stage() as staged:
            if not (out / "config.json").exists():
                name_model(staged, named, lvlm.revision, lvlm.picture)
            card = model_card(out, named, made_by, command, data.manifest)
            (staged / card_name(folder)).write_text(card)
        analysis, heads = results[ANALYZE_STEP.name]
        return BuildResult(results[FIT_STEP.name], analysis, heads, told)


def name_model(out: Path, model: str, revision: str | None, picture: PictureOptions) -> None:
    """Write ``acs.json``, with which ``Grounder.from_pretrained`` accepts ``out`` as a model folder and shows the model
    pictures as ``picture`` says."""
    if model not in model_names() and Path(model).is_dir():
        model = str(Path(model).resolve())
    content = built_content(model, revision, **asdict(picture))
    (out / BUILT_FILE).write_text(json.dumps(content, indent=1) + "\n")


def describe(config: BuildConfig, train: str, calibration: str) -> str:
    """Return the origin of the files for their metadata: data, sampling and thresholds. ``train`` and ``calibration``
    describe the pairs."""
    sampling, heads = config.collect, config.analysis
    layers = f"the {heads.layers} most important layers" if heads.layers else "the most important third of the layers"
    where = layers if heads.restrict else "all layers"
    return (
        f"acs-train build: collected and fitted on {train}, N={sampling.samples}, tau={sampling.temperature:g}; "
        f"{heads.heads} heads per coordinate of {where} by the entropy gap between IoU in (0, {heads.low_iou:g}] and "
        f"above {heads.high_iou:g} on held-out images; calibrated on {calibration} at tau={config.run_temperature:g}"
    )
