from dataclasses import replace

import numpy as np
import pytest

from acs_core.artifacts.identity import ModelIdentity
from acs_core.attention import AttentionRecord
from acs_core.errors import ArtifactError, NonFiniteError
from acs_core.geometry import Box
from acs_core.selection.attention_in_box import BoxLayers
from acs_core.selection.registry import AcsFusionBox, BoxFusingSelector
from acs_core.types import Candidate

SELECTOR = AcsFusionBox(BoxLayers(ModelIdentity("m", "internvl", 2, 1), (1,), (10, 10)))
SIZE = (100, 100)
HERE, NEAR, THERE = Box(10, 10, 30, 30), Box(12, 10, 32, 30), Box(60, 60, 80, 80)


def candidates(*boxes):
    return [Candidate(box, "key", i, 0, (1, 3, 5, 7)) for i, box in enumerate(boxes)]


def record(*looks, drawn=0):
    """Attention of each candidate, all of it in one cell (row, column) of 10 x 10, in layer 1; layer 0 is even."""
    maps = np.zeros((len(looks), 4, 2, 1, 10, 10), np.float32)
    maps[:, :, 0] = 0.01
    for i, (row, column) in enumerate(looks):
        maps[i, :, 1, 0, row, column] = 1.0
    return AttentionRecord(np.zeros((len(looks), 4, 2, 1)), maps, (10, 10), num_responses=drawn)


IN_HERE, IN_THERE, NOWHERE = (2, 2), (7, 7), (4, 9)


def published(boxes, looks):
    made = candidates(*boxes)
    quality = SELECTOR.qualities(made, record(*looks), SIZE)
    best = int(np.argmax(quality))
    return SELECTOR.fuse(best, np.argsort(-quality).tolist(), made, quality).as_tuple()


@pytest.mark.parametrize(
    ("boxes", "looks", "expected"),
    [
        ([HERE], [IN_HERE], HERE.as_tuple()),
        ([HERE, THERE], [NOWHERE, IN_THERE], THERE.as_tuple()),
        ([HERE, THERE], [IN_HERE, NOWHERE], HERE.as_tuple()),
        ([HERE, HERE, THERE], [NOWHERE, NOWHERE, IN_THERE], THERE.as_tuple()),  # two without attention weigh nothing
        ([HERE, HERE, THERE], [IN_HERE, IN_HERE, IN_THERE], HERE.as_tuple()),
        ([HERE, NEAR, THERE], [IN_HERE, IN_HERE, IN_THERE], (11, 10, 31, 30)),  # those that agree are averaged
        ([HERE, THERE], [NOWHERE, NOWHERE], HERE.as_tuple()),
    ],
)
def test_the_published_box(boxes, looks, expected):
    assert published(boxes, looks) == pytest.approx(expected)


def test_it_makes_boxes():
    assert isinstance(SELECTOR, BoxFusingSelector)


def test_nothing_to_choose_from():
    assert SELECTOR.qualities([], record(), SIZE).shape == (0,)
    assert SELECTOR.confidences([], record(), SIZE, np.zeros(0)).shape == (0,)


def confidence(made, seen):
    return SELECTOR.confidences(made, seen, SIZE, SELECTOR.qualities(made, seen, SIZE))


def attention(seen, boxes):
    return SELECTOR._in_box.qualities(candidates(*boxes), seen, SIZE)


@pytest.mark.parametrize(("drawn", "share"), [(2, 1.0), (4, 0.5), (0, 1.0)])
def test_responses_without_a_box_lower_the_confidence(drawn, share):
    seen = record(IN_HERE, NOWHERE, drawn=drawn)
    assert confidence(candidates(HERE, HERE), seen) == pytest.approx((share + attention(seen, [HERE, HERE])) / 2)


def test_a_single_response_is_as_sure_as_its_attention():
    sure, unsure = (confidence(candidates(HERE), record(look, drawn=1)).item() for look in (IN_HERE, NOWHERE))
    assert sure == pytest.approx(1.0)
    assert unsure == pytest.approx(0.5)


def test_the_confidence_is_the_agreement_of_the_others_weighted_by_their_attention():
    boxes, seen = [HERE, NEAR, THERE], record(IN_HERE, NOWHERE, IN_THERE, drawn=3)
    agreed = 2 * confidence(candidates(*boxes), seen) - attention(seen, boxes)
    assert agreed == pytest.approx([0.5, HERE.iou(NEAR) / 2, 0.5], abs=1e-4)  # NEAR weighs nothing


def test_several_objects_do_not_share_the_confidence():
    both = [replace(c, response=i // 2, order=i % 2) for i, c in enumerate(candidates(*[HERE, THERE] * 3))]
    looks = [IN_HERE, IN_THERE] * 3
    alone = confidence(candidates(HERE, HERE, HERE), record(*[IN_HERE] * 3, drawn=3))
    seen = record(*looks, drawn=3)
    assert confidence(both, seen) == pytest.approx(np.repeat(alone, 2))
    assert SELECTOR.qualities(both, seen, SIZE) == pytest.approx(np.ones(6))


def test_of_the_boxes_of_one_response_the_one_with_attention_is_best():
    made = [replace(c, response=0, order=i) for i, c in enumerate(candidates(HERE, THERE))]
    here, there = SELECTOR.qualities(made, record(NOWHERE, IN_THERE), SIZE)
    assert there == pytest.approx(1.0)
    assert here < 0.01


def test_what_a_second_look_saw_counts_twice():
    made = candidates(HERE, HERE, THERE)
    made[2] = replace(made[2], look=1, in_window=THERE)
    assert SELECTOR.qualities(made, record(IN_HERE, IN_HERE, IN_THERE), SIZE) == pytest.approx([0.5, 0.5, 0.5])


def test_broken_or_missing_attention_is_said():
    with pytest.raises(ArtifactError, match="needs attention maps"):
        SELECTOR.qualities(candidates(HERE), replace(record(IN_HERE), maps=None), SIZE)
    broken = record(IN_HERE)
    broken.maps[0, 0, 1, 0, 0, 0] = np.nan
    with pytest.raises(NonFiniteError):
        SELECTOR.qualities(candidates(HERE), broken, SIZE)
