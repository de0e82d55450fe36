from __future__ import annotations

from dataclasses import fields, replace

import pytest
from acs_msgs.msg import Candidate, CandidateArray
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from acs_core.geometry import Box
from acs_core.types import Candidate as CoreCandidate
from acs_core.types import Detection, GroundingResult, Outcome, Response, ScoreKind
from acs_ros.conversions.detections import (
    box_from_message,
    box_to_message,
    candidates_to_message,
    detections_to_message,
    result_from_message,
)


def header() -> Header:
    made = Header(frame_id="camera")
    made.stamp.sec, made.stamp.nanosec = 12, 34
    return made


@pytest.mark.parametrize("corners", [(0, 0, 1, 1), (1.5, 2.25, 10.5, 20.75), (3, 3, 3, 3)])
def test_boxes_travel_as_centre_and_size(corners):
    box = Box(*corners)
    msg = box_to_message(box)
    assert (msg.center.position.x, msg.center.position.y, msg.center.theta) == (*box.center, 0.0)
    assert (msg.size_x, msg.size_y) == (box.width, box.height)
    assert box_from_message(msg) == box


def test_detections_are_sorted_and_carry_header_and_phrase(result):
    given = result("the key")
    given = replace(given, detections=(Detection(Box(0, 0, 2, 2), 0.2, 1), Detection(Box(1, 1, 4, 4), 0.9, 0)))
    msg = detections_to_message(header(), given)
    assert [d.results[0].hypothesis.score for d in msg.detections] == [0.9, 0.2]
    assert {d.results[0].hypothesis.class_id for d in msg.detections} == {"the key"}
    assert msg.header == header() and all(d.header == header() for d in msg.detections)
    assert all(d.id == "" for d in msg.detections)


def test_an_abstention_is_empty(result):
    msg = detections_to_message(header(), result("key", reason="nothing there"))
    assert len(msg.detections) == 0 and msg.header == header()


@pytest.mark.parametrize("reason", ["", "best score 0.12 is below 0.30"])
def test_a_result_survives_the_wire(result, reason):
    given = replace(result("key 🔑", reason=reason), revision="abc123")
    msg = deserialize_message(serialize_message(candidates_to_message(header(), given)), CandidateArray)
    assert (msg.num_responses, msg.num_without_box) == (2, 1)
    boxes = int(not reason)
    assert result_from_message(msg) == replace(given, responses=(Response("", boxes, True), Response("", boxes, True)))


# What the message has no field for.
STAYS = {
    GroundingResult: {"attention", "image", "window", "region", "input_size", "image_tokens"},
    CoreCandidate: {"look", "in_window", "stated"},
    Detection: {"expected_iou"},
}


def test_every_field_that_the_message_has_survives_the_wire(result):
    """A field that is added to a result has to travel, or to be named as one that does not."""
    given = replace(result("key"), revision="abc", reason="why", skipped=("a sample",), timing_ms={"total": 2.5})
    candidates = tuple(replace(c, cluster=3, outcome=Outcome.SELECTED, reason="why") for c in given.candidates)
    chosen = sorted(range(len(candidates)), key=lambda i: -candidates[i].score)
    detections = tuple(Detection(candidates[i].box, candidates[i].score, i) for i in chosen)
    responses = tuple(Response("", sum(c.response == i for c in candidates), True) for i in range(2))
    given = replace(given, candidates=candidates, detections=detections, responses=responses)
    found = result_from_message(
        deserialize_message(serialize_message(candidates_to_message(header(), given)), CandidateArray)
    )

    def told(value):
        return {f.name: getattr(value, f.name) for f in fields(value) if f.name not in STAYS[type(value)]}

    assert told(found) == told(given)
    assert [told(c) for c in found.candidates] == [told(c) for c in given.candidates]
    defaults = {f.name for f in fields(given) if f.name in told(given) and getattr(given, f.name) == f.default}
    assert not defaults, f"{defaults} have their default values: the test does not see whether they travel"


def test_the_constants_of_the_message_are_those_of_the_core():
    assert {getattr(Candidate, f"OUTCOME_{o.name}") for o in Outcome} == {o.value for o in Outcome}
    assert {getattr(CandidateArray, f"SCORE_KIND_{k.name}") for k in ScoreKind} == {k.value for k in ScoreKind}
