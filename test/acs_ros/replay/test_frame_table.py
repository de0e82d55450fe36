from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest
from rich.console import Console

from acs_core.evaluation.table import to_csv
from acs_core.geometry import Box
from acs_core.types import ScoreKind
from acs_ros.replay.frame_table import (
    BAD,
    DOUBTFUL,
    GOOD,
    Verdict,
    frame_rows,
    per_frame_table,
    print_frames,
    summary_lines,
)
from acs_ros.replay.journal import Kept
from acs_ros.replay.replies import Fate, FrameReplies, Replies
from acs_ros.replay.schedule import GroundTruth

FOUND = Box(1, 2, 4, 5)  # the box that make_result of conftest.py chooses
FAR = Box(20, 20, 30, 30)


@pytest.fixture
def rows(at, result):
    """A hit, a miss, an abstention, and a frame without an answer."""
    told = [
        FrameReplies(at(i), Fate.ANSWERED, ("a key!",), (Kept(result("a key!", (80, 60), reason=why), ms),), ms)
        for i, (why, ms) in enumerate((("", 10.0), ("", 20.0), ("nothing there", 30.0)))
    ]
    replies = Replies((*told, FrameReplies(at(3), Fate.UNANSWERED, ("a key!",))))
    boxes = (FOUND, FAR, FOUND, FOUND)
    return frame_rows(replies, GroundTruth({at(i).key: (("a key!", box),) for i, box in enumerate(boxes)}))


def printed(rows, width=120, **options) -> str:
    console = Console(record=True, width=width)
    print_frames(rows, console, **options)
    return console.export_text()


def test_rows_know_their_iou_and_verdict(rows):
    assert [r.iou for r in rows] == [1.0, 0.0, 0.0, None]
    assert [r.verdict for r in rows] == [Verdict.HIT, Verdict.MISS, Verdict.ABSTAINED, Verdict.NO_ANSWER]
    assert [r.tone for r in rows] == [GOOD, BAD, DOUBTFUL, BAD]
    assert [r.score for r in rows] == [0.75, 0.75, None, None]


@pytest.mark.parametrize(
    ("fate", "verdict"),
    [
        (Fate.FAILED, Verdict.FAILED),
        (Fate.DROPPED, Verdict.DROPPED),
        (Fate.UNREADABLE, Verdict.UNREADABLE),
        (Fate.NOT_REACHED, Verdict.NOT_REACHED),
    ],
)
def test_frames_without_an_answer_have_a_verdict(at, fate, verdict):
    (row,) = frame_rows(Replies((FrameReplies(at(0), fate, ("key",)),)), GroundTruth({}))
    assert row.verdict is verdict and row.iou is None and row.score is None


def test_a_frame_that_nothing_was_asked_about_has_a_row(at):
    (row,) = frame_rows(Replies((FrameReplies(at(0), Fate.NOT_ASKED),)), GroundTruth({}))
    assert row.verdict is Verdict.NOT_ASKED and row.phrase == ""


@pytest.mark.parametrize(
    ("labels", "reason", "verdict", "tone"),
    [
        ({}, "", Verdict.FOUND, ""),
        ({}, "not there", Verdict.ABSTAINED, DOUBTFUL),
        ({0: (), 1: (("key", FOUND),)}, "", Verdict.FALSE_ALARM, BAD),
        ({0: (), 1: (("key", FOUND),)}, "not there", Verdict.ABSTAINED, GOOD),
    ],
)
def test_verdicts_where_the_object_is_absent_or_the_truth_unknown(at, result, labels, reason, verdict, tone):
    kept = (Kept(result("key", (80, 60), reason=reason), 1.0),)
    truth = GroundTruth({at(i).key: found for i, found in labels.items()})
    (row,) = frame_rows(Replies((FrameReplies(at(0), Fate.ANSWERED, ("key",), kept, 1.0),)), truth)
    assert (row.verdict, row.tone) == (verdict, tone)


