from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from acs_core.geometry import Box
from acs_ros.bags import BagFrame
from acs_ros.demo_report import (
    Row,
    contact_sheet,
    print_summary,
    print_table,
    summarize,
    write_json,
    write_pictures,
)
from acs_ros.messages import candidates_to_message, detections_to_message
from acs_ros.node_client import Reply

FOUND = Box(1, 2, 4, 5)  # the box that make_result of conftest.py chooses


@pytest.fixture
def rows(result):
    """A hit, a miss, an abstention, and a frame without an answer."""

    def row(number, truth, given):
        frame = BagFrame(number + 1, np.full((60, 80, 3), 9, np.uint8), (("a key!", truth),))
        if given is None:
            return Row.of(number, frame, "a key!", truth, None)
        told = replace(given, image_size=(80, 60))
        messages = detections_to_message(frame.header, told), candidates_to_message(frame.header, told)
        return Row.of(number, frame, "a key!", truth, Reply(*messages, 10.0 * (number + 1)))

    return [
        row(0, FOUND, result("a key!")),
        row(1, Box(20, 20, 30, 30), result("a key!")),
        row(2, FOUND, result("a key!", reason="nothing there")),
        row(3, FOUND, None),
    ]


def test_rows_know_their_iou(rows):
    assert [r.iou for r in rows] == [1.0, 0.0, 0.0, None]


def test_the_summary_counts_what_came(rows):
    summary = summarize(rows)
    assert (summary.due, summary.answered, summary.abstained) == (4, 3, 1)
    assert summary.accuracy == summary.mean_iou == pytest.approx(1 / 3)
    assert (summary.median_ms, summary.model, summary.score_kind) == (20.0, "fake-model", "calibrated")


def test_a_summary_of_nothing_has_no_means(rows):
    summary = summarize(rows[3:])
    assert (summary.due, summary.answered, summary.accuracy, summary.median_ms) == (1, 0, None, None)


def test_the_table_has_a_line_per_frame_and_says_what_is_missing(rows):
    console = Console(record=True, width=120)
    print_table(console, rows)
    print_summary(console, summarize(rows))
    print_summary(console, summarize(rows[3:]))
    text = console.export_text()
    for said in ("a key!", "1 2 4 5", "0.75", "1.00", "abstained", "no answer", "answered 3 of 4", "answered 0 of 1"):
        assert said in text


@pytest.mark.parametrize("nasty", ["[/b]", "[bold]", ":key:", "[link=x]["])
def test_phrases_and_models_are_printed_as_they_are(result, nasty):
    frame = BagFrame(1, np.zeros((6, 8, 3), np.uint8), ((nasty, FOUND),))
    answer = replace(result(nasty), model=f"runs/{nasty}/model")
    messages = detections_to_message(frame.header, answer), candidates_to_message(frame.header, answer)
    rows = [Row.of(0, frame, nasty, FOUND, Reply(*messages, 1.0)), Row.of(1, frame, nasty, FOUND, None)]
    console = Console(record=True, width=120)
    print_table(console, rows)
    print_summary(console, summarize(rows))
    text = console.export_text()
    assert text.count(nasty) == 3 and f"model runs/{nasty}/model" in text


def test_pictures_and_json_are_written_for_every_frame(rows, tmp_path):
    sheet = write_pictures(tmp_path / "frames", rows)
    assert sheet == tmp_path / "contact_sheet.png" and sheet.stat().st_size > 0
    assert sorted(p.name for p in (tmp_path / "frames").iterdir()) == [f"frame_00{i}_a_key.png" for i in range(4)]
    write_json(tmp_path / "results.json", rows, summarize(rows))
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["summary"]["answered"] == 3
    assert [f["answered"] for f in content["frames"]] == [True, True, True, False]
    assert content["frames"][0]["class_id"] == "a key!" and content["frames"][0]["quality"] == 0.5
    assert content["frames"][0]["box"] == [1, 2, 4, 5] and content["frames"][2]["box"] is None


@pytest.mark.parametrize(("count", "rows_of_cells"), [(0, 1), (1, 1), (3, 1), (4, 2)])
def test_the_sheet_has_room_for_all(count, rows_of_cells):
    sheet = contact_sheet([np.full((20, 40, 3), 200, np.uint8)] * count, columns=3, side=10)
    cell = 14 if count == 0 else 5 + 4
    assert sheet.shape[0] == rows_of_cells * cell and sheet.shape[1] in (14, 3 * 14)
    assert (sheet == 200).sum() == count * 5 * 10 * 3


def test_a_row_of_the_sheet_is_as_high_as_its_highest_picture():
    wide, high = np.full((20, 40, 3), 200, np.uint8), np.full((60, 40, 3), 200, np.uint8)
    sheet = contact_sheet([wide, wide, wide, high], columns=2, side=10)
    assert sheet.shape[0] == (5 + 4) + (15 + 4)
    assert (sheet == 200).sum() == (3 * 5 + 15) * 10 * 3
