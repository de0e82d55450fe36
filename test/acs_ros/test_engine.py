from __future__ import annotations

import threading

import numpy as np
import pytest

from acs_core.errors import Cancelled
from acs_core.types import SamplingConfig
from acs_ros.engine import DeadlinePassed, Question, ask

IMAGE = np.zeros((6, 8, 3), np.uint8)


def question(*phrases: str, **given) -> Question:
    return Question(phrases, SamplingConfig(), **given)


class Plain:
    """A grounder without any of the newer options; waits for ``gate``."""

    def __init__(self, result):
        self.result, self.gate, self.asked = result, threading.Event(), []
        self.gate.set()

    def ground(self, image, phrase, *, sampling=None, multiple=False, min_score=0.0, should_stop=None):
        self.asked.append((phrase, multiple, min_score))
        while not self.gate.wait(0.001):
            if should_stop():
                raise Cancelled("stopped")
        return self.result(phrase)


class Full(Plain):
    """A grounder with all of them."""

    def ground_many(self, image, phrases, *, should_stop, **options):
        self.asked.append((tuple(phrases), options))
        return [self.result(p) for p in phrases]


def test_a_plain_grounder_is_asked_phrase_by_phrase(result):
    grounder = Plain(result)
    wanted = question("key", "mug", multiple=True, min_score=0.5, with_attention=True, deadline=60.0)
    results = ask(grounder, IMAGE, wanted, lambda: False, on_stage=print)
    assert [r.phrase for r in results] == ["key", "mug"]
    assert grounder.asked == [("key", True, 0.5), ("mug", True, 0.5)]


def test_several_phrases_are_asked_at_once_where_that_is_possible(result):
    grounder = Full(result)
    results = ask(grounder, IMAGE, question("key", "mug", deadline=2.0), lambda: False)
    assert [r.phrase for r in results] == ["key", "mug"]
    ((phrases, options),) = grounder.asked
    assert phrases == ("key", "mug") and options["deadline_ms"] == 2000.0 and "with_attention" not in options


def test_a_deadline_ends_a_call_that_knows_none(result):
    grounder = Plain(result)
    grounder.gate.clear()
    with pytest.raises(DeadlinePassed, match=r"no answer within the deadline of 0\.01 s"):
        ask(grounder, IMAGE, question("key", deadline=0.01), lambda: False)


def test_a_stop_is_no_deadline(result):
    grounder = Plain(result)
    grounder.gate.clear()
    with pytest.raises(Cancelled, match="stopped"):
        ask(grounder, IMAGE, question("key", deadline=60.0), lambda: True)
