from __future__ import annotations

import pytest

from acs_ros.stamps import StampWatch


@pytest.mark.parametrize(
    ("stamp", "now", "stale_after", "sim_time", "said"),
    [
        (100.0, 100.2, 5.0, False, ""),
        (90.0, 100.0, 5.0, False, "stamped 10.00 s ago"),
        (90.0, 1e8, 5.0, False, "stamped 1157 days ago"),
        (110.0, 100.0, 5.0, False, "stamped 10.00 s ahead"),
        (0.0, 100.0, 5.0, False, "no stamp"),
        (90.0, 100.0, 0.0, False, ""),
        (90.0, 0.0, 5.0, True, "nothing is published on /clock"),
        (90.0, 90.5, 5.0, True, ""),
    ],
)
def test_stamps_are_judged_in_words(stamp, now, stale_after, sim_time, said):
    problem, backwards = StampWatch("/camera/image").judge(stamp, now, stale_after, sim_time)
    assert said in problem and bool(problem) is bool(said) and not backwards


def test_a_jump_back_is_told_apart_from_a_repeated_stamp():
    watch = StampWatch("/camera/image")
    judged = [watch.judge(stamp, stamp, 5.0, False) for stamp in (10.0, 10.0, 7.5, 8.0)]
    assert [backwards for _, backwards in judged] == [False, False, True, False]
    assert "/camera/image jumped back by 2.50 s" in judged[2][0]
