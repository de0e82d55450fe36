from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_core.geometry import Box
from acs_core.overlay import font_of_size
from acs_core.selection.decision import why_no_candidates
from acs_core.types import (
    ABSENT,
    CUT_OFF,
    EMPTY,
    OUTSIDE,
    UNPARSEABLE,
    Candidate,
    Detection,
    GroundingResult,
    Outcome,
    Response,
    ScoreKind,
)
from acs_ros.bags.frames import FrameAt
from acs_ros.replay.contact_sheet import (
    AWAY,
    GAP,
    INSET,
    MARGIN,
    MAX_TILES,
    PAGE,
    PICTURE,
    REASON_LINES,
    SMALL,
    ContactSheet,
    caption,
    caption_height,
    reason_lines,
    shorten_to,
    tile_picture,
    wrap,
)
from acs_ros.replay.frame_table import FrameRow, Verdict

LONG = "the small red toothbrush lying beside the second coffee mug on the left edge of the wooden table " * 2
SIZES = [(1920, 1080), (320, 240), (300, 420), (1000, 90), (60, 900), (40, 30), (7, 5)]


VIOLET = (200, 90, 210)  # no other part of a page has it


def answer(size, boxes, score=0.5, reason=""):
    candidates = tuple(
        Candidate(box, "key", 0, i, (0, 0, 0, 0), score, score, i, Outcome.SELECTED) for i, box in enumerate(boxes)
    )
    found = tuple(Detection(box, score - i / 100, i) for i, box in enumerate(boxes))
    kind = ScoreKind.CALIBRATED
    return GroundingResult("key", size, found, candidates, (), "fake", kind, "fake-model", None, 0, reason)


def make_row(size=(640, 480), boxes=(), truth=None, phrase="key", number=0, verdict=Verdict.HIT, reason=""):
    frame = FrameAt(number, number, number, "camera")
    return FrameRow(frame, phrase, verdict, answer(size, boxes, reason=reason), truth, 5.0)


def black(size):
    return np.zeros((size[1], size[0], 3), np.uint8)


