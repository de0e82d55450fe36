from __future__ import annotations

import numpy as np
import pytest

from acs_core.geometry import Box
from acs_ros.node.tracker import BoxTracker, TrackedQuery

WORLD = np.random.default_rng(1).integers(0, 255, (200, 300), np.uint8)


def view(x: int, y: int = 40) -> np.ndarray:
    """What a camera sees that has moved to (x, y) over the world."""
    return np.ascontiguousarray(WORLD[y : y + 120, x : x + 160])


def tracker(**given) -> BoxTracker:
    return BoxTracker(**({"half_life": 1e9, "min_score": 0.0} | given))


KEY = TrackedQuery("key", Box(60, 50, 80, 66), 0.8)


def test_a_box_follows_the_camera_and_keeps_its_id():
    made = tracker()
    made.take_frame(0.0, view(40))
    assert made.take_answer(0.0, ["key"], [KEY]) == ["1"]
    for i in range(1, 8):
        (track,) = made.take_frame(i / 10, view(40 + 3 * i))
    assert track.box.iou(Box(39, 50, 59, 66)) > 0.85
    assert made.take_answer(0.7, ["key"], [TrackedQuery("key", track.box, 0.9)]) == ["1"]


def test_an_answer_about_the_past_is_followed_to_the_present():
    made = tracker()
    for i in range(40):
        assert made.take_frame(i / 10, view(40 + i)) == []
    made.take_answer(0.0, ["key"], [KEY])
    (track,) = made.take_frame(4.0, view(80))
    assert track.age == 4.0 and track.box.iou(Box(20, 50, 40, 66)) > 0.85


def test_the_score_decays_with_time_and_the_track_ends():
    made = tracker(half_life=1.0, min_score=0.15)
    made.take_frame(0.0, view(40))
    made.take_answer(0.0, ["key"], [KEY])
    scores = [made.take_frame(t, view(40))[0].score for t in (1.0, 2.0)]
    assert scores == pytest.approx([0.4, 0.2], rel=1e-3)
    assert made.take_frame(3.0, view(40)) == [] == made.take_frame(3.1, view(40))


def test_what_looks_like_nothing_known_loses_its_score_and_stays_where_it_was():
    made = tracker(min_score=0.3)
    made.take_frame(0.0, view(40))
    made.take_answer(0.0, ["key"], [KEY])
    assert made.take_frame(0.1, np.random.default_rng(9).integers(0, 255, (120, 160), np.uint8)) == []


def test_an_answer_ends_the_tracks_of_its_phrase_and_no_others():
    made = tracker()
    made.take_frame(0.0, view(40))
    made.take_answer(0.0, ["key", "mug"], [KEY, TrackedQuery("mug", Box(10, 10, 30, 30), 0.7)])
    made.take_frame(0.1, view(40))
    assert made.take_answer(0.1, ["key"], []) == []
    assert [t.phrase for t in made.take_frame(0.2, view(40))] == ["mug"]


def test_another_place_is_another_object():
    made = tracker()
    made.take_frame(0.0, view(40))
    assert made.take_answer(0.0, ["key"], [KEY]) == ["1"]
    assert made.take_answer(0.0, ["key"], [TrackedQuery("key", Box(10, 80, 30, 100), 0.8)]) == ["2"]


def test_time_that_goes_back_forgets_everything():
    made = tracker()
    made.take_frame(5.0, view(40))
    made.take_answer(5.0, ["key"], [KEY])
    assert made.take_frame(1.0, view(40)) == []
    assert made.take_answer(5.0, ["key"], [KEY]) == ["2"] and made.take_frame(1.1, view(40)) == []


def test_a_flat_patch_is_not_followed():
    made = tracker()
    made.take_frame(0.0, np.full((120, 160), 90, np.uint8))
    assert made.take_answer(0.0, ["key"], [KEY]) == ["1"]
    assert made.take_frame(0.1, np.full((120, 160), 90, np.uint8)) == []


@pytest.mark.parametrize("box", [Box(0, 0, 6, 6), Box(150, 110, 160, 120), Box(0, 0, 160, 120), Box(70, 50, 71, 51)])
def test_boxes_at_the_edge_and_tiny_ones_do_no_harm(box):
    made = tracker()
    made.take_frame(0.0, view(40))
    made.take_answer(0.0, ["key"], [TrackedQuery("key", box, 1.0)])
    for i in range(1, 5):
        for track in made.take_frame(i / 10, view(40 + 5 * i)):
            assert np.isfinite(track.box.as_tuple()).all()
