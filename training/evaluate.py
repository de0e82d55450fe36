"""Evaluates an LVLM with every selector (paper section 5): which questions, which collections, which runs."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch

from acs_core.attention import Step
from acs_core.errors import HeadFileError, RegressorError
from acs_core.identity import ModelIdentity, weights_fingerprint
from acs_core.judging import Judge, judge_for
from acs_core.lvlm.base import LVLM
from acs_core.selection import selector_names
from acs_eval.records import EntropyProfile, Evaluation, Group, Question, Regression, Run
from acs_eval.storage import EvaluationError, load, save
from training.coco import CocoData
from training.collect import collect_together
from training.collect_job import CollectConfig, Job, describe, with_map_size
from training.errors import DataError
from training.evaluate_cache import Place, Shelf, answers_name
from training.evaluate_runs import Material, Predicted, entropy_profiles, greedy_runs, sampled_runs
from training.manifest import fingerprint
from training.metrics import agreement
from training.pairs import Objects, Pair, choose_pairs
from training.store import read_responses, read_skipped, read_store

SIZES: dict[str, tuple[str, Objects]] = {  # the groups: size and number of the objects
    "small": ("small", "single"),
    "several small": ("small", "several"),
    "medium": ("medium", "single"),
    "large": ("large", "single"),
}
PAPER = {"small": 2225, "several small": 759, "medium": 0, "large": 2225}  # questions, section 5.1 and 5.5
CURVE = (1, 3, 5, 10, 15, 20, 30)  # numbers of samples in tables 4 and 5
Say = Callable[[str], None]
Move = Callable[[str, int, int], None]


@dataclass(frozen=True)
class EvaluateConfig:
    """``limits``: how many questions of each group (keys of ``SIZES``) at most, 0 for none; if there are more, so many
    are drawn with ``seed``. Each is answered with ``samples`` responses at each of ``temperatures``; small objects, at
    those of ``curve_temperatures``, with as many as ``curve`` goes up to. ``map_size`` and ``step`` as in
    :class:`training.collect_job.CollectConfig`."""

    limits: dict[str, int] = field(default_factory=lambda: dict(PAPER))
    temperatures: tuple[float, ...] = (0.5, 0.7, 1.0)
    samples: int = 10
    curve: tuple[int, ...] = CURVE
    curve_temperatures: tuple[float, ...] = (1.0,)
    seed: int = 0
    map_size: tuple[int, int] | None = None
    step: Step = "emitting"


@dataclass(frozen=True)
class Wanted:
    """A collection that the evaluation needs. ``content`` is its manifest's fingerprint, ``counts`` are the numbers
    of samples that runs are made for, empty for greedy answers."""

    group: str
    job: Job
    place: Place
    content: str
    counts: tuple[int, ...]

    @property
    def temperature(self) -> float | None:
        """None where nothing is sampled."""
        return None if self.job.config.greedy else self.job.config.temperature

    @property
    def title(self) -> str:
        """For people: "small, tau 0.5"."""
        return f"{self.group}, " + ("greedy" if self.temperature is None else f"tau {self.temperature:g}")


def choose_groups(data: CocoData, config: EvaluateConfig, say: Say = print) -> dict[str, list[Pair]]:
    """The pairs to ask in each group; a group that the data has no pair for is left out.

    Raises:
        DataError: there is no pair at all.
    """
    groups: dict[str, list[Pair]] = {}
    for name, limit in config.limits.items():
        size, objects = SIZES[name]
        try:
            groups |= {name: choose_pairs(data, (size,), objects, limit, config.seed)} if limit else {}
        except DataError as error:
            say(f"{name}: left out, {error}")
    if not groups:
        raise DataError(f"{data.file} holds no pair of the wanted groups: {', '.join(config.limits)}")
    return groups


def judges_for(lvlm: LVLM, built: Path | None = None, say: Say = print) -> list[Judge]:
    """Every selector that has its files for ``lvlm``, with its calibration if there is one; ``built`` is a folder of
    `acs-train build`. Those without are named."""
    judges = []
    for name in selector_names():
        try:
            judges.append(judge_for(lvlm, name, built=built))
        except (HeadFileError, RegressorError) as error:
            say(f"{name} is left out: {error}")
    return judges


def map_size_of(judges: Sequence[Judge]) -> tuple[int, int] | None:
    """(h, w) of the maps that a regressor among ``judges`` was made for; None without one."""
    return next((j.selector.needs.map_size for j in judges if j.selector.needs.map_size), None)


def plan(
    lvlm: LVLM, groups: dict[str, list[Pair]], config: EvaluateConfig, shelf: Shelf, source: str, weights: str = ""
) -> list[Wanted]:
    """The collections that the evaluation reads, in the order they are made. ``source`` names the annotation file as
    `acs-train collect` records it, ``weights`` is the model's fingerprint where the caller has it.

    A complete collection of more responses stands for one of fewer: response i is the same in both.
    """
    weights = weights or weights_fingerprint(lvlm)
    base = with_map_size(CollectConfig(seed=config.seed, map_size=config.map_size, step=config.step), lvlm)
    longest = max((config.samples, *config.curve))

    def find(pairs: Sequence[Pair], settings: CollectConfig) -> tuple[Job, Place, str]:
        job = Job(tuple(pairs), settings)
        manifest = describe(lvlm, job, weights, source)
        return job, shelf.place(manifest, job), fingerprint(manifest)

    wanted = []
    for group, pairs in groups.items():
        wanted.append(Wanted(group, *find(pairs, replace(base, greedy=True)), ()))
        for temperature in config.temperatures:
            curve = group == "small" and temperature in config.curve_temperatures
            needed = longest if curve else config.samples
            sampled = replace(base, temperature=temperature)
            tries = [find(pairs, replace(sampled, samples=n)) for n in dict.fromkeys((needed, longest))]
            found = next((t for t in tries if t[1].complete), tries[0])
            counts = tuple(sorted({config.samples, *(config.curve if curve else ())}))
            wanted.append(Wanted(group, *found, counts))
    return wanted


def evaluate(
    lvlm: LVLM,
    judges: Sequence[Judge],
    wanted: Sequence[Wanted],
    sizes: dict[int, tuple[int, int]],
    work: Path,
    config: EvaluateConfig,
    title: str,
    source: str,
    say: Say = print,
    move: Move = lambda stage, done, total: None,
    weights: str = "",
) -> Evaluation:
    """Collects what is missing and lets all of ``judges`` answer. ``sizes`` are those of the pictures by image id,
    (width, height). Finished runs are kept in ``work``.

    Raises:
        DataError: a collection is damaged, or being made by another run; or no question could be asked.
    """
    weights = weights or weights_fingerprint(lvlm)
    for name in dict.fromkeys(w.group for w in wanted):
        missing = {w.place.folder: w.job for w in wanted if w.group == name and not w.place.complete}
        if missing:
            collect_together(lvlm, missing, partial(move, name), weights, source)
    groups: list[Group] = []
    regressions: list[Regression] = []
    entropy: tuple[EntropyProfile, ...] = ()  # of the first group at its highest temperature, where boxes differ most
    left = 0
    for name in dict.fromkeys(w.group for w in wanted):
        mine = [w for w in wanted if w.group == name]
        pairs = mine[0].job.pairs
        skipped = {i: why for w in mine for i, why in read_skipped(w.place.folder).items()}
        for i, why in sorted(skipped.items())[:10]:
            say(f"{name}: left out {pairs[i].key}: {why}")
        left += len(skipped)
        kept = [i for i in range(len(pairs)) if i not in skipped]
        questions = tuple(_question(pairs[i], sizes) for i in kept)
        runs: list[Run] = []
        for w in mine:
            made = _finished(w, judges, questions, kept, work, config, move)
            runs += made.groups[0].runs
            regressions += made.regressions
            if made.entropy and not groups:
                entropy = made.entropy
        groups.append(Group(name, SIZES[name][1], questions, tuple(runs)))
    facts = _facts(lvlm, judges, config, source, weights)
    facts |= {"questions left out": str(left)} if left else {}
    return Evaluation(title, tuple(groups), facts, tuple(regressions), entropy)


def write_questions(evaluation: Evaluation, file: Path) -> None:
    """The keys of the questions of each group (image id and category) as JSON: which cases were drawn."""
    chosen = {group.name: [q.key for q in group.questions] for group in evaluation.groups}
    file.write_text(json.dumps(chosen, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _finished(
    w: Wanted,
    judges: Sequence[Judge],
    questions: tuple[Question, ...],
    kept: Sequence[int],
    work: Path,
    config: EvaluateConfig,
    move: Move,
) -> Evaluation:
    """The runs over one collection: from the file of an earlier evaluation, or made and kept."""
    greedy = w.temperature is None
    mine = [j for j in judges if j.selector.greedy_decoding == greedy]
    truth = [(question.key, question.truth) for question in questions]
    told = (w.content, w.counts, config.samples, config.seed, tuple(kept), truth)
    file = work / "answers" / f"{answers_name(told, *mine)}.json.gz"
    if file.exists():
        try:
            return load(file)
        except EvaluationError:
            file.unlink()  # damaged: made again
    objects = SIZES[w.group][1]
    data, answers = read_store(w.place.folder, may_be_empty=True), read_responses(w.place.folder)
    material = Material(data, answers, w.job.pairs, frozenset(kept), objects, w.temperature)
    predicted: Predicted | None = None
    if greedy:
        runs = tuple(run for judge in mine for run in greedy_runs(material, judge))
    else:
        runs, predicted = sampled_runs(
            material,
            mine,
            w.counts,
            config.samples,
            config.seed,
            partial(move, f"{w.title}: select"),
        )
    regressions = []
    if predicted is not None and w.temperature is not None:
        fit = agreement(predicted.predicted, predicted.truth)
        regressions = [Regression(w.temperature, fit.count, fit.mae, fit.pearson, w.group)]
    entropy = () if greedy else entropy_profiles(data)
    made = Evaluation(w.title, (Group(w.group, objects, questions, runs),), {}, tuple(regressions), entropy)
    return save(made, file)


def _question(pair: Pair, sizes: dict[int, tuple[int, int]]) -> Question:
    file = str(pair.file.resolve())
    return Question(pair.key, pair.category, pair.category, file, sizes[pair.image_id], pair.truth)


def _facts(lvlm: LVLM, judges: Sequence[Judge], config: EvaluateConfig, source: str, weights: str) -> dict[str, str]:
    calibrated = [j.selector.name for j in judges if j.calibration]
    missing = [name for name in selector_names() if name not in {j.selector.name for j in judges}]
    gpu = torch.cuda.get_device_name(lvlm.device) if lvlm.device.type == "cuda" else ""
    facts = {
        "model": ModelIdentity.of(lvlm).model,
        "revision": lvlm.revision or "",
        "weights": weights,
        "dtype": str(lvlm.hf_model.dtype).removeprefix("torch."),
        "data": source,
        "seed": str(config.seed),
        "sampling": f"N = {config.samples}, top-p 0.9, top-k 100",
        "attention of": f"the {config.step} step" if config.step != "emitting" else "",
        "calibrated": ", ".join(calibrated),
        "selectors without files": ", ".join(missing),
        "versions": f"torch {torch.__version__}, python {platform.python_version()}",
        "machine": gpu or platform.machine(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    return {key: value for key, value in facts.items() if value}
