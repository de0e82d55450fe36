"""Questions without an answer, and the table of their scores."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.score_parts import one_split
from store_parts import collection_of

from acs_core.artifacts.calibration import Calibration
from acs_core.artifacts.identity import ModelIdentity
from acs_core.artifacts.presence import PresenceProbe
from acs_core.geometry import Box
from acs_core.selection.evidence import PRESENCE as PRESENCE_FEATURE
from acs_core.selection.registry import Consensus, FirstResponse
from acs_core.selection.scorer import Scorer
from training.collection.job import Job
from training.data.dataset import Dataset, DatasetImage, DatasetObject, Problems
from training.data.pairs import Pair
from training.errors import DataError
from training.evaluation import unknown_phrases as module
from training.evaluation.cache import CollectionCache, Place
from training.evaluation.unknown_phrases import (
    ABSENT,
    KINDS,
    NONSENSE,
    PRESENT,
    WORD,
    choose_questions,
    made_up_word,
    nonsense_phrase,
    unknown_phrases,
    unknown_phrases_table,
)
from training.evaluation.used_images import UsedImages
from training.settings import EvaluateConfig

NAMES = ("cup", "key", "lamp", "shoe")
A, B = Box(0, 0, 10, 10), Box(50, 50, 70, 70)


@pytest.fixture
def data(monkeypatch):
    """Twelve images of a cup each."""
    monkeypatch.setattr(module, "fit_to_pictures", lambda pairs, images, notes: list(pairs))
    cup = DatasetObject("cup", Box(0, 0, 10, 10), 100.0)
    images = tuple(DatasetImage(k, Path(f"{k}.jpg"), (100, 100), (cup,)) for k in range(12))
    return Dataset(Path("instances.json"), NAMES, images, Problems())


def test_each_image_is_asked_about_with_each_kind(data):
    asked = choose_questions(data, 5, seed=2)
    of_kind = {kind: [p for p in asked if p.kind == kind] for kind in KINDS}
    images = {kind: sorted(p.image_id for p in pairs) for kind, pairs in of_kind.items()}
    assert len(set(images[PRESENT])) == 5 and all(found == images[PRESENT] for found in images.values())
    assert {p.category for p in of_kind[PRESENT]} == {"cup"} and all(p.truth for p in of_kind[PRESENT])
    assert {p.category for p in of_kind[ABSENT]} <= {"key", "lamp", "shoe"}
    assert not any(p.truth for kind in (ABSENT, WORD, NONSENSE) for p in of_kind[kind])
    assert [p.image_id for p in asked] == sorted(p.image_id for p in asked), "each picture is read once"
    assert [p.key for p in asked] == [p.key for p in choose_questions(data, 5, seed=2)]
    assert [p.key for p in asked] != [p.key for p in choose_questions(data, 5, seed=3)]


def test_images_of_calibrations_are_not_asked_about(data):
    used = UsedImages({"test": frozenset(range(1, 12))}, frozenset())
    assert {p.image_id for p in choose_questions(data, 5, 0, used, "test")} == {0}
    with pytest.raises(DataError, match="no question is left for --nonsense"):
        choose_questions(data, 5, 0, UsedImages({"test": frozenset(range(12))}, frozenset()), "test")


def test_made_up_words_are_no_categories():
    rng = np.random.default_rng(0)
    known = {made_up_word(rng, ()) for _ in range(300)}
    again = np.random.default_rng(0)
    assert not known & {made_up_word(again, tuple(known)) for _ in range(300)}
    assert all(word.isalpha() and 4 <= len(word) <= 6 for word in known)


def test_nonsense_is_letters_or_sentences():
    rng = np.random.default_rng(0)
    phrases = [nonsense_phrase(rng) for _ in range(200)]
    letters = [p for p in phrases if not set(p) & set("aeiou")]
    assert 60 < len(letters) < 140 and all(len(p.split()) == 3 for p in letters)


def test_the_table_has_the_scores_of_each_kind(monkeypatch):
    """All agree on an object of the image, one of three has a box for what is absent, none for nonsense."""
    said = [[[A], [A], [A]], [[A], [], []], [[A], [B], [A]], [[], [], []]]
    found = collection_of(said, [[A], [], [], []])
    pairs = [Pair(0, None, name, (), kind) for name, kind in zip(("cup", "key", "bofi", "why"), KINDS, strict=True)]
    curve = Calibration(
        ModelIdentity("m", "internvl", 1, 1), "consensus", "agreement", (0.0, 1.0), (0.0, 1.0), questions=9, absent=4
    )
    monkeypatch.setattr(module, "read_store", lambda folder, may_be_empty: found)
    monkeypatch.setattr(module, "read_responses", lambda folder: [])
    monkeypatch.setattr(module, "describe", lambda *given: {})
    monkeypatch.setattr(module, "with_map_size", lambda config, lvlm: config)
    monkeypatch.setattr(
        CollectionCache, "place", lambda self, manifest, job: Place(Path("there"), isinstance(job, Job))
    )
    found.manifest["samples"] = 3
    scorers = [Scorer(Consensus(), curve), Scorer(FirstResponse("first-valid", greedy_decoding=False), None)]
    config = EvaluateConfig({"small": 1}, temperatures=(0.5, 1.0), samples=3)
    scores = unknown_phrases(None, scorers, pairs, CollectionCache(Path("work")), config, "test", "")
    table = unknown_phrases_table(scores, config)
    rows = {row.cells[1].value: [cell.value for cell in row.cells[2:]] for row in table.rows}
    assert {row.cells[0].value for row in table.rows} == {"consensus"}, "selectors that publish a probability"
    assert rows[PRESENT] == [1, pytest.approx(1.0), 0.0, 100.0]
    assert rows[ABSENT] == [1, pytest.approx(1 / 3), 0.0, 0.0]
    assert rows[WORD] == [1, pytest.approx(2 / 3), 0.0, 100.0]
    assert rows[NONSENSE] == [1, 0.0, 100.0, 0.0]
    assert "3 responses at tau = 0.5" in table.notes[0]
    reads = replace(curve, score_model=one_split(PRESENCE_FEATURE, [PRESENCE_FEATURE]))
    scorer = Scorer(Consensus(), replace(reads, presence=PresenceProbe((1.0,), 0.0)))
    with pytest.raises(DataError, match=r"consensus need the hidden states .* for 3 of 3 questions"):
        unknown_phrases(None, [scorer], pairs, CollectionCache(Path("work")), config, "test", "")
