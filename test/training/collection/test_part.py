from dataclasses import replace

import numpy as np
import pytest
from tiny_parts import some_pairs

from acs_core.artifacts.registry import resolve_model
from acs_core.geometry import Box, best_iou
from acs_core.lvlm import load_lvlm
from training.collection.collect import ask
from training.collection.job import PAIRS_PER_PART, CollectConfig, Job, with_map_size
from training.collection.part import make_part, make_parts
from training.collection.part_arrays import LEVELS, decode

FEW = CollectConfig(samples=3, max_new_tokens=64)


@pytest.fixture(scope="module")
def lvlm():
    return load_lvlm(resolve_model("tiny-internvl"), device="cpu")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return tuple(some_pairs(tmp_path_factory.mktemp("world"), "test", PAIRS_PER_PART + 3))


def test_a_part_holds_its_pairs_answers_and_candidates(lvlm, pairs):
    part = make_part(lvlm, Job(pairs, FEW), 1)
    assert part.pairs == (10, 11, 12) and part.skipped == {}
    assert [(a["pair"], a["response"]) for a in part.answers] == [(p, r) for p in part.pairs for r in range(3)]
    count, shape = len(part.rows), (lvlm.num_layers, lvlm.num_heads)
    assert count > 0 and part.rows.shape == (count, 17) and part.entropy.shape == (count, 4, *shape)
    assert part.codes.shape[1:3] == part.unit.shape[1:] == shape
    for iou, *box, pair, image in part.rows[:, :7]:
        assert pairs[int(pair)].image_id == image
        assert iou == pytest.approx(best_iou(Box(*box), pairs[int(pair)].truth))


@pytest.mark.parametrize("step", ["emitting", "consuming"])
def test_each_map_is_kept_once_and_found_by_its_place(lvlm, pairs, step):
    config = with_map_size(replace(FEW, step=step), lvlm)
    part = make_part(lvlm, Job(pairs[:3], config), 0)
    assert sorted(set(part.place.flat)) == list(range(len(part.codes)))
    assert len(part.codes) < part.place.size, "responses that begin alike share maps"
    for pair in range(3):
        _, _, record, _ = ask(lvlm, pairs[pair].read(), pairs[pair].category, config, config.seed + pair)
        place = part.place[part.rows[:, 5] == pair]
        maps, largest = decode(part.codes[place], part.unit[place]), record.maps.max(axis=(-2, -1))
        np.testing.assert_allclose(maps.sum(axis=(-2, -1)), record.maps.sum(axis=(-2, -1)), rtol=1e-3)
        error = np.abs(np.sqrt(maps) - np.sqrt(record.maps))
        assert (error <= np.sqrt(largest)[..., None, None] / LEVELS).all(), "a step"


def test_what_cannot_be_read_is_skipped_and_told(lvlm, pairs, tmp_path):
    broken = replace(pairs[1], file=tmp_path / "none.png")
    told = []
    part = make_part(lvlm, Job((pairs[0], broken, pairs[2]), FEW), 0, told.append)
    assert part.pairs == (0, 2) and set(part.rows[:, 5]) <= {0.0, 2.0}
    assert list(part.skipped) == [1] and "none.png" in part.skipped[1]
    assert told == [part.skipped[1], "", ""]


def test_a_part_of_nothing_but_broken_pictures_is_empty(lvlm, pairs, tmp_path):
    broken = replace(pairs[0], file=tmp_path / "none.png")
    part = make_part(lvlm, Job((broken,) * 2, FEW), 0)
    assert part.pairs == () and set(part.skipped) == {0, 1} and part.answers == ()
    assert [len(a) for a in (part.codes, part.unit, part.place, part.entropy, part.rows)] == [0] * 5
    assert part.rows.shape[1] == 17 and part.place.shape[1] == 4


def test_greedy_gives_one_response(lvlm, pairs):
    part = make_part(lvlm, Job(pairs[:5], CollectConfig(greedy=True, max_new_tokens=64)), 0)
    assert [a["response"] for a in part.answers] == [0] * 5 and set(part.rows[:, 7]) == {0.0}


def test_jobs_that_differ_in_the_step_share_their_responses(lvlm, pairs):
    both = [Job(pairs[:3], replace(FEW, step=step)) for step in ("emitting", "consuming")]
    usual, later = make_parts(lvlm, both, 0)
    assert usual.answers == later.answers and np.array_equal(usual.rows, later.rows)
    assert not np.allclose(usual.entropy, later.entropy)
