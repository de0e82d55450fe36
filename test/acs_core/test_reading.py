"""Prompts about one picture are read together: what they share once, and the rest as if it had been read in one go."""

import numpy as np
import pytest
import torch

from acs_core.errors import Cancelled
from acs_core.reading import read

PHRASES = ["key", "dog", "a very small dog behind the key"]


def test_what_is_read_together_equals_what_is_read_alone(lvlm, picture):
    together = read(lvlm, lvlm.prepare_many(picture, PHRASES))
    assert len(together.prompts) == 3 and together.trunk.length > together.prompts[0].map_slice[1]
    for k, phrase in enumerate(PHRASES):
        alone = read(lvlm, [lvlm.prepare(picture, phrase)])
        assert alone.tails == (None,)
        torch.testing.assert_close(together.logits[k], alone.logits[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.queries[k], alone.queries[0], atol=1e-4, rtol=1e-4)
        for layer in range(lvlm.num_layers):
            for what in ("keys", "values"):
                parts = getattr(together.trunk, what)[layer], getattr(together.tails[k], what)[layer]
                torch.testing.assert_close(
                    torch.cat(parts, dim=1), getattr(alone.trunk, what)[layer], atol=1e-4, rtol=1e-4
                )


def test_some_of_the_prompts(lvlm, picture):
    reading = read(lvlm, lvlm.prepare_many(picture, PHRASES))
    some = reading.only([0, 2])
    assert [p.phrase for p in some.prompts] == [PHRASES[0], PHRASES[2]]
    assert some.trunk is reading.trunk and some.tails == (reading.tails[0], reading.tails[2])
    assert some.logits[1] is reading.logits[2] and some.queries[1] is reading.queries[2]
    assert reading.only([0, 1, 2]) is reading


def test_the_vision_tower_runs_once_for_all_phrases(lvlm, picture):
    calls = []
    tower = lvlm.hf_model.model.visual if lvlm.family == "qwen2_5_vl" else lvlm.hf_model.model.vision_tower
    hook = tower.register_forward_hook(lambda *_: calls.append(1))
    try:
        read(lvlm, lvlm.prepare_many(picture, PHRASES))
    finally:
        hook.remove()
    assert calls == [1]


def test_only_phrases_about_one_picture_are_read_together(lvlm, picture):
    with pytest.raises(ValueError, match="different pictures"):
        read(lvlm, [lvlm.prepare(picture, "key"), lvlm.prepare(np.flip(picture, 0).copy(), "key")])
    with pytest.raises(ValueError, match="no prompts"):
        read(lvlm, [])


def test_a_stop_is_noticed_before_each_forward(lvlm, picture):
    prompts = lvlm.prepare_many(picture, PHRASES)
    for calls in range(4):
        asked = iter(range(100))
        with pytest.raises(Cancelled, match="before the model read"):
            read(lvlm, prompts, should_stop=lambda asked=asked, calls=calls: next(asked) >= calls)
