from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_core.artifacts.identity import ModelIdentity
from acs_core.artifacts.trees import Trees
from acs_core.attention import AttentionRecord
from acs_core.geometry import Box
from acs_core.selection.joint_features import feature_names
from acs_core.selection.joint_model import JointIoUModel
from acs_core.selection.registry import AcsJoint, BoxFusingSelector
from acs_core.types import Candidate, ScoreKind

NAMES = feature_names(1)
A, B, C = (10, 20, 30, 40), (12, 20, 32, 40), (10, 24, 30, 44)
FAR = (200, 200, 210, 210)


def agreement_selector():
    """Predicts 0.8 where the others agree by more than 0.4 on average, else 0.2."""
    trees = Trees(
        feature=np.array([[NAMES.index("mean IoU"), 0, 0]], np.int32),
        threshold=np.array([[0.4, 0.0, 0.0]]),
        child=np.array([[[1, 2], [1, 1], [2, 2]]], np.int32),
        value=np.array([[0.0, 0.2, 0.8]]),
        base=0.0,
        width=len(NAMES),
    )
    return AcsJoint(JointIoUModel(trees, ModelIdentity("m", "internvl", 1, 1), (4, 4)))


def candidates(corners):
    return [Candidate(Box(*map(float, c)), "key", i, 0, (1, 3, 5, 7)) for i, c in enumerate(corners)]


def record(count, drawn=0):
    maps = np.full((count, 4, 1, 1, 4, 4), 1 / 32, np.float32)
    return AttentionRecord(np.full((count, 4, 1, 1), np.log(16), np.float32), maps, (4, 4), num_responses=drawn)


def test_it_says_what_it_is():
    selector = agreement_selector()
    assert isinstance(selector, BoxFusingSelector)
    assert (selector.name, selector.score_kind) == ("acs-joint", ScoreKind.PREDICTED_IOU)
    assert selector.needs.maps and selector.needs.all_entropies and selector.needs.map_size == (4, 4)


def test_quality_and_confidence_are_the_predicted_iou():
    selector, made = agreement_selector(), candidates([A, A, FAR])
    quality = selector.qualities(made, record(3), (300, 300))
    assert quality == pytest.approx([0.8, 0.8, 0.2])
    assert selector.confidences(made, record(3), (9, 9), quality) is quality


def test_responses_without_a_box_count():
    quality = agreement_selector().qualities(candidates([A, A]), record(2, 10), (300, 300))
    assert quality == pytest.approx([0.2, 0.2])


def test_nothing_to_choose_from():
    assert agreement_selector().qualities([], record(0), (300, 300)).shape == (0,)


@pytest.mark.parametrize(
    ("corners", "quality", "expected"),
    [
        ([A], [0.7], A),
        ([A, FAR], [0.7, 0.9], A),
        ([A, B], [0.5, 0.5], (11, 20, 31, 40)),
        ([A, B], [0.2, 0.1], (10.4, 20, 30.4, 40)),  # weights 4 to 1
        ([A, B, C], [0.5, 0.0, 0.5], (10, 22, 30, 42)),
        ([A, B], [0.0, 0.0], A),
    ],
)
def test_the_published_box(corners, quality, expected):
    made = candidates(corners)
    box = agreement_selector().fuse(0, range(len(made)), made, np.array(quality))
    assert box.as_tuple() == pytest.approx(expected)


def test_what_a_second_look_saw_weighs_twice():
    first, second = candidates([A, B])
    box = agreement_selector().fuse(0, [0, 1], [first, replace(second, look=1)], np.array([0.5, 0.5]))
    assert box.x1 == pytest.approx((10 + 2 * 12) / 3)


def test_only_members_of_the_group_are_averaged():
    box = agreement_selector().fuse(0, [0, 1], candidates([A, B, C]), np.full(3, 0.5))
    assert box.as_tuple() == pytest.approx((11, 20, 31, 40))


corner = st.integers(0, 50)
boxes = st.tuples(corner, corner, st.integers(1, 40), st.integers(1, 40)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@given(st.lists(st.tuples(boxes, st.floats(0, 1)), min_size=1, max_size=8))
def test_the_box_lies_among_those_that_agree(drawn):
    corners, quality = [c for c, _ in drawn], np.array([q for _, q in drawn])
    best = int(np.argmax(quality))
    box = agreement_selector().fuse(best, range(len(corners)), candidates(corners), quality).as_tuple()
    agreeing = np.array([c for c in corners if Box(*c).iou(Box(*corners[best])) >= 0.3])
    assert (agreeing.min(axis=0) - 1e-9 <= box).all() and (box <= agreeing.max(axis=0) + 1e-9).all()
    assert Box(*box).area > 0