def test_of_several_phrases_each_has_a_row(at, result):
    kept = (Kept(result("key", (80, 60)), 1.0), Kept(None, 1.0, "the model broke"))
    told = FrameReplies(at(0), Fate.FAILED, ("key", "cup"), kept, 1.0)
    rows = frame_rows(Replies((told,)), GroundTruth({}))
    assert [(r.phrase, r.verdict) for r in rows] == [("key", Verdict.FOUND), ("cup", Verdict.FAILED)]
    assert "frame 0, cup: the model broke" in printed(rows)
    assert summary_lines(rows)[0].startswith("answered 1 of 2 questions about 1 frames")


def test_scores_that_mean_nothing_are_not_shown(at, result):
    kept = (Kept(replace(result("key", (80, 60)), score_kind=ScoreKind.NONE), 1.0),)
    (row,) = frame_rows(Replies((FrameReplies(at(0), Fate.ANSWERED, ("key",), kept, 1.0),)), GroundTruth({}))
    assert row.score is None and "0.75" not in printed([row])


def test_the_summary_counts_what_came(rows):
    counts, made = summary_lines(rows)
    assert counts == ("answered 3 of 4 frames, 1 of them without a box, IoU >= 0.5 in 33%, mean IoU 0.33, median 20 ms")
    assert made == "model fake-model, selector fake, score: calibrated"


def test_a_summary_of_nothing_has_no_means(rows):
    assert summary_lines(rows[3:]) == ["answered 0 of 1 frames"]


def test_the_table_has_a_line_per_frame_and_says_what_is_missing(rows):
    text = printed(rows)
    for said in ("a key!", "1 2 4 5", "0.75", "1.00", "abstained", "no answer", "answered 3 of 4"):
        assert said in text
    assert "answered 0 of 1" in printed(rows[3:])


def test_each_row_is_one_line_of_at_most_80_columns(rows):
    """With boxes of four digits, times of five, and a phrase as long as may be asked."""
    wide = replace(rows[0].result.detections[0], box=Box(1000, 1001, 3840, 2160))
    long = [
        replace(
            row,
            phrase="the red key " * 16 + str(i),
            frame=replace(row.frame, number=99_990 + i),
            result=row.result and replace(row.result, detections=(wide,)),
            latency_ms=12_345.6,
            verdict=Verdict.FALSE_ALARM,
        )
        for i, row in enumerate(rows)
    ]
    lines = printed(long, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    for row in long:
        (line,) = [line for line in lines if str(row.frame.number) in line]
        assert "the red key t" in line and "…" in line and "false alarm" in line and "12346" in line
        assert row.result is None or "1000 1001 3840 2160" in line


def test_long_runs_are_cut_and_the_file_has_all_of_them(rows):
    many = [replace(rows[0], frame=replace(rows[0].frame, number=i)) for i in range(250)]
    text = printed(many, most=100)
    assert text.count("a key!") == 100 and "and 150 more rows in tables/per-frame.csv" in text
    assert "answered 250 of 250 frames" in text
    assert len(to_csv(per_frame_table(many)).splitlines()) == 251


@pytest.mark.parametrize("nasty", ["[/b]", "[bold]", ":key:", "[link=x]["])
def test_phrases_and_models_are_printed_as_they_are(rows, nasty):
    answer = replace(rows[0].result, model=f"runs/{nasty}/model")
    found = [replace(rows[0], phrase=nasty, result=answer), replace(rows[3], phrase=nasty)]
    text = printed(found)
    assert text.count(nasty) == 3 and f"model runs/{nasty}/model" in text


def test_the_file_has_boxes_quality_and_reasons(rows):
    hit, _, abstained, missing = csv.DictReader(io.StringIO(to_csv(per_frame_table(rows))))
    assert [float(hit[name]) for name in ("x1", "y1", "x2", "y2")] == [1, 2, 4, 5]
    assert (hit["phrase"], hit["verdict"], hit["quality"], hit["latency ms"]) == ("a key!", "hit", "0.5", "10.0")
    assert abstained["x1"] == "" and abstained["reason"] == "nothing there"
    assert missing["verdict"] == "no answer" and missing["score"] == ""
