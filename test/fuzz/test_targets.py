"""A small, seeded part of every campaign: each way in, some generated cases."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.target import judge
from fuzz.targets import NAMES, ROOMS, find
from fuzz.worker import random_case

# Cases per target: what takes a fraction of a second in all; `make fuzz` does more.
CASES = {"parser": 300, "converter": 400, "compressed": 100, "bag": 12, "candidates": 15, "tracking": 20, "model": 2}
CASES |= {"regressor": 15, "box-regressor": 15, "queries": 40, "recording": 60, "picture": 100}


@pytest.mark.parametrize("name", NAMES)
def test_generated_cases_are_answered_or_refused_by_name(name):
    found = [judge(find(name), random_case(0, number)) for number in range(CASES.get(name, 100))]
    assert [defect for defect in found if defect] == []


@pytest.mark.parametrize("name", ["parser", "converter", "prompt", "parameter"])
def test_cases_that_hypothesis_shrinks(name):
    @settings(max_examples=60, derandomize=True, database=None)
    @given(st.binary(max_size=60))
    def no_defect(case):
        assert judge(find(name), case) is None

    no_defect()


def test_every_target_is_listed():
    from importlib import import_module

    assert {room: tuple(t.name for t in import_module(room).TARGETS) for room in ROOMS} == ROOMS
