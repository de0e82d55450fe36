"""Everything a new LVLM needs, in one go: collect, fit, analyse, calibrate, into one folder of files."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from acs_core.heads import HeadFile
from acs_core.identity import ModelIdentity, weights_fingerprint
from acs_core.lvlm.base import LVLM
from acs_core.regressor import save_regressor
from acs_core.selection import AcsFree, AcsLearned
from training.analyze import Analysis, AnalysisConfig, analyze, head_file
from training.calibrate import calibrate
from training.collect import CollectConfig, collect, with_map_size
from training.errors import DataError
from training.fit import FitConfig, FitResult, fit
from training.pairs import Pair
from training.store import Collection, read_store


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
    """What was made, and how well the regressor does on its held-out images."""

    fitted: FitResult
    analysis: Analysis
    heads: HeadFile


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
) -> BuildResult:
    """Writes ``regressor.safetensors``, ``heads.json``, ``calibration-acs-learned.json`` and
    ``calibration-acs-free.json`` into ``out``. Collections are kept in ``work``, so that a second run resumes.

    Raises:
        DataError: the pairs give too few candidates for one of the steps, or more than the memory holds.
    """
    config = config or BuildConfig()
    identity = ModelIdentity.of(lvlm)
    out.mkdir(parents=True, exist_ok=True)
    _check_memory(lvlm, train, with_map_size(config.collect, lvlm))
    weights = weights_fingerprint(lvlm)

    def collected(pairs: list[Pair], name: str, settings: CollectConfig, stage: str) -> Collection:
        report = collect(lvlm, pairs, work / name, settings, lambda d, t: progress(stage, d, t), weights)
        for problem in report.skipped[:10]:
            say(f"skipped {problem}")
        if len(report.skipped) > 10:
            say(f"skipped {len(report.skipped) - 10} more")
        return read_store(work / name)

    data = collected(train, "train", config.collect, "collect")
    say(f"{len(data.iou)} candidates of {len(data.pairs)} pairs, mean IoU {data.iou.mean():.3f}")

    fitted = fit(data, config.fit, lambda epoch, _, __: progress("fit", epoch, config.fit.epochs))
    say(f"regressor: MAE {fitted.mae:.3f}, Pearson r {fitted.pearson:.3f} on held-out images, {fitted.epochs} epochs")
    size = int(data.maps.shape[-2]), int(data.maps.shape[-1])
    save_regressor(out / "regressor.safetensors", fitted.regressor, identity, size, made_by)

    analysis = analyze(fitted.regressor, data, fitted.validation, config.analysis)
    heads = head_file(analysis, identity, made_by, config.analysis)
    heads.save(out / "heads.json")
    say(f"critical layers {', '.join(map(str, heads.layers))}; IoU groups high/low {analysis.group_sizes}")

    run = replace(config.collect, temperature=config.run_temperature, seed=config.collect.seed + 1_000_000)
    fresh = collected(calibration, "calibration", run, "collect for calibration")
    for selector in (AcsLearned(fitted.regressor, size), AcsFree(heads)):
        curve = calibrate(selector, fresh, identity, made_by)
        curve.save(out / f"calibration-{selector.name}.json")
        say(f"calibration of {selector.name} from {curve.num_samples} pairs")
    return BuildResult(fitted, analysis, heads)


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


def _check_memory(lvlm: LVLM, pairs: list[Pair], config: CollectConfig) -> None:
    """Says before hours of sampling that their fruit would not fit: fitting holds all maps twice for a moment."""
    side = config.map_size or (16, 16)
    maps = 4 * lvlm.num_layers * lvlm.num_heads * side[0] * side[1] * 2  # bytes of one candidate, half precision
    needed, there = 2 * len(pairs) * config.samples * maps, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        fitting = int(len(pairs) * there / needed)
        raise DataError(
            f"{len(pairs)} pairs would take about {needed / 1e9:.0f} GB of memory to fit, this machine has "
            f"{there / 1e9:.0f} GB: use at most {fitting} pairs (--limit {fitting})"
        )
