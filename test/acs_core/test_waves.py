"""How many responses are drawn, and when no more are."""

import time

import pytest

import acs_core.waves as module
from acs_core.agreement import FIRST
from acs_core.deadline import Deadline, Pace
from acs_core.drawing import Forced
from acs_core.reading import read
from acs_core.sampling import write
from acs_core.types import SamplingConfig
from acs_core.waves import draw_answers, greedy_answers

HERE, THERE = "[10, 20, 30, 40]", "[40, 50, 60, 70]"
FOREVER = Deadline(None, 0.0)


@pytest.fixture
def waves(monkeypatch):
    """Forces answers by phrase; gives the list of waves that were drawn, as (phrases, first, last)."""
    drawn = []

    def force(texts, wave_s=0.0):
        def forced(lvlm, reading, config, seeds, rows, *, token_entropy, **stops):
            drawn.append((tuple(p.phrase for p in reading.prompts), rows.start, rows.stop))
            time.sleep(wave_s)
            ids = [
                lvlm.tokenizer(texts[p.phrase][i], add_special_tokens=False)["input_ids"]
                for p in reading.prompts
                for i in rows
            ]
            limit = max(map(len, ids)) + 1
            draw = Forced(ids, lvlm.eos_ids[0])
            return write(lvlm, reading, draw, len(rows), limit, token_entropy=token_entropy, **stops)

        monkeypatch.setattr(module, "draw_more", forced)
        return drawn

    return force


def ask(lvlm, picture, phrases, n=10, deadline=FOREVER, pace=None, auto=False):
    reading = read(lvlm, lvlm.prepare_many(picture, phrases))
    config = SamplingConfig(num_samples=n, auto=auto)
    return draw_answers(lvlm, reading, config, [0] * len(phrases), deadline=deadline, pace=pace or Pace())


def test_all_at_once_without_a_reason_not_to(lvlm, picture, waves):
    drawn = waves({"key": [HERE] * 10})
    (answers,) = ask(lvlm, picture, ["key"])
    assert drawn == [(("key",), 0, 10)]
    assert (len(answers.responses), len(answers.candidates), answers.skipped) == (10, 10, ())


def test_auto_stops_when_responses_agree_for_each_phrase_apart(lvlm, picture, waves):
    texts = {"key": [HERE] * 10, "dog": [HERE, THERE] * 5}
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
    drawn = waves({"key": [HERE, THERE] * 6})
    ask(lvlm, picture, ["key"], n=n, auto=True)
    assert [wave[1:] for wave in drawn] == expected


def test_a_deadline_known_to_suffice_changes_nothing(lvlm, picture, waves):
    drawn = waves({"key": [HERE] * 10})
    pace = Pace()
    pace.note_wave(10, 50.0)
    (answers,) = ask(lvlm, picture, ["key"], deadline=Deadline(1e6, time.perf_counter()), pace=pace)
    assert drawn == [(("key",), 0, 10)] and answers.skipped == ()


def test_under_an_unknown_deadline_a_small_wave_comes_first(lvlm, picture, waves):
    drawn = waves({"key": [HERE] * 10})
    (answers,) = ask(lvlm, picture, ["key"], deadline=Deadline(1e6, time.perf_counter()))
    assert drawn == [(("key",), 0, FIRST), (("key",), FIRST, 10)] and answers.skipped == ()


def test_no_wave_is_begun_that_will_not_fit(lvlm, picture, waves):
    waves({"key": [HERE] * 10}, wave_s=0.3)
    deadline = Deadline(1e6, time.perf_counter(), reserve_ms=1e6 - 550)
    (answers,) = ask(lvlm, picture, ["key"], deadline=deadline)
    n = len(answers.responses)
    assert n == FIRST  # a wave takes 0.3 s and more of 0.55
    assert answers.skipped[0] == f"{10 - n} of 10 responses were not begun: the deadline is 1000000 ms"


def test_a_passed_deadline_cuts_the_wave_and_says_so(lvlm, picture, waves):
    waves({"key": [HERE] * 10})
    (answers,) = ask(lvlm, picture, ["key"], deadline=Deadline(5.0, time.perf_counter() - 1.0))
    assert answers.candidates == () and len(answers.responses) == FIRST
    assert answers.skipped == (
        "5 of 10 responses were not begun: the deadline is 5 ms",
        "5 of 5 responses were cut off: the deadline is 5 ms",
    )


def test_greedy_answers_stop_in_time_too(lvlm, picture):
    reading = read(lvlm, lvlm.prepare_many(picture, ["key", "dog"]))
    answers = greedy_answers(lvlm, reading, 6, FOREVER)
    assert [len(a.responses) for a in answers] == [1, 1] and all(a.skipped == () for a in answers)
    late = greedy_answers(lvlm, reading, 6, Deadline(5.0, time.perf_counter() - 1.0))
    assert late[0].skipped == ("1 of 1 responses were cut off: the deadline is 5 ms",)
