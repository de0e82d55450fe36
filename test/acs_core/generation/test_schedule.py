"""How many responses are drawn, and when no more are."""

import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

import acs_core.generation.schedule as module
from acs_core.generation.generate import generate
from acs_core.generation.prefill import prefill
from acs_core.generation.schedule import (
    FIRST,
    Deadline,
    ScheduledGenerations,
    ThroughputEstimate,
    greedy_on_schedule,
    sample_on_schedule,
    should_stop_early,
)
from acs_core.generation.token_sampler import TeacherForcing
from acs_core.geometry import Box
from acs_core.types import Candidate, Response, SamplingConfig

HERE_TEXT, THERE_TEXT = "[10, 20, 30, 40]", "[40, 50, 60, 70]"
FOREVER = Deadline(None, 0.0)
HERE, NEAR, THERE = Box(0, 0, 10, 10), Box(0, 0, 10, 12), Box(50, 50, 60, 60)
ROUGHLY = Box(0, 0, 10, 17)  # IoU 0.59 with HERE


@dataclass
class Clock:
    """Stands for the module ``time``: it goes only where a test lets it."""

    now: float = 1000.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def waves(monkeypatch, clock):
    """Forces answers by phrase; gives the list of waves that were drawn, as (phrases, first, last)."""
    drawn = []

    def force(texts, wave_s=0.0):
        def forced(lvlm, state, config, seeds, rows, *, token_statistics, **stops):
            drawn.append((tuple(p.phrase for p in state.prompts), rows.start, rows.stop))
            clock.now += wave_s
            ids = [
                lvlm.tokenizer(texts[p.phrase][i], add_special_tokens=False)["input_ids"]
                for p in state.prompts
                for i in rows
            ]
            limit = max(map(len, ids)) + 1
            draw = TeacherForcing(ids, lvlm.eos_ids[0])
            return generate(lvlm, state, draw, len(rows), limit, token_statistics=token_statistics, **stops)

        monkeypatch.setattr(module, "draw_more", forced)
        return drawn

    return force


def ask(lvlm, picture, phrases, n=10, deadline=FOREVER, throughput=None, auto=False):
    state = prefill(lvlm, lvlm.prepare_many(picture, phrases))
    config = SamplingConfig(num_samples=n, auto=auto)
    return sample_on_schedule(
        lvlm, state, config, [0] * len(phrases), deadline=deadline, throughput=throughput or ThroughputEstimate()
    )


def test_all_at_once_without_a_reason_not_to(lvlm, picture, waves):
    drawn = waves({"key": [HERE_TEXT] * 10})
    (answers,) = ask(lvlm, picture, ["key"])
    assert drawn == [(("key",), 0, 10)]
    assert (len(answers.responses), len(answers.candidates), answers.skipped) == (10, 10, ())


def test_auto_stops_when_responses_agree_for_each_phrase_apart(lvlm, picture, waves):
    texts = {"key": [HERE_TEXT] * 10, "dog": [HERE_TEXT, THERE_TEXT] * 5}
    drawn = waves(texts)
    key, dog = ask(lvlm, picture, ["key", "dog"], auto=True)
    assert drawn == [(("key", "dog"), 0, 5), (("dog",), 5, 10)]
    assert [r.text for r in key.responses] == texts["key"][:5]
    assert [r.text for r in dog.responses] == texts["dog"]
    assert [c.response for c in dog.candidates] == list(range(10))
    assert key.skipped == ("5 of 10 responses were not needed: the first 5 agree",) and dog.skipped == ()


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, [(0, 1)]), (5, [(0, 5)]), (6, [(0, 6)]), (8, [(0, 5), (5, 8)]), (12, [(0, 5), (5, 10), (10, 12)])],
)
def test_waves_cover_every_response_once(lvlm, picture, waves, n, expected):
    drawn = waves({"key": [HERE_TEXT, THERE_TEXT] * 6})
    ask(lvlm, picture, ["key"], n=n, auto=True)
    assert [wave[1:] for wave in drawn] == expected


def test_a_deadline_known_to_suffice_changes_nothing(lvlm, picture, waves, clock):
    drawn = waves({"key": [HERE_TEXT] * 10})
    throughput = ThroughputEstimate()
    throughput.note_wave(10, 50.0)
    (answers,) = ask(lvlm, picture, ["key"], deadline=Deadline(1e6, clock.now), throughput=throughput)
    assert drawn == [(("key",), 0, 10)] and answers.skipped == ()


def test_under_an_unknown_deadline_a_small_wave_comes_first(lvlm, picture, waves, clock):
    drawn = waves({"key": [HERE_TEXT] * 10})
    (answers,) = ask(lvlm, picture, ["key"], deadline=Deadline(1e6, clock.now))
    assert drawn == [(("key",), 0, FIRST), (("key",), FIRST, 10)] and answers.skipped == ()


def test_no_wave_is_begun_that_will_not_fit(lvlm, picture, waves, clock):
    waves({"key": [HERE_TEXT] * 10}, wave_s=0.3)
    deadline = Deadline(1e6, clock.now, reserve_ms=1e6 - 550)
    (answers,) = ask(lvlm, picture, ["key"], deadline=deadline)
    n = len(answers.responses)
    assert n == FIRST  # a wave takes 0.3 s of 0.55
    assert answers.skipped[0] == f"{10 - n} of 10 responses were not begun: the deadline is 1000000 ms"


