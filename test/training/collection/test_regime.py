import numpy as np
import pytest
from store_parts import collection_of

from acs_core.geometry import Box
from training.collection.offline_selection import Choices
from training.collection.regime import Regime, regime_of, right_object_rate, split_questions

TRUE = Box(0, 0, 10, 10)
NEAR, FAR = Box(2, 0, 12, 10), Box(50, 50, 70, 70)  # IoU 2/3 and 0
JITTER, WIDE = Box(0, 4, 10, 14), Box(0, 0, 10, 40)  # IoU 0.43 and 0.25


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        # (first valid, mean box, smallest, split, gain of the right object, then of the box), in percent
        ([[TRUE], [NEAR]], (100, 0, 0, 0, 0, 0)),
        ([[FAR], [TRUE], [TRUE], [TRUE]], (0, 0, 100, 100, 25, 0)),
        ([[TRUE], [FAR]], (100, -100, 0, 100, 50, 0)),
        # jitter on the right object: the mean is right where single boxes are not
        ([[JITTER], [TRUE]], (0, 100, 0, 0, 0, 50)),
        ([[WIDE], [JITTER]], (0, 0, 0, 0, 0, 0)),
        ([[], []], (0, 0, 0, 0, 0, 0)),
        # the first valid box is that of the earliest response that has one
        ([[], [NEAR], [FAR]], (100, -100, 0, 100, 50, 0)),
    ],
)
def test_one_question(samples, expected):
    found = regime_of(collection_of([samples], [[TRUE]]))
    assert found == Regime(*map(pytest.approx, expected))


def test_several_questions_are_averaged():
    said = [[[TRUE], [FAR]], [[NEAR], [NEAR]], [[], []], [[FAR], [FAR]]]
    data = collection_of(said, [[TRUE]] * 4)
    found = regime_of(data)
    assert (found.first_valid, found.split) == (50.0, 25.0) and found.object_gain == pytest.approx(12.5)
    assert split_questions(data).tolist() == [True, False, False, False]


def test_the_right_object_is_counted_where_the_samples_differ():
    iou = np.array([0.2, 0.0, 0.9, 0.05])
    chosen = Choices(iou, iou, iou, np.ones(4, int), np.ones(4, int))
    assert right_object_rate(chosen, np.array([True, True, False, True])) == pytest.approx(100 / 3)
    assert right_object_rate(chosen, np.zeros(4, bool)) is None
