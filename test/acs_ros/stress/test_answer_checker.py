"""A checker must catch each kind of lie, and none where there is none."""

import pytest
from acs_msgs.msg import CandidateArray
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from acs_ros.stress import answer_checker
from acs_ros.stress.answer_checker import AnswerChecker, Interval, SentFrame

SECOND = 1_000_000_000


def header(stamp: int, frame_id: str = "camera_1") -> Header:
    made = Header(frame_id=frame_id)
    made.stamp.sec = stamp
    return made


def found(phrase: str = "key", box=(1.0, 2.0, 5.0, 6.0), score: float = 0.5) -> Detection2D:
    x0, y0, x1, y1 = box
    made = Detection2D(header=header(10))
    made.bbox.center.position.x, made.bbox.center.position.y = (x0 + x1) / 2, (y0 + y1) / 2
    made.bbox.size_x, made.bbox.size_y = x1 - x0, y1 - y0
    hypothesis = ObjectHypothesisWithPose()
    hypothesis.hypothesis.class_id, hypothesis.hypothesis.score = phrase, score
    made.results = [hypothesis]
    return made


@pytest.fixture
def checker() -> AnswerChecker:
    """One frame of 20 x 10 sent at second 10; "key" is asked from second 9 on."""
    made = AnswerChecker()
    made.phrases_asked(("key",), 9 * SECOND)
    made.frame_sent(10 * SECOND, SentFrame("camera_1", 20, 10, 10 * SECOND))
    return made


@pytest.mark.parametrize(
    ("message", "published", "problem"),
    [
        (Detection2DArray(header=header(10), detections=[found()]), 11, ""),
        (Detection2DArray(header=header(10)), 11, ""),
        (Detection2DArray(header=header(12)), 13, "never sent"),
        (Detection2DArray(header=header(10, "camera_2")), 11, "it was 'camera_1'"),
        (Detection2DArray(header=header(10), detections=[found("mug")]), 11, "'mug'"),
        (Detection2DArray(header=header(10), detections=[found()]), 8, "before it was sent"),
        (Detection2DArray(header=header(10), detections=[found(box=(15, 2, 21, 6))]), 11, "not in a picture"),
        (Detection2DArray(header=header(10), detections=[found(box=(5, 2, 5, 6))]), 11, "not in a picture"),
        (Detection2DArray(header=header(10), detections=[found(score=1.5)]), 11, "the score is 1.5"),
        (Detection2DArray(header=header(10), detections=[found(score=float("nan"))]), 11, "the score is nan"),
    ],
)
def test_detections_are_held_against_what_was_sent(checker, message, published, problem):
    checker.check_detections(message, published * SECOND)
    told = checker.take_problems()
    assert any(problem in one for one in told) if problem else told == []
    assert checker.take_problems() == []
    assert checker.checked == 1


def test_a_detection_with_a_header_of_its_own_is_told(checker):
    other = found()
    other.header = header(11)
    checker.check_detections(Detection2DArray(header=header(10), detections=[other]), 11 * SECOND)
    assert "a detection has the header" in checker.take_problems()[0]


def test_candidates_are_held_against_the_phrases(checker):
    checker.check_candidates(CandidateArray(header=header(10), phrase="key"), 11 * SECOND)
    assert checker.take_problems() == []
    checker.check_candidates(CandidateArray(header=header(10), phrase="mug"), 11 * SECOND)
    assert "'mug'" in checker.take_problems()[0]


def test_a_phrase_is_in_force_until_its_end_was_confirmed(checker):
    checker.phrases_replaced(("key",), 12 * SECOND)
    for published, problems in ((11, 0), (12, 0), (13, 1)):
        checker.check_candidates(CandidateArray(header=header(10), phrase="key"), published * SECOND)
        assert len(checker.take_problems()) == problems, published


def test_two_who_ask_the_same_end_apart(checker):
    checker.phrases_asked(("key",), 10 * SECOND)
    checker.phrases_replaced(("key",), 11 * SECOND)
    checker.check_candidates(CandidateArray(header=header(10), phrase="key"), 20 * SECOND)
    assert checker.take_problems() == []


def test_a_node_that_is_not_active_says_nothing(checker):
    checker.deactivated(11 * SECOND)
    checker.activated(14 * SECOND)
    for published, problems in ((10.5, 0), (12, 1), (15, 0)):
        checker.check_candidates(CandidateArray(header=header(10), phrase="key"), int(published * SECOND))
        assert len(checker.take_problems()) == problems, published


def test_what_is_remembered_is_bounded(checker, monkeypatch):
    monkeypatch.setattr(answer_checker, "KEPT", 3)
    for k in range(20, 30):
        checker.frame_sent(k * SECOND, SentFrame("camera_1", 20, 10, k * SECOND))
    assert list(checker.frames) == [27 * SECOND, 28 * SECOND, 29 * SECOND]


def test_spans_hold_at_both_ends():
    assert [Interval(2, 4).contains(at) for at in (1, 2, 3, 4, 5)] == [False, True, True, True, False]
    assert Interval(2).contains(10**18)
