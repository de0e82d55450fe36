"""Scores of questions that have no answer, beside those that have one: objects of the image, known categories that are
absent, made-up words, and nonsense."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from acs_core.evaluation.table import Cell, Column, Table, TableRow
from acs_core.lvlm.base import LVLM
from acs_core.selection.scorer import Scorer
from training.collection.collect import collect
from training.collection.job import Job, describe, with_map_size
from training.collection.manifest import fingerprint
from training.collection.offline_selection import calls
from training.collection.store import Collection, read_responses, read_store
from training.data.dataset import Dataset, Problems
from training.data.pairs import SIZES, Pair, choose_absent, choose_pairs, drawn_of
from training.data.pictures import fit_to_pictures
from training.errors import DataError
from training.evaluation.cache import CollectionCache
from training.evaluation.evaluate import Wanted
from training.evaluation.runs import check_hidden_states
from training.evaluation.used_images import UsedImages
from training.settings import CollectConfig, EvaluateConfig

PRESENT, ABSENT, WORD, NONSENSE = "object of the image", "known, absent", "made-up word", "nonsense"
KINDS = (PRESENT, ABSENT, WORD, NONSENSE)
GROUP = "unknown phrases"  # name of the questions
SURE = 0.5  # score above which an answer is taken for right
CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
LETTERS = "bcdfghjklmnpqrstvwxz"
# Sentences about nothing that an image could show.
SUBJECTS = ("the sum of seven and nine", "yesterday", "the square root of two", "an opinion", "the second rule", "why")
VERBS = ("was later than", "is not as true as", "follows from", "sounds like", "costs more than")
OBJECTS = ("last Tuesday", "the price of silence", "a long promise", "every other reason", "the third decimal")


@dataclass(frozen=True)
class PhraseScores:
    """Scores of a selector for the questions of one kind.

    Attributes:
        method: name of the selector.
        kind: kind of the questions, of ``KINDS``.
        scores: (Q,) published score of each question, 0 without a box.
        answered: (Q,) whether there is a box.
    """

    method: str
    kind: str
    scores: np.ndarray
    answered: np.ndarray


def choose_questions(
    data: Dataset, count: int, seed: int = 0, used: UsedImages | None = None, source: str = ""
) -> list[Pair]:
    """Return up to ``count`` questions of each kind, about the same images, in the order of the images; the kind is
    that of ``KINDS``.

    Args:
        data: the annotations.
        count: number of questions of each kind.
        seed: seed of images and words.
        used: images that are left out, since calibrations were fitted on them.
        source: name of the annotations in collections.

    Raises:
        DataError: there is no image with a single object of a category, or each is left out.
    """
    shown = [
        pair for pair in choose_pairs(data, tuple(SIZES), "single") if used is None or not used.holds(pair, source)
    ]
    present = drawn_of(shown, count, seed)
    if not present:
        raise DataError(f"calibrations were fitted on all images of {data.file}: no question is left for --nonsense")
    rng = np.random.default_rng(seed)
    absent = choose_absent(data, len(present), seed, {pair.image_id for pair in present})
    words = [replace(pair, category=made_up_word(rng, data.names), truth=()) for pair in present]
    nonsense = [replace(pair, category=nonsense_phrase(rng), truth=()) for pair in present]
    of_kind = zip(KINDS, (present, absent, words, nonsense), strict=True)
    asked = {pair.key: replace(pair, kind=kind) for kind, pairs in of_kind for pair in pairs}
    fitted = fit_to_pictures([*asked.values()], data.images, Problems())
    return drawn_of([pair for pair in fitted if used is None or not used.holds(pair, source)], None)


def made_up_word(rng: np.random.Generator, names: Sequence[str]) -> str:
    """Return a word of two or three syllables that is none of ``names``."""
    while True:
        syllables = int(rng.integers(2, 4))
        word = "".join(str(rng.choice([*letters])) for letters in (CONSONANTS, VOWELS) * syllables)
        if word not in names:
            return word


def nonsense_phrase(rng: np.random.Generator) -> str:
    """Return three groups of random letters or, as often, a sentence about nothing that an image could show."""
    if rng.random() < 0.5:
        return " ".join("".join(rng.choice([*LETTERS], int(rng.integers(3, 7)))) for _ in range(3))
    return " ".join(str(rng.choice(part)) for part in (SUBJECTS, VERBS, OBJECTS))


def plan_questions(
    lvlm: LVLM, pairs: Sequence[Pair], cache: CollectionCache, config: EvaluateConfig, source: str, weights: str
) -> Wanted:
    """Return the collection that :func:`unknown_phrases` needs, given the same arguments."""
    settings = CollectConfig(
        samples=config.samples,
        temperature=config.temperatures[0],
        top_p=config.top_p,
        top_k=config.top_k,
        seed=config.seed,
        map_size=config.map_size,
        step=config.step,
    )
    job = Job(tuple(pairs), with_map_size(settings, lvlm))
    manifest = describe(lvlm, job, weights, source)
    return Wanted(GROUP, job, cache.place(manifest, job), fingerprint(manifest), (config.samples,))


def unknown_phrases(
    lvlm: LVLM,
    scorers: Sequence[Scorer],
    pairs: Sequence[Pair],
    cache: CollectionCache,
    config: EvaluateConfig,
    source: str,
    weights: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[PhraseScores]:
    """Ask the questions ``pairs`` of :func:`choose_questions`, at the first temperature of ``config``, and return the
    scores of each of ``scorers`` that publishes a probability, by kind.

    Raises:
        DataError: the collection is damaged or does not hold the hidden states that a calibration reads, or no pair
            could be sampled.
    """
    wanted = plan_questions(lvlm, pairs, cache, config, source, weights)
    job, place = wanted.job, wanted.place
    if not place.complete:
        collect(lvlm, pairs, place.folder, job.config, progress, weights, source)
    data, answers = read_store(place.folder, may_be_empty=True), read_responses(place.folder)
    scored = [scorer for scorer in scorers if scorer.score_kind.is_probability and not scorer.selector.greedy_decoding]
    for scorer in scored:
        check_hidden_states(scorer, data, answers)
    return [found for scorer in scored for found in _scores_of(scorer, data, answers, pairs)]


def unknown_phrases_table(found: Sequence[PhraseScores], config: EvaluateConfig) -> Table:
    """Return the table of scores by selector and kind of question."""
    rows = []
    for part in found:
        count = len(part.scores)
        values = (
            Cell(float(np.median(part.scores)) if count else None),
            Cell(100 * float((~part.answered).mean()) if count else None),
            Cell(100 * float((part.scores > SURE).mean()) if count else None),
        )
        rows.append(TableRow((Cell(part.method), Cell(part.kind), Cell(count), *values), "ours"))
    columns = (
        *(Column("Method"), Column("asked for"), Column("questions", "count"), Column("median score", "ratio")),
        *(Column("without a box %", "percent"), Column(f"score above {SURE:g} %", "percent")),
    )
    notes = (
        f"{config.samples} responses at tau = {config.temperatures[0]:g}. A question without a box counts as score 0.",
        "The same images are asked about with each kind. Made-up words are syllables; nonsense is random letters or, "
        "as often, a sentence about nothing that an image could show.",
    )
    return Table("unknown-phrases", "Scores by what is asked for", columns, tuple(rows), notes)


def _scores_of(
    scorer: Scorer, data: Collection, answers: Sequence[Mapping[str, Any]], pairs: Sequence[Pair]
) -> list[PhraseScores]:
    """Return the scores of ``scorer`` for each kind of question."""
    told: dict[str, list[float | None]] = {kind: [] for kind in KINDS}
    for call in calls(data, scorer.selector.needs.maps, answers):
        found = call.seen_by(scorer.selector).decided(scorer).detections
        told[pairs[call.pair].kind].append(found[0].score if found else None)
    return [
        PhraseScores(
            scorer.selector.name,
            kind,
            np.array([score or 0.0 for score in scores], float),
            np.array([score is not None for score in scores], bool),
        )
        for kind, scores in told.items()
    ]
