from __future__ import annotations

from dataclasses import replace

import pytest
from std_msgs.msg import Header

from acs_core.geometry import Box
from acs_core.types import Detection, Outcome
from acs_ros.client.node_client import FrameReply, read_answer
from acs_ros.conversions.detections import candidates_to_message, detections_to_message
from acs_ros.errors import NodeTrouble

HEADER = Header(frame_id="camera_optical")


def reply_to(told, published=None) -> FrameReply:
    """What the node sends for ``told``; ``published``: another result on ~/detections."""
    return FrameReply(detections_to_message(HEADER, published or told), candidates_to_message(HEADER, told), 5.0)


def test_boxes_and_scores_are_those_of_the_detections(result):
    told = result("key")
    answer = read_answer(reply_to(told), HEADER, " key ")
    assert answer.detections == told.detections
    assert answer.candidates[answer.best.candidate].quality == 0.5


def test_every_object_is_joined_with_its_own_candidate(result):
    told = result("key")
    both = tuple(replace(c, outcome=Outcome.SELECTED) for c in told.candidates)
    several = replace(told, candidates=both, detections=tuple(Detection(c.box, c.score, i) for i, c in enumerate(both)))
    assert read_answer(reply_to(several), HEADER, "key").detections == several.detections


def test_an_abstention_has_no_boxes(result):
    answer = read_answer(reply_to(result("key", reason="nothing there")), HEADER, "key")
    assert answer.best is None and answer.reason == "nothing there"


@pytest.mark.parametrize(
    ("detections", "said"),
    [
        ((Detection(Box(1, 2, 4, 6), 0.75, 0),), "box 1.0 2.0 4.0 6.0 with score 0.750"),
        ((Detection(Box(1, 2, 4, 5), 0.7, 0),), "score 0.700 on ~/detections is no selected"),
        ((Detection(Box(0, 0, 2.5, 2), 0.5, 1),), "no selected candidate"),  # outranked, not selected
        ((Detection(Box(1, 2, 4, 5), 0.75, 0),) * 2, "no selected candidate"),
        ((), "1 boxes were selected that are not on"),
    ],
)
def test_boxes_that_disagree_are_named(result, detections, said):
    told = result("key")
    with pytest.raises(NodeTrouble, match=said):
        read_answer(reply_to(told, replace(told, detections=detections)), HEADER, "key")


def test_a_selector_may_publish_a_box_that_no_candidate_has(result):
    told = result("key")
    made = (Detection(Box(1, 2, 4, 6), 0.75, 0),)
    answer = read_answer(reply_to(replace(told, selector="mean-box"), replace(told, detections=made)), HEADER, "key")
    assert answer.detections == made


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (lambda r: r.detections, "header of ~/detections"),
        (lambda r: r.detections.detections[0], "header of a detection"),
        (lambda r: r.candidates, "header of ~/candidates"),
    ],
)
def test_a_wrong_header_is_named(result, place, said):
    reply = reply_to(result("key"))
    place(reply).header = Header(frame_id="elsewhere")
    with pytest.raises(NodeTrouble, match=said):
        read_answer(reply, HEADER, "key")


def test_a_wrong_class_id_is_named(result):
    reply = reply_to(result("key"), result("mug"))
    with pytest.raises(NodeTrouble, match="class_id of a detection is 'mug', but the question was about 'key'"):
        read_answer(reply, HEADER, "key")


def test_an_answer_to_another_phrase_is_named(result):
    with pytest.raises(NodeTrouble, match="phrase of ~/candidates is 'mug'"):
        read_answer(reply_to(result("mug")), HEADER, "key")


def test_a_detection_without_a_hypothesis_is_named(result):
    reply = reply_to(result("key"))
    reply.detections.detections[0].results = []
    with pytest.raises(NodeTrouble, match="number of hypotheses"):
        read_answer(reply, HEADER, "key")
