"""A second look through the front door, with a small random model whose answers are given."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from acs_core import pipeline
from acs_core.errors import Cancelled
from acs_core.generation import schedule
from acs_core.generation.generate import generate
from acs_core.generation.token_sampler import TeacherForcing
from acs_core.geometry import Box
from acs_core.grounder import Grounder
from acs_core.selection.second_look import second_draw
from acs_core.types import BROKEN, SECOND_LOOK, STAGES, SamplingConfig, SecondLook, is_shortage

IMAGE = np.random.default_rng(0).integers(0, 255, (84, 126, 3), dtype=np.uint8)
SAMPLING = SamplingConfig(num_samples=4, max_new_tokens=64, seed=3)
WINDOW = Box(31.5, 21.0, 94.5, 63.0)  # half of IMAGE, around its middle


def answer(x1, y1, x2, y2):
    return f'[{{"bbox_2d": [{x1}, {y1}, {x2}, {y2}], "label": "key"}}]'


SMALL = answer(450, 450, 550, 550)  # in thousandths: 12.6 x 8.4 pixels in the middle
FINER = answer(420, 400, 580, 600)
LARGE = answer(300, 300, 700, 700)
NOTHING = "there is no key in the image"


@pytest.fixture(scope="module", params=["internvl", "qwen2_5_vl", "qwen3_vl"])
def grounder(request, model_folders):
    return Grounder.from_pretrained(model_folders[request.param], selector="mean-box", device="cpu")


@pytest.fixture(scope="module")
def internvl(model_folders):
    return Grounder.from_pretrained(model_folders["internvl"], selector="mean-box", device="cpu")


@pytest.fixture
def told(monkeypatch):
    """Makes the model give one answer per look; notes the draws: seed and responses."""

    def force(*looks):
        drawn = []

        def forced(lvlm, state, config, seeds, rows, **options):
            text = looks[min(len(drawn), len(looks) - 1)]
            drawn.append((seeds[0], config.num_samples))
            ids = lvlm.tokenizer(text, add_special_tokens=False)["input_ids"]
            count = len(rows) * len(seeds)
            written = generate(
                lvlm, state, TeacherForcing([ids] * count, lvlm.eos_ids[0]), len(rows), len(ids) + 1, **options
            )
            return tuple(replace(samples, seed=seed) for samples, seed in zip(written, seeds, strict=True))

        monkeypatch.setattr(schedule, "draw_more", forced)
        return drawn

    return force


def test_both_looks_are_chosen_from(internvl, told):
    drawn = told(SMALL, FINER)
    heard = []
    result = internvl.ground(IMAGE, "key", sampling=SAMPLING, second_look=True, on_stage=heard.append)
    assert drawn == [(3, 4), second_draw(SecondLook(), 4, 3)[::-1]]
    assert result.window.as_tuple() == pytest.approx(WINDOW.as_tuple())
    assert [c.look for c in result.candidates] == [0, 0, 0, 0, 1, 1]
    assert [c.response for c in result.candidates] == [0, 1, 2, 3, 4, 5] and len(result.responses) == 6
    x1, y1 = WINDOW.x1, WINDOW.y1
    expected = x1 + 0.42 * 63, y1 + 0.4 * 42, x1 + 0.58 * 63, y1 + 0.6 * 42
    assert result.candidates[5].box.as_tuple() == pytest.approx(expected)
    assert (*heard,) == (*STAGES, SECOND_LOOK) and set(result.timing_ms) == {"waiting", *STAGES, SECOND_LOOK, "total"}
    assert result.skipped == () and result.seed == 3


@pytest.mark.parametrize(
    ("look", "options", "why"),
    [
        (LARGE, {}, "large enough"),
        (NOTHING, {}, "found nothing to look at"),
        (SMALL, {"multiple": True}, "several objects"),
        (SMALL, {"deadline_ms": 600_000.0}, "deadline is 600000 ms"),
    ],
)
def test_no_second_look_and_why(internvl, told, monkeypatch, look, options, why):
    if "deadline_ms" in options:  # a first look that takes more than half of the time
        monkeypatch.setattr(pipeline.StageClock, "worked_ms", 599_999.0)
    drawn = told(look)
    plain = internvl.ground(IMAGE, "key", sampling=SAMPLING, **{k: v for k, v in options.items() if k == "multiple"})
    asked = internvl.ground(IMAGE, "key", sampling=SAMPLING, second_look=True, **options)
    (said,) = asked.skipped
    assert said.startswith("no second look: ") and why in said and {n for _, n in drawn} == {4}
    assert replace(asked, skipped=(), timing_ms={}) == replace(plain, timing_ms={})


def test_a_selector_that_takes_the_first_answer_is_not_asked_twice(model_folders, told):
    drawn = told(SMALL)
    grounder = Grounder.from_pretrained(model_folders["internvl"], selector="first-valid", device="cpu")
    result = grounder.ground(IMAGE, "key", sampling=SAMPLING, second_look=True)
    assert result.skipped == ("no second look: first-valid takes the first answer in any case",) and len(drawn) == 1


def test_an_empty_second_look_leaves_the_first_answer(internvl, told):
    told(SMALL)
    plain = internvl.ground(IMAGE, "key", sampling=SAMPLING)
    told(SMALL, NOTHING)
    asked = internvl.ground(IMAGE, "key", sampling=SAMPLING, second_look=True)
    assert asked.detections == plain.detections and len(asked.candidates) == 4 and len(asked.responses) == 6
    assert asked.window and asked.skipped == ()


def test_a_second_look_of_which_nothing_counts_is_none(internvl, told, monkeypatch):
    """The deadline cuts off its responses before their first box, which says nothing about the object."""

    def cut_off(self, max_new_tokens):
        return tuple(r.text == "[" for r in self.responses)

    monkeypatch.setattr(schedule.ScheduledGenerations, "cut_off", cut_off)
    told(SMALL)
    plain = internvl.ground(IMAGE, "key", sampling=SAMPLING)
    told(SMALL, "[")
    asked = internvl.ground(IMAGE, "key", sampling=SAMPLING, second_look=True, deadline_ms=600_000.0)
    assert asked.skipped == ("no second look: it was cut off before a box, the deadline is 600000 ms",)
    assert asked.window is None and is_shortage(asked.skipped[0])
    assert replace(asked, skipped=(), timing_ms={}) == replace(plain, timing_ms={})


def test_a_broken_second_look_without_a_counted_response_is_told(internvl, told, monkeypatch):
    real = pipeline._look_again

    def broken(*arguments):
        seen, said = real(*arguments)
        responses = tuple(replace(r, num_boxes=0, problem=BROKEN) for r in seen.responses)
        return replace(seen, candidates=(), responses=responses, record=seen.record.only([]).of_responses(0)), said

    told(SMALL, "[")
    monkeypatch.setattr(pipeline, "_look_again", broken)
    result = internvl.ground(IMAGE, "key", sampling=SAMPLING, second_look=True)
    assert result.window is not None and result.detections == () and result.reason == BROKEN


def test_without_the_option_nothing_is_enlarged(grounder, monkeypatch):
    def never(*_):
        raise AssertionError("looked again")

    plain = grounder.ground(IMAGE, "key", sampling=SAMPLING)
    monkeypatch.setattr(pipeline, "_second_looks", never)
    off = grounder.ground(IMAGE, "key", sampling=SAMPLING, second_look=False)
    assert replace(off, timing_ms={}) == replace(plain, timing_ms={})
    assert off.window is None and set(off.timing_ms) == {"waiting", *STAGES, "total"}


def test_each_phrase_has_its_own_window(internvl, told):
    left = answer(0, 450, 100, 550)
    drawn = told(SMALL, FINER, left)
    key, dog = internvl.ground_many(IMAGE, ["key", "dog"], sampling=SAMPLING, second_look=SecondLook(4.0, 3))
    assert [n for _, n in drawn] == [4, 3, 3]
    assert key.window == dog.window and key.window.width == pytest.approx(126 / 4)
    assert key.candidates[-1].box != dog.candidates[-1].box and key.timing_ms == dog.timing_ms


def test_auto_samples_stop_in_both_looks(internvl, told):
    told(SMALL, FINER)
    result = internvl.ground(IMAGE, "key", sampling=replace(SAMPLING, num_samples=20, auto=True), second_look=True)
    assert len(result.responses) == 10
    assert result.skipped == (
        "15 of 20 responses were not needed: the first 5 agree",
        "second look: 5 of 10 responses were not needed: the first 5 agree",
    )


def test_memory_that_runs_out_in_the_second_look_leaves_the_first(internvl, told, monkeypatch):
    told(SMALL)
    real, calls = pipeline.prefill, []

    def tight(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("tried to allocate 2 GiB")
        return real(*arguments)

    monkeypatch.setattr(pipeline, "prefill", tight)
    result = internvl.ground(IMAGE, "key", sampling=SAMPLING, second_look=True)
    assert result.best and result.window is None
    assert result.skipped == ("no second look: cpu ran out of memory",) and len(result.responses) == 4


def test_a_stop_in_the_second_look_ends_the_call(internvl, told):
    told(SMALL)
    heard = []
    with pytest.raises(Cancelled):
        internvl.ground(
            IMAGE,
            "key",
            sampling=SAMPLING,
            second_look=True,
            on_stage=heard.append,
            should_stop=lambda: SECOND_LOOK in heard,
        )


def test_the_attention_is_that_of_the_first_look(internvl, told):
    told(SMALL, FINER)
    plain = internvl.ground(IMAGE, "key", sampling=SAMPLING, with_attention=True)
    told(SMALL, FINER)
    asked = internvl.ground(IMAGE, "key", sampling=SAMPLING, with_attention=True, second_look=True)
    np.testing.assert_allclose(asked.attention, plain.attention)


def test_the_window_in_a_region_is_in_pixels_of_the_whole_image(internvl, told):
    told(SMALL, FINER)
    region = Box(20, 10, 104, 66)
    crop = np.ascontiguousarray(IMAGE[10:66, 20:104])
    alone = internvl.ground(crop, "key", sampling=SAMPLING, second_look=True)
    told(SMALL, FINER)
    result = internvl.ground(IMAGE, "key", sampling=SAMPLING, second_look=True, region=region)
    assert alone.window is not None and result.window is not None and result.region == region
    assert result.window.as_tuple() == tuple(v + o for v, o in zip(alone.window.as_tuple(), (20, 10) * 2, strict=True))
    assert [c.in_window for c in result.candidates] == [c.in_window for c in alone.candidates]
