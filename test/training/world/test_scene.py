from dataclasses import replace

import numpy as np
import pytest

from training.world.scene import LOOKALIKES, WorldConfig, choose_names
from training.world.sprites import category_names

NAMES = category_names()


def casts(config, count, seeds=200):
    return [choose_names(np.random.default_rng(seed), NAMES, count, config) for seed in range(seeds)]


def test_every_category_has_lookalikes_that_exist():
    assert {name for group in LOOKALIKES for name in group} <= set(NAMES)
    assert {name for group in LOOKALIKES for name in group} >= set(NAMES)
    assert all(len(set(group)) == len(group) > 1 for group in LOOKALIKES)


@pytest.mark.parametrize("count", [1, 2, 12, 60])
def test_a_cast_has_the_asked_number(count):
    for cast in casts(WorldConfig(), count, 20):
        assert len(cast) == count and set(cast) <= set(NAMES)


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0.0, 0.0), (0.2, 0.1, 0.3), (1.0, 1.0, 1.0)])
def test_categories_repeat_as_often_as_asked(share, low, high):
    repeated = [len(set(cast)) < 6 for cast in casts(replace(WorldConfig(), repeat_share=share), 6)]
    assert low <= np.mean(repeated) <= high


def test_lookalikes_come_together_more_often_than_by_chance():
    def met(share):
        return np.mean(
            [
                any(a != b and {a, b} <= set(group) for group in LOOKALIKES for a in cast for b in cast)
                for cast in casts(replace(WorldConfig(), lookalike_share=share, repeat_share=0.0), 3)
            ]
        )

    assert met(1.0) == 1.0
    assert met(0.0) < 0.7
