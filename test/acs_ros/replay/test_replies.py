from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from acs_ros.bags.frames import FrameAt
from acs_ros.conversions.detections import candidates_to_message, detections_to_message
from acs_ros.conversions.images import header_of
from acs_ros.replay.replies import Fate, Heard, Sent, fates, match

A, D, U = Fate.ANSWERED, Fate.DROPPED, Fate.UNANSWERED


def header(frame: FrameAt) -> Header:
    return header_of(frame.stamp_ns, frame.frame_id)


@pytest.fixture
def answer(result):
    """Both messages about a frame, as the node sends them."""

    def make(frame, *phrases, reason=""):
        results = [result(phrase, reason=reason) for phrase in phrases]
        detections = Detection2DArray(header=header(frame))
        for one in results:
            detections.detections += detections_to_message(header(frame), one).detections
        return detections, [candidates_to_message(header(frame), one) for one in results]

    return make


@pytest.mark.parametrize(
    ("answered", "expected"),
    [
        ([], [U, U, U, U]),
        ([3], [D, D, D, A]),
        ([0], [A, U, U, U]),
        ([0, 2], [A, D, A, U]),
        ([0, 1, 2, 3], [A, A, A, A]),
    ],
)
def test_what_a_newer_answer_overtook_is_dropped_and_the_rest_unanswered(answered, expected):
    keys = [(i, "camera") for i in range(4)]
    assert fates(keys, [keys[i] for i in answered]) == expected


@given(st.lists(st.tuples(st.integers(0, 10**19), st.text(max_size=3)), unique=True, max_size=20), st.data())
def test_every_frame_has_one_fate(keys, data):
    answered = data.draw(st.sets(st.sampled_from(keys))) if keys else set()
    found = fates(keys, answered)
    assert len(found) == len(keys)
    assert {k for k, fate in zip(keys, found, strict=True) if fate is A} == answered
    assert U not in found or D not in found[found.index(U) :]  # nothing is dropped after the last answer
    assert A not in found or found.index(A) == 0 or set(found[: found.index(A)]) == {D}


def test_answers_are_matched_by_stamp_and_frame_id(at, answer):
    left, right = at(0, 5, "left"), at(1, 5, "right")
    (to_left, why), (to_right, why_too) = answer(left, "key"), answer(right, "key", reason="none")
    sent = [Sent(left, ("key",), 1.0), Sent(right, ("key",), 2.0)]
    told = match(sent, [Heard(to_right, 2.5), Heard(to_left, 3.0)], [*why_too, *why])
    assert [t.fate for t in told] == [A, A]
    assert [round(t.latency_ms) for t in told] == [2000, 500]
    assert [len(t.kept[0].result.detections) for t in told] == [1, 0]
    assert told[0].kept[0].result.model == "fake-model"


def test_several_phrases_get_their_own_boxes(at, answer):
    detections, why = answer(at(0), "key", "cup")
    (told,) = match([Sent(at(0), ("key", "cup"), 0.0)], [Heard(detections, 1.0)], why)
    assert [k.result.phrase for k in told.kept] == ["key", "cup"]
    assert all(len(k.result.detections) == 1 for k in told.kept)


def test_only_the_first_answer_counts(at, answer):
    detections, why = answer(at(0), "key")
    (told,) = match([Sent(at(0), ("key",), 0.0)], [Heard(detections, 1.0), Heard(detections, 9.0)], why)
    assert told.latency_ms == 1000


def test_an_answer_to_another_question_is_none(at, answer):
    detections, why = answer(at(0), "cup")
    (told,) = match([Sent(at(0), ("key",), 0.0)], [Heard(detections, 1.0)], why)
    assert told.fate is U and told.kept == ()


def test_a_node_without_candidates_is_understood(at, answer):
    detections, _ = answer(at(0), "key", "cup")
    (told,) = match([Sent(at(0), ("key", "dog"), 0.0)], [Heard(detections, 1.0)], [])
    key, dog = (k.result for k in told.kept)
    assert key.best.box == key.candidates[0].box and key.best.score == 0.75
    assert dog.detections == () and dog.reason


def test_a_node_that_contradicts_itself_failed_on_the_frame(at, answer, result):
    _, why = answer(at(0), "key")
    other = replace(result("key"), detections=(replace(result("key").detections[0], score=0.1),))
    detections = detections_to_message(header(at(0)), other)
    (told,) = match([Sent(at(0), ("key",), 0.0)], [Heard(detections, 1.0)], why)
    assert (
        told.fate is Fate.FAILED and told.kept[0].result is None and "is no selected candidate" in told.kept[0].problem
    )