def test_a_passed_deadline_cuts_the_wave_and_says_so(lvlm, picture, waves, clock):
    waves({"key": [HERE_TEXT] * 10})
    (answers,) = ask(lvlm, picture, ["key"], deadline=Deadline(5.0, clock.now - 1.0))
    assert answers.candidates == () and len(answers.responses) == FIRST
    assert answers.skipped == (
        "5 of 10 responses were not begun: the deadline is 5 ms",
        "5 of 5 responses were cut off: the deadline is 5 ms",
    )


def test_greedy_answers_stop_in_time_too(lvlm, picture, clock):
    state = prefill(lvlm, lvlm.prepare_many(picture, ["key", "dog"]))
    answers = greedy_on_schedule(lvlm, state, SamplingConfig(max_new_tokens=6), FOREVER)
    assert [len(a.responses) for a in answers] == [1, 1] and all(a.skipped == () for a in answers)
    late = greedy_on_schedule(lvlm, state, SamplingConfig(max_new_tokens=6), Deadline(5.0, clock.now - 1.0))
    assert late[0].skipped == ("1 of 1 responses were cut off: the deadline is 5 ms",)


def drawn(*answers):
    candidates = [
        Candidate(box, "", i, k, (0, 1, 2, 3)) for i, boxes in enumerate(answers) for k, box in enumerate(boxes)
    ]
    return candidates, [Response("", len(boxes), True) for boxes in answers]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], False),
        ([[HERE], [NEAR], [HERE], [HERE]], False),  # too few to tell
        ([[HERE], [NEAR], [HERE], [HERE], [NEAR]], True),
        ([[HERE], [NEAR], [THERE], [HERE], [HERE]], True),  # four of five
        ([[HERE], [THERE], [THERE], [HERE], [HERE]], False),
        ([[HERE], [ROUGHLY], [ROUGHLY], [HERE], [HERE]], False),
        ([[], [], [], [], []], True),  # all say that it is not there
        ([[], [], [], [HERE], [HERE]], False),
        ([[HERE, HERE, HERE], [], [THERE], [], [HERE]], False),  # one response has one opinion
        ([[HERE, THERE], [THERE], [NEAR, THERE], [], [THERE]], True),
        ([[HERE]] * 5 + [[THERE]] * 2, False),  # five of seven
        ([[HERE]] * 6 + [[THERE]], True),
    ],
)
def test_when_responses_agree(answers, expected):
    assert should_stop_early(*drawn(*answers)) is expected


def test_responses_that_were_cut_off_say_nothing():
    assert not should_stop_early([], [Response("", 0, False)] * 5)
    assert should_stop_early([], [Response("", 0, True)] * 5)


def test_the_share_is_an_option():
    answers = drawn([HERE], [NEAR], [HERE], [THERE], [THERE])
    assert should_stop_early(*answers, share=0.6) and not should_stop_early(*answers, share=0.7)


@pytest.mark.parametrize(
    ("finished", "tokens", "boxes", "counted"),
    [
        ((True, True), (3, 5), (1, 0), 2),  # an answer without a box is an answer
        ((True, False), (3, 5), (1, 0), 1),  # cut off before its box, if it would have had one
        ((True, False), (3, 5), (1, 1), 2),  # cut off after a box
        ((True, False), (3, 9), (1, 0), 2),  # all the tokens that it may have, and no box
        ((False, False), (0, 0), (0, 0), 0),
    ],
)
def test_what_the_deadline_cut_off_does_not_count(finished, tokens, boxes, counted):
    samples = SimpleNamespace(finished=finished, response_ids=tuple((7,) * n for n in tokens))
    responses = tuple(Response("", n, done) for n, done in zip(boxes, finished, strict=True))
    assert ScheduledGenerations(samples, (), responses).counted(max_new_tokens=9) == counted


def test_no_deadline_never_passes():
    never = Deadline(None, start=0.0)
    assert not never.is_set and never.left_ms() == math.inf and not never.passed()


def test_what_is_left_is_counted_from_the_start_and_less_the_reserve(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now))
    assert Deadline(1e6, now, reserve_ms=4e5).left_ms() == pytest.approx(6e5)
    assert Deadline(1e6, now - 250.0).left_ms() == pytest.approx(7.5e5)
    assert Deadline(1e6, now - 2000.0).passed()
    assert not Deadline(1e6, now).passed()
    assert Deadline(1e6, now, reserve_ms=1.1e6).passed()


def test_pace_knows_what_it_saw_and_scales_up():
    throughput = ThroughputEstimate()
    assert throughput.wave_ms(3) is None and throughput.after_ms == 0
    throughput.note_wave(3, 100.0)
    assert throughput.wave_ms(3) == 100.0
    assert throughput.wave_ms(6) == 200.0
    assert throughput.wave_ms(2) is None
    throughput.note_wave(3, 300.0)
    assert throughput.wave_ms(3) == 200.0  # an outlier counts half
    throughput.note_wave(10, 150.0)
    assert throughput.wave_ms(10) == 150.0
    throughput.note_after(8.0)
    throughput.note_after(4.0)
    assert throughput.after_ms == 6.0
