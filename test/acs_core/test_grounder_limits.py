"""A Grounder within limits: several phrases, little time, little memory, and callers who change their mind."""

import gc
import threading
import weakref

import pytest
import torch
from grounder_parts import ANSWERS, IMAGE

import acs_core.pipeline as module
from acs_core.errors import Cancelled, DeviceMemoryError
from acs_core.generation.shared_cache import SharedPrefixCache
from acs_core.grounder import Grounder
from acs_core.types import STAGES, SamplingConfig

SAMPLING = SamplingConfig(num_samples=6, max_new_tokens=12, temperature=1.0, seed=3)


@pytest.fixture(scope="module", params=["internvl", "qwen2_5_vl", "qwen3_vl"])
def grounder(request, model_folders):
    return Grounder.from_pretrained(model_folders[request.param], selector="first-valid", device="cpu")


def texts(result):
    return [response.text for response in result.responses]


def test_phrases_together_answer_as_if_alone(grounder):
    phrases = ["key", "dog", "small  dog"]
    together = grounder.ground_many(IMAGE, phrases, sampling=SAMPLING)
    assert [r.phrase for r in together] == ["key", "dog", "small dog"]
    for phrase, result in zip(phrases, together, strict=True):
        alone = grounder.ground(IMAGE, phrase, sampling=SAMPLING)
        assert texts(result) == texts(alone)
        assert (result.seed, result.detections, result.reason) == (alone.seed, alone.detections, alone.reason)
    assert together[0].timing_ms == together[2].timing_ms


def test_stages_are_announced_in_order(grounder):
    heard = []
    grounder.ground(IMAGE, "key", sampling=SAMPLING, on_stage=heard.append)
    assert tuple(heard) == STAGES


def test_a_deadline_in_the_past_gives_an_empty_answer_that_says_why(grounder):
    result = grounder.ground(IMAGE, "key", sampling=SAMPLING, deadline_ms=1e-3)
    assert result.detections == () and "cut off" in result.reason
    assert result.skipped[-1].endswith("the deadline is 0 ms")


def test_memory_runs_out_and_half_the_samples_are_drawn(grounder, monkeypatch):
    real = module.sample_on_schedule

    def tight(lvlm, state, config, seeds, **options):
        if config.num_samples > 2:
            raise torch.OutOfMemoryError("tried to allocate 2 GiB")
        return real(lvlm, state, config, seeds, **options)

    whole = grounder.ground(IMAGE, "key", sampling=SAMPLING)
    monkeypatch.setattr(module, "sample_on_schedule", tight)
    result = grounder.ground(IMAGE, "key", sampling=SAMPLING)
    assert texts(result) == texts(whole)[:1]  # 6, then 3, then 1
    assert result.skipped == ("5 of 6 responses: cpu ran out of memory",)
    monkeypatch.undo()
    assert texts(grounder.ground(IMAGE, "key", sampling=SAMPLING)) == texts(whole)


def test_recorded_steps_give_their_memory_back_when_it_runs_out(grounder, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    monkeypatch.setattr(module, "capture", full)
    grounder.lvlm.graphs.kept[1, 2, 3] = object()
    with pytest.raises(DeviceMemoryError):
        grounder.ground(IMAGE, "key", sampling=SAMPLING)
    assert not grounder.lvlm.graphs.kept


def test_no_room_at_all_is_a_named_error_and_the_next_call_works(grounder, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    monkeypatch.setattr(module, "prefill", full)
    with pytest.raises(DeviceMemoryError, match=r"cpu has no room .* 126 x 84 pixels .*2 GiB.*smaller pictures"):
        grounder.ground(IMAGE, "key", sampling=SAMPLING)
    monkeypatch.undo()
    assert len(grounder.ground(IMAGE, "key", sampling=SAMPLING).responses) == 6


def test_a_stop_ends_the_call_within_a_step_and_gives_its_memory_back(grounder, monkeypatch):
    alive = []
    steps = []
    real = SharedPrefixCache.end_step

    def noting(self):
        steps.append(1)
        if len(steps) == 1:
            alive.extend([weakref.ref(self), weakref.ref(self.keys[0]), weakref.ref(self.prefix.keys[0])])
        return real(self)

    monkeypatch.setattr(SharedPrefixCache, "end_step", noting)
    before = texts(grounder.ground(IMAGE, "key", sampling=SAMPLING))
    steps.clear()
    alive.clear()
    with pytest.raises(Cancelled, match="while the model was answering"):
        grounder.ground(IMAGE, "key", sampling=SAMPLING, should_stop=lambda: len(steps) >= 4)
    assert len(steps) == 4
    gc.collect()
    assert len(alive) == 3 and all(ref() is None for ref in alive)
    monkeypatch.undo()
    assert texts(grounder.ground(IMAGE, "key", sampling=SAMPLING)) == before


@pytest.mark.parametrize("calls", [0, 2])
def test_stops_when_asked(grounders, answers, calls):
    answers(*ANSWERS)
    asked = iter(range(10_000))
    with pytest.raises(Cancelled):
        grounders().ground(IMAGE, "key", should_stop=lambda: next(asked) >= calls)
    assert grounders().ground(IMAGE, "key").detections


def test_a_call_that_waits_for_another_can_be_stopped(grounders):
    grounder = grounders()
    held, release = threading.Event(), threading.Event()

    def hold():
        with grounder.lvlm.lock:
            held.set()
            release.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    try:
        with pytest.raises(Cancelled, match="waiting"):
            grounder.ground(IMAGE, "key", should_stop=lambda: True)
    finally:
        release.set()
        thread.join()


def test_threads_share_one_grounder(grounders, answers):
    answers(*ANSWERS)
    grounder, results = grounders(), []

    def call(seed):
        results.append(grounder.ground(IMAGE, "key", sampling=SamplingConfig(seed=seed)))

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(r.seed for r in results) == [0, 1, 2]
    assert len({tuple(c.quality for c in r.candidates) for r in results}) == 1


def test_answers_that_the_deadline_cut_off_are_no_evidence_of_absence(grounders, answers, monkeypatch):
    """Two answers with the same box, and two that were cut off before theirs: all that are known agree."""
    from grounder_parts import ONE, answer

    from acs_core.generation.schedule import ScheduledGenerations

    answers(answer(ONE), answer(ONE), "[", "[")
    grounder = grounders("consensus")
    counted = grounder.ground(IMAGE, "key").detections[0].score
    monkeypatch.setattr(ScheduledGenerations, "cut_off", lambda self, limit: (False, False, True, True))
    assert counted == pytest.approx(0.5)
    assert grounder.ground(IMAGE, "key").detections[0].score == pytest.approx(1.0)