def touch(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@pytest.mark.parametrize("size", SIZES)
def test_tiles_have_one_size_and_are_filled_with_the_page_beside_the_frame(size):
    """Frames are black here: whatever else is black was left by the tile."""
    tile = tile_picture(np.full((size[1], size[0], 3), 7, np.uint8), make_row(size))
    assert tile.image.size == PICTURE and tile.inset is None and tile.boxes == ()
    left, top, right, bottom = tile.shown
    assert 0 <= left < right <= PICTURE[0] and 0 <= top < bottom <= PICTURE[1]
    assert right - left == PICTURE[0] or bottom - top == PICTURE[1]
    assert abs((right - left) / (bottom - top) / (size[0] / size[1]) - 1) < 0.15  # whole pixels
    pixels = np.asarray(tile.image)
    beside = np.ones(pixels.shape[:2], bool)
    beside[top:bottom, left:right] = False
    assert (pixels[~beside] == 7).all() and (pixels[beside] == PAGE).all()


@pytest.mark.parametrize("count", [1, 2, 5, 7, 24])
def test_the_page_has_room_for_all_tiles_and_is_nowhere_black(count):
    rows = [make_row(SIZES[i % len(SIZES)], number=i, phrase=LONG if i == 1 else "key") for i in range(count)]
    sheet = ContactSheet(rows, "bag", ["said"])
    for row in rows:
        sheet.add(row.frame.number, black(row.result.image_size) + np.array(VIOLET, np.uint8))
    page = np.asarray(sheet.render())
    assert sheet.drawn == count
    tile = PICTURE[1] + caption_height(2 if count > 1 else 1)
    columns = (page.shape[1] - 2 * MARGIN + GAP) // (PICTURE[0] + GAP)
    assert page.shape[1] == columns * (PICTURE[0] + GAP) - GAP + 2 * MARGIN
    down = -(-count // columns)
    assert page.shape[0] > down * tile
    assert (page.sum(axis=2) > 40).all()
    frames = (page == VIOLET).all(axis=2).sum()
    shown = (tile_picture(black(row.result.image_size), row).shown for row in rows)
    assert frames == sum((right - left) * (bottom - top) for left, top, right, bottom in shown)
    assert (page[:, :MARGIN] == PAGE).all() and (page[:, -MARGIN:] == PAGE).all()


def test_a_page_without_tiles_can_be_drawn():
    assert ContactSheet([], "bag").render().size[0] > PICTURE[0]


def test_long_runs_are_sampled_at_equal_distances():
    rows = [make_row(number=i) for i in range(4 * MAX_TILES)]
    sheet = ContactSheet(rows, "bag")
    assert [row.frame.number for row in sheet.wanted] == list(range(0, 4 * MAX_TILES, 4))


def test_a_frame_with_several_phrases_has_several_tiles():
    rows = [make_row(phrase="key", number=3), make_row(phrase="cup", number=3), make_row(number=4)]
    sheet = ContactSheet(rows, "bag")
    sheet.add(3, black((640, 480)))
    assert sheet.drawn == 2


def test_a_small_box_has_an_inset_that_enlarges_it_and_a_large_one_has_none():
    image = black((640, 480))
    image[100:120, 200:220] = (10, 20, 250)
    small = tile_picture(image, make_row(boxes=[Box(200, 100, 220, 120)]))
    assert small.inset is not None
    left, top, right, bottom = small.inset
    assert right - left == bottom - top == INSET
    inset = np.asarray(small.image)[top:bottom, left:right]
    blue = ((inset[..., 2] > 200) & (inset[..., 0] < 60)).sum()
    assert blue > 4 * 20 * 20 / 4  # four times the area that it has on the tile, at half the frame's size
    side = 2 * SMALL + 20
    assert tile_picture(image, make_row(boxes=[Box(100, 100, 100 + side, 100 + side)])).inset is None


def test_an_abstention_shows_the_true_box_in_its_inset():
    row = make_row(truth=(Box(200, 100, 220, 120),), verdict=Verdict.ABSTAINED, reason="not there")
    assert tile_picture(black((640, 480)), row).inset is not None


coordinates = st.floats(0, 1)


@given(
    size=st.sampled_from(SIZES),
    x=coordinates,
    y=coordinates,
    side=st.floats(0.005, 0.1),
    others=st.lists(st.tuples(*[coordinates] * 4), max_size=4),
)
def test_the_inset_lies_inside_the_tile_and_never_over_the_box(size, x, y, side, others):
    width, height = size
    small = Box(x * width * 0.9, y * height * 0.9, x * width * 0.9 + side * width, y * height * 0.9 + side * height)
    more = [
        Box(min(a, c) * width, min(b, d) * height, max(a, c) * width + 0.1, max(b, d) * height + 0.1)
        for a, b, c, d in others
    ]
    tile = tile_picture(black(size), make_row(size, [small, *more[:2]], tuple(more[2:])))
    best = tile.boxes[0]
    if tile.inset is not None:
        assert not touch(tile.inset, best)
        assert tile.inset[0] >= 0 and tile.inset[1] >= 0
        assert tile.inset[2] <= PICTURE[0] and tile.inset[3] <= PICTURE[1]
        right, bottom = PICTURE[0] - INSET, PICTURE[1] - INSET
        corners = ((0, 0), (right, 0), (0, bottom), (right, bottom))
        rims = {(x, y): (x - AWAY, y - AWAY, x + INSET + AWAY, y + INSET + AWAY) for x, y in corners}
        free = [corner for corner, rim in rims.items() if not any(touch(rim, box) for box in tile.boxes)]
        assert not free or tile.inset[:2] in free  # over another box only where there is no other place
    else:
        assert max(best[2] - best[0], best[3] - best[1]) >= SMALL - 1


@pytest.mark.parametrize("phrase", ["key", LONG, "x" * 200, "Donaudampfschifffahrtsgesellschaftskapitän " * 4])
@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("lines", [1, 2])
@pytest.mark.parametrize("reason_room", [1, 2, 3])
@pytest.mark.parametrize(
    "reason", ["", "x" * 200, "7 of 10 responses say that the object is not there, and more of it " * 3]
)
def test_every_text_of_a_caption_lies_inside_its_tile(phrase, verdict, lines, reason_room, reason):
    truth = (Box(0, 0, 9, 9),)
    boxes = [] if reason else [Box(0, 0, 9, 9)]
    row = make_row(boxes=boxes, truth=truth, phrase=phrase, number=999_999, verdict=verdict, reason=reason)
    texts = caption(row, lines, reason_room)
    for text in texts:
        left, top, right, bottom = text.rect
        ink = text.font.getbbox(text.text)
        assert left >= 0 and top >= 0 and right <= PICTURE[0] and bottom <= caption_height(lines, reason_room)
        assert ink[2] <= right - left and ink[3] - ink[1] <= bottom - top and text.font.size >= 15
    for i, text in enumerate(texts):
        assert not any(touch(text.rect, other.rect) for other in texts[i + 1 :])
    said = [text.text for text in texts]
    assert str(verdict) in said and "#999999" in said
    assert said[0] == "key" if phrase == "key" else any(line.endswith("…") for line in said[:lines])
    if not reason:
        assert "score 0.50   IoU 1.00" in said


def test_a_caption_without_truth_has_no_iou_and_one_without_answer_the_reason():
    assert [t.text for t in caption(make_row(boxes=[Box(0, 0, 9, 9)], verdict=Verdict.FOUND))] == [
        "key",
        "found",
        "score 0.50",
        "#0",
    ]
    failed = replace(make_row(verdict=Verdict.FAILED), result=None, problem="out of memory")
    assert reason_lines(failed) == 1
    assert [t.text for t in caption(failed)] == ["key", "failed", "out of memory", "#0"]


@pytest.mark.parametrize("number", [0, 9999])
@pytest.mark.parametrize("responses", [1, 10, 256])
@pytest.mark.parametrize("problem", [ABSENT, CUT_OFF, EMPTY, OUTSIDE, UNPARSEABLE])
def test_the_cause_of_an_abstention_is_seen(number, responses, problem):
    reason = why_no_candidates([Response("", 0, True, problem)] * responses)
    row = make_row(verdict=Verdict.ABSTAINED, reason=reason, number=number)
    verdict, *said, last = [text.text for text in caption(row, 1, reason_lines(row))][1:]
    assert (verdict, last) == ("abstained", f"#{number}")
    assert " ".join(said).startswith(reason.partition(" (")[0])  # what stands in brackets may be cut
    assert len(said) == reason_lines(row) <= REASON_LINES


def test_tiles_with_and_without_a_long_reason_have_one_height():
    rows = [make_row(number=0), make_row(verdict=Verdict.ABSTAINED, reason=LONG, number=1)]
    short, long = (ContactSheet([row], "bag") for row in rows)
    both = ContactSheet(rows, "bag")
    for sheet in (short, long, both):
        for row in rows:
            sheet.add(row.frame.number, black((640, 480)))
    heights = [sheet.render().height for sheet in (short, long, both)]
    assert heights[1] - heights[0] == caption_height(1, REASON_LINES) - caption_height(1)
    assert heights[2] == heights[1]


@given(st.text(max_size=80), st.integers(20, 400))
def test_shortened_texts_fit(text, width):
    face = font_of_size(18)
    short = shorten_to(text, face, width)
    assert face.getlength(short) <= width and face.getbbox(short)[2] <= width
    assert short == text or short == "" or (short.endswith("…") and text.startswith(short[:-1]))


def test_phrases_are_wrapped_between_words_and_the_rest_is_cut_with_an_ellipsis():
    face = font_of_size(18)
    lines = wrap(LONG, face, 320)
    assert len(lines) == 2 and LONG.startswith(lines[0]) and lines[1].endswith("…")
    assert all(face.getlength(line) <= 320 for line in lines)
    assert wrap("red mug", face, 320) == ["red mug"]
