"""Evaluation of an LVLM with every selector (paper section 5): questions, collections and runs."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch

from acs_core.artifacts.identity import ModelIdentity, weights_fingerprint
from acs_core.errors import ArtifactError
from acs_core.evaluation.paper_tables import LAYERS_FROM
from acs_core.evaluation.records import EntropyProfile, Evaluation, Group, Question, RegressorAccuracy, Run
from acs_core.lvlm.base import LVLM
from acs_core.selection.defaults import scorer_for
from acs_core.selection.registry import AcsFree, selector_names
from acs_core.selection.scorer import Scorer
from training.collection.collect import collect_together
from training.collection.job import Job, describe, with_map_size
from training.collection.manifest import fingerprint
from training.collection.store import read_responses, read_skipped, read_store
from training.data.dataset import Dataset, Problems
from training.data.pairs import Pair, choose_absent, choose_pairs, drawn_of
from training.data.pictures import fit_to_pictures
from training.errors import DataError
from training.evaluation.cache import CollectionCache, Place, answers_name, keep_runs, kept_runs
from training.evaluation.runs import Predicted, RunInput, entropy_profiles, greedy_runs, sampled_runs
from training.evaluation.used_images import UsedImages
from training.fitting.metrics import agreement
from training.settings import HALF_ABSENT, SIZES, CollectConfig, EvaluateConfig

KEEP_THEM = "evaluate on others, or keep them with --calibrated-too; the tables then say so"
Say = Callable[[str], None]
Move = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Wanted:
    """Collection that the evaluation needs.

    Attributes:
        group: name of the group of questions.
        job: pairs and settings.
        place: folder of the collection.
        content: fingerprint of the manifest.
        counts: numbers of samples to make runs for; empty for greedy decoding.
    """

    group: str
    job: Job
    place: Place
    content: str
    counts: tuple[int, ...]

    @property
    def temperature(self) -> float | None:
        """Sampling temperature; None for greedy decoding."""
        return None if self.job.config.greedy else self.job.config.temperature

    @property
    def title(self) -> str:
        """Title, for example "small, tau 0.5"."""
        return f"{self.group}, " + ("greedy" if self.temperature is None else f"tau {self.temperature:g}")


def choose_groups(
    data: Dataset,
    config: EvaluateConfig,
    say: Say = print,
    used: UsedImages | None = None,
    source: str = "",
    notes: Problems | None = None,
) -> dict[str, list[Pair]]:
    """Return the pairs of each group, with boxes in pixels of their pictures. Groups without any pair are left out.

    Args:
        data: the annotations.
        config: numbers of pairs, and the seed of their draw.
        say: prints a line.
        used: images that are left out, since calibrations were fitted on them.
        source: name of the annotations in collections.
        notes: gets what was done to pictures that differ from their annotations.

    Raises:
        DataError: there is no pair at all, or each is about an image of ``used``, or of a picture that does not fit its
            annotation.
    """
    groups: dict[str, list[Pair]] = {}
    left = 0
    for name, limit in config.limits.items():
        size, objects = SIZES[name]
        try:
            found = choose_pairs(data, (size,), objects) if limit else []
            if name == HALF_ABSENT and limit < 2:
                found = []
            if name == HALF_ABSENT and found:
                found = _half_absent(data, drawn_of(found, limit // 2, config.seed), config.seed)
        except DataError as error:
            say(f"{name}: left out, {error}")
            continue
        fresh = [pair for pair in found if used is None or not used.holds(pair, source)]
        left += len(found) - len(fresh)
        groups |= {name: drawn_of(fresh, limit, config.seed)} if fresh else {}
    if not groups and not left:
        raise DataError(f"{data.file} holds no pair of the wanted groups: {', '.join(config.limits)}")
    drawn = [pair for pairs in groups.values() for pair in pairs]
    fitted = {p.key: p for p in fit_to_pictures(drawn, data.images, Problems() if notes is None else notes)}
    fresh = [pair for pair in fitted.values() if used is None or not used.holds(pair, source)]
    left += len(fitted) - len(fresh)
    if left:
        say(f"{left} questions left out: calibrations were fitted on their images")
    if not fresh:
        raise DataError(f"calibrations were fitted on all {left} questions of {data.file}: {KEEP_THEM}")
    kept = {pair.key: pair for pair in fresh}
    chosen = {name: [kept[p.key] for p in pairs if p.key in kept] for name, pairs in groups.items()}
    return {name: pairs for name, pairs in chosen.items() if pairs}


def _half_absent(data: Dataset, pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """Return ``pairs`` and as many about what their images do not show."""
    return [*pairs, *choose_absent(data, len(pairs), seed, {pair.image_id for pair in pairs})]


def scorers_for(lvlm: LVLM, built: Path | None = None, say: Say = print) -> list[Scorer]:
    """Return a scorer for every selector that has its files for ``lvlm``, with its calibration if there is one.
    Selectors without files are reported with ``say``. ``built`` is a folder of `acs-train build`."""
    scorers = []
    for name in selector_names():
        try:
            scorers.append(scorer_for(lvlm, name, built=built))
        except ArtifactError as error:
            say(f"{name} is left out: {error}")
    return scorers


def map_size_of(scorers: Sequence[Scorer]) -> tuple[int, int] | None:
    """Return the (h, w) of the maps that a regressor of ``scorers`` was made for; None without a regressor."""
    return next((j.selector.needs.map_size for j in scorers if j.selector.needs.map_size), None)


def plan(
    lvlm: LVLM,
    groups: dict[str, list[Pair]],
    config: EvaluateConfig,
    cache: CollectionCache,
    source: str,
    weights: str = "",
) -> list[Wanted]:
    """Return the collections that the evaluation needs, in the order in which they are made.

    A complete collection with more responses replaces one with fewer: response i is the same in both.

    Args:
        lvlm: the model.
        groups: pairs of each group.
        config: settings.
        cache: existing collections.
        source: name of the annotation file as `acs-train collect` records it.
        weights: fingerprint of the model's weights; None to compute it.
    """
    weights = weights or weights_fingerprint(lvlm)
    chosen = {"seed": config.seed, "step": config.step, "top_p": config.top_p, "top_k": config.top_k}
    base = with_map_size(CollectConfig(map_size=config.map_size, **chosen), lvlm)  # type: ignore[arg-type]
    longest = max((config.samples, *config.curve))

    def find(pairs: Sequence[Pair], settings: CollectConfig) -> tuple[Job, Place, str]:
        job = Job(tuple(pairs), settings)
        manifest = describe(lvlm, job, weights, source)
        return job, cache.place(manifest, job), fingerprint(manifest)

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
    scorers: Sequence[Scorer],
    wanted: Sequence[Wanted],
    work: Path,
    config: EvaluateConfig,
    title: str,
    source: str,
    say: Say = print,
    move: Move = lambda stage, done, total: None,
    weights: str = "",
    more_facts: Mapping[str, str] | None = None,
) -> Evaluation:
    """Collect what is missing and answer all questions with all of ``scorers``. Finished runs are kept in ``work``.
    ``more_facts`` are facts of the evaluation that its data have.

    Raises:
        DataError: a collection is damaged, or being made by another run; or no pair could be sampled.
    """
    weights = weights or weights_fingerprint(lvlm)
    for name in dict.fromkeys(w.group for w in wanted):
        missing = {w.place.folder: w.job for w in wanted if w.group == name and not w.place.complete}
        if missing:
            collect_together(lvlm, missing, partial(move, name), weights, source)
    groups: list[Group] = []
    regressions: list[RegressorAccuracy] = []
    entropy: tuple[EntropyProfile, ...] = ()  # first group, highest temperature: boxes differ most
    left = 0
    for name in dict.fromkeys(w.group for w in wanted):
        mine = [w for w in wanted if w.group == name]
        pairs = mine[0].job.pairs
        skipped = {i: why for w in mine for i, why in read_skipped(w.place.folder).items()}
        for i, why in sorted(skipped.items())[:10]:
            say(f"{name}: left out {pairs[i].key}: {why}")
        left += len(skipped)
        kept = [i for i in range(len(pairs)) if i not in skipped]
        questions = tuple(_question(pairs[i]) for i in kept)
        runs: list[Run] = []
        for w in mine:
            made = _finished(w, scorers, questions, kept, work, config, move)
            runs += made.groups[0].runs
            regressions += made.regressions
            if made.entropy and not groups:
                entropy = made.entropy
        groups.append(Group(name, SIZES[name][1], questions, tuple(runs)))
    facts = _facts(lvlm, scorers, config, source, weights)
    facts |= {"questions left out": str(left)} if left else {}
    facts |= {key: value for key, value in (more_facts or {}).items() if value}
    heads = next((scorer.selector.heads for scorer in scorers if isinstance(scorer.selector, AcsFree)), None)
    layers: tuple[int, ...] = ()
    if heads is not None and heads.layers:
        layers = tuple(sorted(heads.layers))
        facts[LAYERS_FROM] = "an analysis of this model" if heads.kind == "heads" else "table 1 of the paper"
    return Evaluation(title, tuple(groups), facts, tuple(regressions), entropy, layers)


def write_questions(evaluation: Evaluation, file: Path) -> None:
    """Write the keys of each group's questions (image id and category) as JSON, as a record of the sampled cases."""
    chosen = {group.name: [q.key for q in group.questions] for group in evaluation.groups}
    file.write_text(json.dumps(chosen, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _finished(
    w: Wanted,
    scorers: Sequence[Scorer],
    questions: tuple[Question, ...],
    kept: Sequence[int],
    work: Path,
    config: EvaluateConfig,
    move: Move,
) -> Evaluation:
    """Return the runs of one collection, from the file of an earlier evaluation or newly made."""
    greedy = w.temperature is None
    mine = [j for j in scorers if j.selector.greedy_decoding == greedy]
    truth = [(question.key, question.truth) for question in questions]
    without = config.without_attention and not greedy
    told = ("check_labels", w.content, w.counts, config.samples, config.seed, tuple(kept), truth, without)
    file = work / "answers" / f"{answers_name(told, *mine)}.json.gz"
    found = kept_runs(file)
    if found is not None:
        return found
    objects = SIZES[w.group][1]
    data, answers = read_store(w.place.folder, may_be_empty=True), read_responses(w.place.folder)
    material = RunInput(data, answers, w.job.pairs, frozenset(kept), objects, w.temperature)
    predicted: Predicted | None = None
    if greedy:
        runs = tuple(run for scorer in mine for run in greedy_runs(material, scorer))
    else:
        runs, predicted = sampled_runs(
            material,
            mine,
            w.counts,
            config.samples,
            config.seed,
            partial(move, f"{w.title}: select"),
            without,
        )
    regressions = []
    if predicted is not None and w.temperature is not None:
        fit = agreement(predicted.predicted, predicted.truth)
        regressions = [RegressorAccuracy(w.temperature, fit.count, fit.mae, fit.pearson, w.group)]
    entropy = () if greedy else entropy_profiles(data)
    made = Evaluation(w.title, (Group(w.group, objects, questions, runs),), {}, tuple(regressions), entropy)
    return keep_runs(made, file)


def _question(pair: Pair) -> Question:
    if pair.size is None:
        raise ValueError(f"{pair.key} does not know the size of its picture")
    return Question(pair.key, pair.category, pair.category, str(pair.file.resolve()), pair.size, pair.truth)


def _facts(lvlm: LVLM, scorers: Sequence[Scorer], config: EvaluateConfig, source: str, weights: str) -> dict[str, str]:
    calibrated = [j.selector.name for j in scorers if j.calibration]
    missing = [name for name in selector_names() if name not in {j.selector.name for j in scorers}]
    gpu = torch.cuda.get_device_name(lvlm.device) if lvlm.device.type == "cuda" else ""
    facts = {
        "model": ModelIdentity.of(lvlm).model,
        "revision": lvlm.revision or "",
        "weights": weights,
        "dtype": str(lvlm.hf_model.dtype).removeprefix("torch."),
        "data": source,
        "seed": str(config.seed),
        "sampling": f"N = {config.samples}, top-p {config.top_p:g}, top-k {config.top_k}",
        "check_labels": "yes",
        "attention of": f"the {config.step} step" if config.step != "emitting" else "",
        "calibrated": ", ".join(calibrated),
        "selectors without files": ", ".join(missing),
        "versions": f"torch {torch.__version__}, python {platform.python_version()}",
        "machine": gpu or platform.machine(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    return {key: value for key, value in facts.items() if value}
