from __future__ import annotations

from dataclasses import replace

import pytest

from acs_core.geometry import Box
from acs_core.types import Detection, ScoreKind
from acs_ros.replay.evaluation import ALL, ONE, Method, answer_of, items_of, make_evaluation, method_of
from acs_ros.replay.journal import Kept
from acs_ros.replay.replies import Fate, FrameReplies, Replies
from acs_ros.replay.schedule import GroundTruth
from acs_ros.replay.settings import make_settings

BOX = Box(1, 2, 4, 5)  # what make_result answers
METHOD = Method("mine", "acs-learned", 0.5, 10)


@pytest.fixture
def reply(at, result):
    def make(number, fate=Fate.ANSWERED, phrases=("key",), stamp_ns=None):
        kept = tuple(Kept(result(p, (40, 30)), 7.0) for p in phrases) if fate is Fate.ANSWERED else ()
        return FrameReplies(at(number, stamp_ns), fate, phrases, kept, 7.0)

    return make


def test_frames_that_nobody_owed_an_answer_about_are_no_questions(reply):
    replies = Replies(tuple(reply(i, fate) for i, fate in enumerate(Fate)))
    items = items_of(replies, GroundTruth({}))
    assert [i.fate for i in items] == [Fate.ANSWERED, Fate.FAILED, Fate.UNANSWERED, Fate.UNREADABLE]
    assert items[2].kept == Kept(None, None, "no answer (unanswered)")
    assert items[0].key == "0.250000000:key"


def test_a_stamp_that_came_twice_makes_two_questions(reply):
    items = items_of(Replies((reply(0, stamp_ns=5), reply(1, stamp_ns=5))), GroundTruth({}))
    assert [i.key for i in items] == ["0.000000005:key", "0.000000005:key (2)"]


def evaluate(replies, labels):
    items = items_of(replies, GroundTruth(labels))
    return make_evaluation("a bag", items, METHOD, lambda f: f"{f.number}.jpg", {"model": "m"})


def test_labelled_questions_become_a_group(reply, at):
    replies = Replies(tuple(reply(i) for i in range(3)))
    labels = {at(0).key: (("key", BOX),), at(1).key: ()}  # the third is not labelled
    (group,) = evaluate(replies, labels).groups
    assert (group.name, group.objects) == (ONE, "single")
    assert [(q.key, q.image, q.image_size, q.truth) for q in group.questions] == [
        ("0.250000000:key", "0.jpg", (40, 30), (BOX,)),
        ("0.500000000:key", "1.jpg", (40, 30), ()),
    ]
    (run,) = group.runs
    assert (run.method, run.temperature, run.samples, run.kind, run.learned) == ("mine", 0.5, 10, "ours", True)
    assert run.answers[0].boxes == (BOX,) and run.answers[0].latency_ms == 7.0


def test_several_true_boxes_make_a_group_of_all(reply, at):
    labels = {at(0).key: (("key", BOX),), at(1).key: (("key", BOX), ("key", Box(9, 9, 20, 20)))}
    one, every = evaluate(Replies((reply(0), reply(1))), labels).groups
    assert (one.name, len(one.questions)) == (ONE, 1)
    assert (every.name, every.objects, len(every.questions)) == (ALL, "several", 2)


@pytest.mark.parametrize(
    ("selector", "kind"),
    [("acs-free", "ours"), ("acs-learned", "ours"), ("greedy", "baseline"), ("?", "baseline"), ("unknown", "baseline")],
)
def test_only_a_known_selector_of_this_package_is_ours(reply, at, selector, kind):
    items = items_of(Replies((reply(0),)), GroundTruth({at(0).key: (("key", BOX),)}))
    method = replace(METHOD, selector=selector)
    (group,) = make_evaluation("a bag", items, method, lambda f: "", {}).groups
    assert [run.kind for run in group.runs] == [kind]


def test_without_labels_there_is_no_group(reply):
    assert evaluate(Replies((reply(0),)), {}).groups == ()


@pytest.mark.parametrize(
    ("kind", "scores"), [(ScoreKind.CALIBRATED, (0.75, 0.2)), (ScoreKind.RANK_RELATIVE, ()), (ScoreKind.NONE, ())]
)
def test_only_probabilities_are_scores(result, kind, scores):
    base = result("key")
    worse = Detection(Box(0, 0, 2, 2), 0.2, 1)
    found = replace(base, detections=(worse, *base.detections), score_kind=kind)
    answer = answer_of(Kept(found, 3.0))
    assert answer.boxes == (BOX, worse.box) and answer.scores == scores and not answer.reason


def test_why_there_is_no_box_is_told(result):
    assert answer_of(Kept(result("key", reason="not there"), 3.0)).reason == "not there"
    assert answer_of(Kept(None, None, "broken")) == answer_of(Kept(None, None, "broken"))
    assert answer_of(Kept(None, None, "broken")).reason == "broken"


@pytest.mark.parametrize(
    ("selector", "known", "name", "expected"),
    [
        ("acs-free", {"samples": 5}, None, Method("acs-free", "acs-free", 0.5, 5)),
        ("greedy", {"samples": 5}, "base", Method("base", "greedy", None, 1)),
        ("acs-free", None, None, Method("acs-free", "acs-free", None, 2)),  # of a node: what its answers tell
    ],
)
def test_what_answered_is_named(reply, result, selector, known, name, expected):
    told = replace(reply(0), kept=(Kept(replace(result("key"), selector=selector), 1.0),))
    settings = None if known is None else make_settings(None, {"selector": selector, **known})
    assert method_of(items_of(Replies((told,)), GroundTruth({})), settings, name) == expected
