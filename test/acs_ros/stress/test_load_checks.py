from __future__ import annotations

import pytest

from acs_ros.diagnostics import statistics
from acs_ros.stress.load_checks import (
    COUNTERS,
    FATES,
    MemoryUsage,
    check_answers,
    check_frames,
    check_goals,
    check_memory,
    check_newest,
    check_queries,
    check_services,
    counters,
    difference,
    latencies,
)


def counted(**some: int) -> dict[str, int]:
    return dict.fromkeys(COUNTERS, 0) | some


def kept(checks) -> list[bool]:
    return [check.kept for check in checks]


def test_the_fates_are_those_of_the_node():
    assert tuple(sorted(FATES)) == tuple(sorted(statistics.FATES))
    assert set(COUNTERS) <= set(vars(statistics.StatisticsSnapshot()))


def test_counters_are_read_from_a_diagnostic_and_must_be_there():
    values = dict.fromkeys(COUNTERS, "3") | {"state": "active"}
    assert counters(values) == dict.fromkeys(COUNTERS, 3)
    assert difference({"images": 5}, {"images": 3}) == {"images": 2}
    del values["dropped"]
    with pytest.raises(KeyError, match="dropped"):
        counters(values)


@pytest.mark.parametrize(
    ("sent", "delta", "expected"),
    [
        (10, counted(images=8, frames_answered=3, replaced=2, dropped=1, failed=1, bad_images=1), [True, True]),
        (10, counted(images=8, frames_answered=3, images_without_query=4, images_unasked=1), [True, True]),
        (10, counted(images=8, frames_answered=7), [True, False]),  # one vanished
        (10, counted(images=8, frames_answered=8, replaced=1), [True, False]),  # one was counted twice
        (7, counted(images=8, frames_answered=8), [False, True]),  # one came from nowhere
        (0, counted(), [True, True]),
    ],
)
def test_frames_add_up_or_not(sent, delta, expected):
    assert kept(check_frames(sent, delta)) == expected


def test_what_was_lost_on_the_way_is_told():
    lost, exact = check_frames(200, counted(images=150, frames_answered=100, replaced=50))
    assert lost.said == "200 sent, 150 received, 50 lost in DDS (25.0%)"
    assert exact.said == "150 received, 150 accounted for: 100 answered, 50 replaced"


@pytest.mark.parametrize(("heard", "expected"), [(4, True), (3, False), (5, False)])
def test_every_answer_is_heard_once(heard, expected):
    assert check_answers(heard, counted(frames_answered=4)).kept is expected


@pytest.mark.parametrize(
    ("seconds", "expected", "said"),
    [
        ([0.5, 1.0], True, "after 0.50 s, 1.00 s (limit 1 s)"),
        ([0.5, 1.5], False, "after 0.50 s, 1.50 s (limit 1 s)"),
        ([0.5, None], False, "after 0.50 s, never (limit 1 s)"),
    ],
)
def test_the_newest_frame_of_each_camera_is_answered_soon(seconds, expected, said):
    check = check_newest(seconds, 1.0)
    assert (check.kept, check.said) == (expected, said)


@pytest.mark.parametrize(
    ("ms", "unanswered", "expected"),
    [
        ({"pause": [1.0] * 19 + [900.0]}, 0, [True, True]),  # one of twenty may be late
        ({"pause": [1.0] * 18 + [900.0] * 2}, 0, [True, False]),
        ({"pause": [1.0]}, 1, [False, True]),
        ({"pause": []}, 0, [False, False]),  # who calls nothing proves nothing
        ({"pause": [100.0], "get_state": [101.0]}, 0, [True, True, False]),
    ],
)
def test_services_answer_in_time(ms, unanswered, expected):
    assert kept(check_services(ms, unanswered, 100.0)) == expected


def test_latencies_in_numbers():
    assert latencies([4.0, 1.0, 2.0]) == {"calls": 3, "p50": 2.0, "p95": 4.0, "most": 4.0}
    assert latencies([]) == {"calls": 0, "p50": 0.0, "p95": 0.0, "most": 0.0}


@pytest.mark.parametrize(("peak", "expected"), [(600.0, True), (600.5, False)])
def test_memory_may_grow_to_its_bound(peak, expected):
    assert check_memory(MemoryUsage(500.0, peak, 510.0, 50.0, 60.0), 100.0).kept is expected


@pytest.mark.parametrize(
    ("published", "unusable", "calls", "delta", "in_force", "expected"),
    [
        (100, 10, 0, counted(queries=20, rejected_queries=2), ["last"], [True, True]),
        (100, 10, 5, counted(queries=25, rejected_queries=2), ["last"], [True, True]),
        (100, 10, 0, counted(queries=20, rejected_queries=2), ["older"], [True, False]),
        (100, 10, 0, counted(queries=20, rejected_queries=11), ["last"], [False, True]),  # more than were unusable
        (100, 10, 0, counted(queries=91, rejected_queries=0), ["last"], [False, True]),  # one was unusable
        (100, 10, 5, counted(queries=4), ["last"], [False, True]),  # a call was answered and not counted
        (10, 1, 0, counted(queries=9, rejected_queries=1), ["last"], [True, True]),
    ],
)
def test_queries_add_up_and_the_last_is_in_force(published, unusable, calls, delta, in_force, expected):
    assert kept(check_queries(published, unusable, calls, delta, ["last"], in_force)) == expected


TOLD = {
    "sent": 10,
    "accepted": 10,
    "ended": 10,
    "wordless": 0,
    "succeeded": 3,
    "aborted": 6,
    "cancelled": 1,
    "seconds": 1.0,
}
COUNTED = counted(goals=10, goals_succeeded=3, goals_failed=6, goals_cancelled=1)


@pytest.mark.parametrize(
    ("told", "delta", "expected"),
    [
        ({}, {}, [True, True, True, True]),
        ({"accepted": 9, "ended": 9}, {}, [False, True, True, False]),
        ({"ended": 9, "succeeded": 2}, {}, [True, False, True, False]),
        ({"wordless": 1}, {}, [True, True, False, True]),
        ({}, {"goals": 11}, [True, True, True, False]),
        ({}, {"goals_failed": 5, "goals_cancelled": 2}, [True, True, True, False]),
    ],
)
def test_every_goal_ends_and_is_counted_as_it_ended(told, delta, expected):
    assert kept(check_goals(TOLD | told, COUNTED | delta)) == expected
