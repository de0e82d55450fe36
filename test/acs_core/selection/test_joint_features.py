from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_core.attention import AttentionRecord, entropy
from acs_core.geometry import Box
from acs_core.selection.joint_features import AGREEMENT, BOX, agreement_features, feature_names, features
from acs_core.types import Candidate

LAYERS, HEADS, SIDE = 2, 3, 8
NAMES = feature_names(LAYERS)
A, B, FAR = (10, 20, 30, 40), (12, 20, 32, 40), (60, 60, 70, 70)


def candidate(corners, response=0, order=0, **more):
    return Candidate(Box(*map(float, corners)), "key", response, order, (1, 3, 5, 7), **more)


def record(maps, drawn=0):
    maps = np.asarray(maps, np.float32)
    return AttentionRecord(entropy(maps).astype(np.float32), maps, (SIDE, SIDE), num_responses=drawn)


def flat(count):
    return np.full((count, 4, LAYERS, HEADS, SIDE, SIDE), 0.5 / SIDE**2)


def told(found, name):
    return found[:, NAMES.index(name)]


def agreement(corners, responses, drawn=0):
    found = agreement_features(np.array(corners, float).reshape(-1, 4), np.array(responses, int), drawn)
    return {name: found[:, i] for i, name in enumerate(AGREEMENT)}


def test_a_column_for_each_name():
    found = features([candidate(A), candidate(B, 1)], record(flat(2), 10), (80, 80))
    assert found.shape == (2, len(NAMES)) and found.dtype == np.float32 and np.isfinite(found).all()
    assert len(set(NAMES)) == len(NAMES)


def test_no_candidate():
    nothing = AttentionRecord(np.zeros((0, 4, LAYERS, HEADS), np.float32), flat(0), (SIDE, SIDE))
    assert features([], nothing, (80, 80)).shape == (0, len(NAMES))


def test_without_maps_it_says_so():
    bare = replace(record(flat(1)), maps=None)
    with pytest.raises(ValueError, match="needs attention maps"):
        features([candidate(A)], bare, (80, 80))


@pytest.mark.parametrize(
    ("drawn", "mean", "share", "silent"),
    [(2, 1.0, 1.0, 0.0), (5, 0.25, 0.25, 0.6), (0, 1.0, 1.0, 0.0)],  # 0: not known, those with a box
)
def test_responses_without_a_box_agree_with_nothing(drawn, mean, share, silent):
    found = agreement([A, A], [0, 1], drawn)
    assert found["mean IoU"] == pytest.approx([mean] * 2)
    assert found["share above 0.9"] == pytest.approx([share] * 2)
    assert found["share without box"] == pytest.approx([silent] * 2)
    assert found["mean IoU of boxes"] == pytest.approx([1.0] * 2)


def test_a_lone_response_has_no_witness():
    found = agreement([A], [0], 1)
    for name in ("mean IoU", "largest IoU", "spread of IoU", "share above 0.3"):
        assert found[name] == pytest.approx([0.0])
    assert found["responses"] == pytest.approx([1.0])


def test_its_own_response_is_no_witness():
    found = agreement([A, A, FAR], [0, 0, 1], 2)
    assert found["mean IoU"] == pytest.approx([0.0] * 3)


def test_responses_that_list_both_objects_agree_with_each():
    found = agreement([A, FAR, A, FAR], [0, 0, 1, 1], 2)
    assert found["mean IoU"] == pytest.approx([1.0] * 4)
    assert found["boxes a response"] == pytest.approx([2.0] * 4)


def test_more_responses_that_say_the_same_change_nothing_but_their_number():
    few, many = agreement([A, B] * 5, range(10), 10), agreement([A, B] * 15, range(30), 30)
    for name in AGREEMENT:
        if not name.startswith(("mean IoU", "spread", "share")):
            assert few[name][0] == pytest.approx(many[name][0]), name
    assert few["mean IoU"][0] == pytest.approx(many["mean IoU"][0], abs=0.02)


def test_how_far_the_mean_is_off():
    found = agreement([A, B], [0, 1])
    assert found["off the mean x1"] == pytest.approx([0.05, -0.05])
    assert found["off the mean y1"] == pytest.approx([0.0, 0.0])
    assert found["IoU with mean box"] == pytest.approx([19 / 21] * 2)


def test_attention_in_the_box_and_around_it():
    maps = flat(1)
    maps[:, 0, 1, 2] = 0.0
    maps[:, 0, 1, 2, 3, 1] = 0.2  # the cell x 10-20, y 30-40 of 80 pixels, in the box A
    maps[:, 0, 1, 1] = 0.0
    maps[:, 0, 1, 1, 7, 7] = 0.2
    found = features([candidate(A)], record(maps), (80, 80))
    assert told(found, "in the box x1 1 largest") == pytest.approx([1.0])
    assert told(found, "concentration x1 1 largest") == pytest.approx([1.0], abs=1e-5)
    spread = 2 * 2 + 2 * 2 + 1  # cells of A, widened by half a cell on each side: 3 x 3
    assert told(found, "in the box y1 1 mean") == pytest.approx([spread / SIDE**2])
    assert told(found, "in the box x1 1 mean") == pytest.approx([(1.0 + 0.0 + spread / SIDE**2) / 3])
    assert told(found, "largest cell y1 0 largest") == pytest.approx([1 / SIDE**2])


def test_a_second_look_is_read_in_its_window():
    plain = features([candidate(A)], record(flat(1)), (80, 80))
    again = features([candidate(FAR, look=1, in_window=Box(*map(float, A)))], record(flat(1)), (80, 80))
    assert np.array_equal(plain, again)


def test_the_box_is_read_in_shares_of_the_picture():
    small = features([candidate(A)], record(flat(1)), (80, 80))[:, : len(BOX)]
    large = features([candidate(np.array(A) * 2)], record(flat(1)), (160, 160))[:, : len(BOX)]
    assert small == pytest.approx(large)


corner = st.integers(0, 60)
boxes = st.tuples(corner, corner, st.integers(1, 20), st.integers(1, 20), st.integers(0, 4))


@given(st.lists(boxes, min_size=1, max_size=9), st.integers(0, 12))
def test_all_is_finite_and_shares_are_shares(drawn, extra):
    corners = [(x, y, x + w, y + h) for x, y, w, h, _ in drawn]
    found = agreement(corners, [r for *_, r in drawn], 5 + extra)
    for name, column in found.items():
        assert np.isfinite(column).all(), name
        if name.startswith(("mean IoU of", "largest IoU", "share")):
            assert ((column >= 0) & (column <= 1 + 1e-9)).all(), name
