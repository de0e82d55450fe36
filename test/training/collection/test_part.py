from dataclasses import replace

import numpy as np
import pytest
from tiny_parts import some_pairs

from acs_core.artifacts.registry import resolve_model
from acs_core.generation.prefill import prefill
from acs_core.geometry import Box, best_iou
from acs_core.lvlm import load_lvlm
from training.collection import part
from training.collection.collect import ask
from training.collection.job import PAIRS_PER_PART, CollectConfig, Job, with_map_size
from training.collection.part import make_part, make_parts
from training.collection.part_arrays import LEVELS, decode, step_share

FEW = CollectConfig(samples=3, max_new_tokens=64)


@pytest.fixture(scope="module")
def lvlm():
    return load_lvlm(resolve_model("tiny-internvl"), device="cpu")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return tuple(some_pairs(tmp_path_factory.mktemp("world"), "test", PAIRS_PER_PART + 3))


def test_a_part_holds_its_pairs_answers_and_candidates(lvlm, pairs):
    made = make_part(lvlm, Job(pairs, FEW), 1)
    assert made.pairs == (10, 11, 12) and made.skipped == {}
    assert [(a["pair"], a["response"]) for a in made.answers] == [(p, r) for p in made.pairs for r in range(3)]
    count, shape = len(made.rows), (lvlm.num_layers, lvlm.num_heads)
    assert count > 0 and made.rows.shape == (count, 17) and made.entropy.shape == (count, 4, *shape)
    assert made.codes.shape[1:3] == made.unit.shape[1:] == shape
    for iou, *box, pair, image in made.rows[:, :7]:
        assert pairs[int(pair)].image_id == image
        assert iou == pytest.approx(best_iou(Box(*box), pairs[int(pair)].truth))


@pytest.mark.parametrize("step", ["emitting", "consuming"])
def test_each_map_is_kept_once_and_found_by_its_place(lvlm, pairs, step):
    config = with_map_size(replace(FEW, step=step), lvlm)
    made = make_part(lvlm, Job(pairs[:3], config), 0)
    assert sorted(set(made.place.flat)) == list(range(len(made.codes)))
    assert len(made.codes) < made.place.size, "responses that begin alike share maps"
    for pair in range(3):
        _, _, record, _ = ask(lvlm, pairs[pair].read(), pairs[pair].category, config, config.seed + pair)
        place = made.place[made.rows[:, 5] == pair]
        maps, largest = decode(made.codes[place], made.unit[place]), record.maps.max(axis=(-2, -1))
        np.testing.assert_allclose(maps.sum(axis=(-2, -1)), record.maps.sum(axis=(-2, -1)), rtol=1e-3)
        roots = np.sqrt(record.maps)
        step = np.maximum(np.sqrt(largest) / LEVELS, step_share(maps.shape[-2:]) * roots.std(axis=(-2, -1)))
        assert (np.abs(np.sqrt(maps) - roots) <= step[..., None, None]).all(), "a step"


def test_what_cannot_be_read_is_skipped_and_told(lvlm, pairs, tmp_path):
    broken = replace(pairs[1], file=tmp_path / "none.png")
    told = []
    made = make_part(lvlm, Job((pairs[0], broken, pairs[2]), FEW), 0, told.append)
    assert made.pairs == (0, 2) and set(made.rows[:, 5]) <= {0.0, 2.0}
    assert list(made.skipped) == [1] and "none.png" in made.skipped[1]
    assert told == [made.skipped[1], "", ""]


def test_a_part_of_nothing_but_broken_pictures_is_empty(lvlm, pairs, tmp_path):
    broken = replace(pairs[0], file=tmp_path / "none.png")
    made = make_part(lvlm, Job((broken,) * 2, FEW), 0)
    assert made.pairs == () and set(made.skipped) == {0, 1} and made.answers == ()
    assert [len(a) for a in (made.codes, made.unit, made.place, made.entropy, made.rows)] == [0] * 5
    assert made.rows.shape[1] == 17 and made.place.shape[1] == 4


def test_greedy_gives_one_response(lvlm, pairs):
    made = make_part(lvlm, Job(pairs[:5], CollectConfig(greedy=True, max_new_tokens=64)), 0)
    assert [a["response"] for a in made.answers] == [0] * 5 and set(made.rows[:, 7]) == {0.0}


def test_jobs_that_differ_in_the_step_share_their_responses(lvlm, pairs):
    both = [Job(pairs[:3], replace(FEW, step=step)) for step in ("emitting", "consuming")]
    usual, later = (draft.finish() for draft in make_parts(lvlm, both, 0))
    assert usual.answers == later.answers and np.array_equal(usual.rows, later.rows)
    assert not np.allclose(usual.entropy, later.entropy)


def test_pairs_about_one_picture_share_the_reading_of_its_tokens(lvlm, pairs, monkeypatch):
    reads = []
    monkeypatch.setattr(part, "prefill", lambda *a: reads.append(len(a[1])) or prefill(*a))
    some = tuple(replace(pairs[0], category=name) for name in ("car", "key", "car")) + pairs[-1:]
    together = make_part(lvlm, Job(some, FEW), 0)
    assert reads == [3, 1]
    monkeypatch.setattr(part, "_of_one_picture", lambda _, numbers: ([i] for i in numbers))
    alone = make_part(lvlm, Job(some, FEW), 0)
    assert reads == [3, 1, 1, 1, 1, 1]
    assert together.pairs == alone.pairs and np.array_equal(together.rows, alone.rows)
    assert [a["text"] for a in together.answers] == [a["text"] for a in alone.answers]
    np.testing.assert_allclose(together.entropy, alone.entropy, atol=1e-3)


def test_a_phrase_that_cannot_be_used_does_not_concern_the_other_pairs_of_its_picture(lvlm, pairs):
    some = tuple(replace(pairs[0], category=name) for name in ("car", "", "key"))
    made = make_part(lvlm, Job(some, FEW), 0)
    assert made.pairs == (0, 2) and list(made.skipped) == [1]
