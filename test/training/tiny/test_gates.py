from dataclasses import replace

import pytest

from training.collection.regime import Regime
from training.tiny.gates import gates_of
from training.tiny.report import AccuracyRow, TinyReport

GOOD = TinyReport(
    "m",
    9,
    9,
    9,
    1.0,
    (AccuracyRow("greedy", 60.0, 50.0, None, 1.0),),
    Regime(50.0, -6.0, -9.0, 30.0, 9.0, 1.0),
    0.0,
    85.0,
    1.0,
    1.0,
    9.0,
)


def regime(**change):
    return replace(GOOD, regime=replace(GOOD.regime, **change))


@pytest.mark.parametrize(
    ("report", "missed"),
    [
        (GOOD, []),
        (replace(GOOD, rows=(replace(GOOD.rows[0], accuracy=44.9),)), ["greedy, Acc@0.5 %"]),
        (replace(GOOD, rows=(replace(GOOD.rows[0], accuracy=70.1),)), ["greedy, Acc@0.5 %"]),
        (regime(mean_box=-4.9), ["mean box against first-valid, points"]),
        (regime(mean_box=-5.0), []),
        (regime(split=19.0), ["questions with samples on and off the object, %"]),
        (regime(object_gain=7.9), ["gain of a perfect choice of the object, points"]),
        (replace(GOOD, refused=79.0), ["absent objects refused, %"]),
    ],
)
def test_gates(report, missed):
    assert [gate.name for gate in gates_of(report) if not gate.passed] == missed


def test_a_gate_says_what_was_wanted():
    assert [str(gate) for gate in gates_of(regime(mean_box=3.0))][:3] == [
        "passed: greedy, Acc@0.5 % 60.0 (wanted: 45 to 70)",
        "missed: mean box against first-valid, points 3.0 (wanted: at most -5)",
        "passed: questions with samples on and off the object, % 30.0 (wanted: at least 20)",
    ]
