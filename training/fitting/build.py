"""All files for a new LVLM: collect, fit, analyse and calibrate into one folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from acs_core.artifacts.built import BUILT_FILE, built_content
from acs_core.artifacts.heads import HeadFile
from acs_core.artifacts.identity import weights_fingerprint
from acs_core.artifacts.registry import model_names
from acs_core.lvlm.base import LVLM
from acs_core.lvlm.picture import PictureOptions
from acs_core.selection.attention_in_box import BOX_LAYERS
from acs_core.selection.regressor import AttentionIoURegressor
from training.collection.collect import PartRunner, collect
from training.collection.store import Collection, read_responses, read_store
from training.data.pairs import Pair
from training.errors import DataError
from training.fitting.analyze import Analysis, group_sizes
from training.fitting.artifacts import HEADS, card_name, files_folder, made_selectors, work_folder
from training.fitting.box_layers import BOX_LAYERS_STEP, MIN_PAIRS, count_pairs
from training.fitting.calibrate import MIN_CHOICES, Reliability
from training.fitting.card import model_card
from training.fitting.fit import FitResult, split
from training.fitting.steps import (
    ANALYZE_STEP,
    CALIBRATE_FILES,
    FIT_STEP,
    FittingJob,
    FittingStep,
    calibrate_step,
)
from training.settings import RUN_FILE, BuildConfig, CollectConfig

# Steps that make the selectors' files, in the order of their execution.
STEPS: tuple[FittingStep, ...] = (FIT_STEP, ANALYZE_STEP, BOX_LAYERS_STEP)


@dataclass(frozen=True)
class BuildResult:
    """Result of :func:`build`.

    Attributes:
        fitted: result of the regressor's fit.
        analysis: result of the analysis; None if there are too few boxes for it.
        heads: the head file; None likewise.
        reliability: reliability of each selector on the calibration images, by name.
    """

    fitted: FitResult[AttentionIoURegressor]
    analysis: Analysis | None
    heads: HeadFile | None
    reliability: dict[str, Reliability]


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
    workers: int | None = None,
) -> BuildResult:
    """Write regressors, joint model, head file, calibrations, figures and a model card into ``out``.

    Whether the collected boxes suffice is checked before anything is fitted. If they do not for the head file alone, it
    is left out, and the calibrations of the selectors that read it with it.

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
        workers: number of threads that read maps ahead; None for as many as the CPUs allow.

    Raises:
        DataError: the pairs give too few candidates to fit or to calibrate, or ``out`` is a model's own folder and
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
        if len(calibration) < MIN_CHOICES:
            raise DataError(
                f"{len(calibration)} calibration questions are too few, at least {MIN_CHOICES} must be answered: give "
                "more data, raise --calibration-limit, or name other annotations with --calibration"
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
        mean = f", mean IoU {data.iou.mean():.3f}" if len(data.iou) else ""
        say(f"{len(data.iou)} candidates of {len(data.pairs)} pairs{mean}")
        missing = check_enough(data, config, say)
        run_config = replace(config.collect, temperature=config.run_temperature, seed=config.collect.seed + 1_000_000)
        fresh = collected(calibration, "calibration", run_config, "collect for calibration", sources[1])
        if (answered := len(np.unique(fresh.pair))) < MIN_CHOICES:
            raise DataError(
                f"{answered} of {len(calibration)} calibration questions got a box, at least {MIN_CHOICES} are needed: "
                "give more data, or raise --calibration-limit"
            )
        job = FittingJob(data, fresh, train, config, made_by, work, say, progress, device, workers)
        results: dict[str, Any] = {}
        for step in STEPS:
            if step.name in missing:
                with folder.stage(*step.files):  # a file of an earlier run is not of this collection
                    continue
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
        analysis, heads = results.get(ANALYZE_STEP.name, (None, None))
        for why in missing.values():
            say(f"missing in {out}: {why}")
        return BuildResult(results[FIT_STEP.name], analysis, heads, told)


def check_enough(data: Collection, config: BuildConfig, say: Callable[[str], None] = print) -> dict[str, str]:
    """Check that the boxes of ``data`` suffice to fit and to analyse, before hours of fitting, and say their numbers.

    Returns:
        The names of the steps that must be left out, and why.

    Raises:
        DataError: they are too few to fit, or the thresholds of the analysis are invalid.
    """
    _, held = split(data, config.fit)
    high, low, least = config.analysis.high_iou, config.analysis.low_iou, config.analysis.min_group
    good, bad, none = group_sizes(data.iou[held], config.analysis)
    say(f"boxes on held-out images: {good} good (IoU > {high:g}), {bad} low (0 < IoU <= {low:g}), {none} with IoU 0")
    missing = {}
    if min(good, bad) < least:
        missing[ANALYZE_STEP.name] = (
            f"{HEADS}. Discriminative heads need at least {least} good and {least} low boxes on held-out images, there "
            f"are {good} and {bad}. acs-learned, acs-learned-box and acs-joint can be used, acs-free and "
            "acs-fusion cannot; for these, collect more pairs (--limit), or sizes that the model finds (--size)"
        )
    elif not none:
        say("no box misses its object: the entropies of the group IoU = 0 are left out")
    if (pairs := count_pairs(data)) < MIN_PAIRS:
        missing[BOX_LAYERS_STEP.name] = (
            f"{BOX_LAYERS.file_name}, which attention-in-box reads: {pairs} pairs have boxes to choose between, at "
            f"least {MIN_PAIRS} are needed"
        )
    for why in missing.values():
        say(f"warning: will be missing: {why}")
    return missing


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
