from __future__ import annotations

import pytest

import acs_ros.stress.clients
from acs_ros.stress.clients import paced


class Time:
    """A clock that only sleeping moves, and what the turns take."""

    def __init__(self) -> None:
        self.now, self.slept = 50.0, []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def time(monkeypatch):
    made = Time()
    monkeypatch.setattr(acs_ros.stress.clients, "time", made)
    return made


@pytest.mark.parametrize("catch_up", [False, True])
def test_turns_come_at_their_rate(time, catch_up):
    assert list(paced(4.0, 1.0, catch_up)) == [0, 1, 2, 3]
    assert time.slept == pytest.approx([0.25] * 3)


@pytest.mark.parametrize(("catch_up", "expected"), [(False, [0, 1, 5, 6, 7]), (True, [0, 1, 2, 3, 4, 5, 6, 7])])
def test_missed_turns_are_left_out_or_made_up_for(time, catch_up, expected):
    turns = []
    for turn in paced(8.0, 1.0, catch_up):
        turns.append(turn)
        if turn == 1:
            time.now += 0.5
    assert turns == expected


def test_it_ends_however_long_a_turn_takes(time):
    for _ in paced(1000.0, 1.0, catch_up=True):
        time.now += 0.4
    assert time.now == pytest.approx(51.2)
