from __future__ import annotations

import pytest

from acs_core.evaluation.tables import assess
from acs_core.geometry import Box
from acs_ros.replay.evaluation import Method, items_of, make_evaluation
from acs_ros.replay.journal import Kept
from acs_ros.replay.replies import Fate, FrameReplies, Replies
from acs_ros.replay.schedule import GroundTruth
from acs_ros.replay.summary import (
    as_json,
    facts_of,
    frames_table,
    iou_of,
    latency_table,
    phrases_table,
    scores_table,
)

BOX = Box(1, 2, 4, 5)


@pytest.fixture
def run(at, result):
    """Five frames: two right (one about a cup), one wrong, one abstention, one dropped."""
    told = [
        ("key", "", 10.0),
        ("cup", "", 20.0),
        ("key", "", 30.0),
        ("key", "not there", 40.0),
    ]
    frames = [
        FrameReplies(at(i), Fate.ANSWERED, (phrase,), (Kept(result(phrase, (40, 30), reason=why), ms),), ms)
        for i, (phrase, why, ms) in enumerate(told)
    ]
    replies = Replies((*frames, FrameReplies(at(4), Fate.DROPPED, ("key",))))
    far = Box(20, 20, 30, 30)
    labels = {
        at(0).key: (("key", BOX),),
        at(1).key: (("cup", BOX),),
        at(2).key: (("key", far),),
        at(3).key: (("key", BOX),),
    }
    return replies, items_of(replies, GroundTruth(labels))


def rows(table):
    return [[cell.value for cell in row.cells] for row in table.rows]


def test_frames_are_counted_by_what_became_of_them(run):
    replies, _ = run
    assert [row[1:] for row in rows(frames_table(replies))] == [[4, 80.0], [1, 20.0]]
    assert rows(frames_table(replies))[1][0].startswith("dropped")


def test_latency_is_that_of_answered_frames(run):
    replies, _ = run
    ((count, p50, p90, p95, p99, longest),) = rows(latency_table(replies, live=True))
    assert (count, p50, longest) == (4, 25.0, 40.0) and p50 < p90 < p95 < p99 < longest
    assert latency_table(Replies(replies.frames[4:]), live=True) is None


def test_phrases_are_told_apart(run):
    _, items = run
    key, cup, total = rows(phrases_table(items))
    assert key[:5] == ["key", 3, 2, 1, 0] and key[6:] == pytest.approx([3, 100 / 3, 100 / 3])
    assert cup == ["cup", 1, 1, 0, 0, 0.75, 1, 100.0, 100.0]
    assert total[:5] == ["all", 4, 3, 1, 0] and total[7] == 50.0


def test_without_truth_accuracy_is_unknown_and_that_is_said(run, at):
    replies, _ = run
    table = phrases_table(items_of(replies, GroundTruth({})))
    assert all(row[6:] == [0, None, None] for row in rows(table))
    assert table.notes == ("Accuracy is unknown: there is no ground truth for the phrases.",)


def test_the_best_box_is_compared_with_the_true_box_it_fits_best(run, at, result):
    replies, _ = run
    (item,) = items_of(
        Replies(replies.frames[:1]), GroundTruth({at(0).key: (("key", Box(9, 9, 11, 11)), ("key", BOX))})
    )
    assert iou_of(item) == 1.0
    (absent,) = items_of(Replies(replies.frames[:1]), GroundTruth({at(0).key: (), at(1).key: (("key", BOX),)}))
    assert iou_of(absent) is None


def test_all_numbers_are_in_one_row(run):
    _, items = run
    evaluation = make_evaluation("x", items, Method("m", "acs-free", 0.5, 10), lambda f: "", {})
    ((name, count, *shares, error),) = rows(scores_table(assess(evaluation, draws=20)))
    # Three boxes were told, two of them right, of four true ones.
    assert (name, count) == ("one object", 4)
    assert shares == pytest.approx([50.0, 50.0, 200 / 3, 50.0, 400 / 7])
    assert error == pytest.approx(100 * abs(0.75 - 2 / 3))
    assert scores_table(assess(make_evaluation("x", (), Method("m", "", None, 1), lambda f: "", {}))) is None


def test_scripts_get_everything(run):
    replies, items = run
    data = as_json(replies, items)
    assert data["frames"]["total"] == 5 and data["frames"]["dropped"] == 1
    assert [q["iou"] for q in data["questions"]] == [1.0, 1.0, 0.0, 0.0]
    assert data["questions"][3]["reason"] == "not there" and data["questions"][3]["box"] is None
    assert data["latency_ms"]["p50"] == 25.0
    assert facts_of(replies, items) == {
        "frames": "5",
        "frames answered": "4",
        "frames dropped": "1",
        "questions": "4",
        "abstained": "1",
        "latency": "p50 25 ms, p90 37 ms, p95 38 ms, p99 40 ms",
    }
