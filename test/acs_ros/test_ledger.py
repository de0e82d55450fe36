from __future__ import annotations

from dataclasses import replace

import pytest

from acs_core.candidates import ABSENT
from acs_core.types import Response
from acs_ros.ledger import WINDOW_S, Ledger, percentile


class Clock:
    def __init__(self) -> None:
        self.now = 5.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ledger(clock):
    return Ledger(clock)


def test_it_counts_and_remembers(ledger, result):
    ledger.image_came("truncated")
    ledger.image_came()
    ledger.failure("out of memory")
    ledger.work_began()
    assert ledger.facts().working_since == 5.0
    ledger.work_ended()
    ledger.results_sent([result("key", reason="nothing there"), result("mug")], 7.0)
    facts = ledger.facts()
    assert (facts.images, facts.bad_images, facts.failed, facts.answered, facts.abstained) == (2, 1, 1, 2, 1)
    assert (facts.last_image_problem, facts.last_failure) == ("", "")
    assert facts.last_abstention == "'key': nothing there"
    assert (facts.last_image, facts.last_latency_ms, facts.working_since) == (5.0, 7.0, None)
    ledger.results_sent([result("key")], 8.0)
    assert ledger.facts().last_abstention == "" and ledger.facts().abstained == 1


def test_an_absent_object_is_no_unparseable_answer(ledger, result):
    responses = (Response("[]", 0, True, ABSENT), Response("?", 0, True, "no box"), Response("[..]", 1, True))
    ledger.results_sent([replace(result("key"), responses=responses)], 1.0)
    facts = ledger.facts()
    assert (facts.responses, facts.unparseable) == (3, 1)
    assert ledger.rates().unparseable_share == pytest.approx(1 / 3)


def test_rates_are_those_of_the_last_seconds_and_the_slowest_camera(ledger, clock, result):
    for i in range(100):
        clock.now = 5.0 + 0.1 * (i + 1)
        ledger.image_came("", "left")
        if i % 2:
            ledger.image_came("", "right")
        if i % 10 == 0:
            ledger.results_sent([result("key"), result("mug")], float(i))
    rates = ledger.rates(["left", "right"])
    assert rates.input_hz == pytest.approx(5.0)
    assert rates.answer_hz == pytest.approx(1.0)  # frames, not phrases
    assert (rates.latency_p50_ms, rates.latency_p95_ms) == (40.0, 90.0)
    clock.now += 2 * WINDOW_S
    assert ledger.rates(["left"]).input_hz == 0.0
    assert ledger.last_image_of("left") == 15.0 and ledger.last_image_of("up") is None


def test_a_new_activation_keeps_the_counters_and_nothing_else(ledger, result):
    ledger.image_came("truncated")
    ledger.results_sent([result("key")], 3.0)
    ledger.new_activation()
    facts = ledger.facts()
    assert (facts.images, facts.last_image, facts.last_image_problem) == (1, None, "")
    assert ledger.rates().latency_p50_ms is None and ledger.last_image_of("") is None


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, None), ([3.0], 0.95, 3.0), ([1.0, 2.0], 0.5, 1.0), ([1.0, 2.0, 3.0], 0.5, 2.0), ([1.0, 2.0], 0.95, 2.0)],
)
def test_percentiles(values, share, expected):
    assert percentile(values, share) == expected
