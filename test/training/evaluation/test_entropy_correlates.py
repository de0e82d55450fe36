import numpy as np
import pytest

from acs_core.artifacts.heads import Head, HeadFile
from acs_core.evaluation.table import to_json
from training.evaluation.ablate import StepCollections
from training.evaluation.entropy_correlates import (
    QUANTITIES,
    CandidateProperties,
    candidates_of,
    centred,
    correlation,
    follows_table,
    partial_correlation,
)


@pytest.fixture
def heads(identity, telling_head):
    return HeadFile(identity, "heads", ((Head(*telling_head),),) * 4, (telling_head[0],))


def test_what_is_known_of_the_candidates(collection, heads):
    found = candidates_of(collection, heads)
    count = len(collection.iou)
    assert found.low.shape == found.question.shape == (count,) and set(found.values) == set(QUANTITIES)
    np.testing.assert_allclose(found.values["IoU"], collection.iou)
    # all boxes of the made-up collection are 10 x 10 in pictures of 100 x 100
    np.testing.assert_allclose(found.values["size"], np.log(0.01))
    centre = (collection.box[0, :2] + 5) / 100 - 0.5
    assert found.values["distance from the centre"][0] == pytest.approx(np.hypot(*centre))
    assert ((found.values["agreement"] >= 0) & (found.values["agreement"] <= 1)).all()


def test_the_mean_of_a_question_is_taken_away():
    question = np.array([3, 3, 7, 7, 7])
    within = centred(CandidateProperties(np.array([1.0, 3, 5, 5, 8]), {"IoU": np.array([0.0, 1, 0, 0, 3])}, question))
    assert within.low.tolist() == [-1, 1, -1, -1, 2] and within.values["IoU"].tolist() == [-0.5, 0.5, -1, -1, 2]


def test_a_head_that_knows_the_iou_follows_it_and_no_other_thing(collection, fresh_collection, heads):
    (table,) = to_json([follows_table([StepCollections("emitting", collection, fresh_collection)], heads)])
    rows = {row["low entropy with"]: row for row in table["rows"]}
    assert rows["IoU"]["r across"] > 0.8 and rows["IoU"]["r within"] > 0.8
    assert rows["IoU, size and place held equal"]["r across"] == pytest.approx(rows["IoU"]["r across"], abs=0.05)
    assert abs(rows["distance from the centre"]["r across"]) < 0.3
    assert rows["size"]["r across"] is None, "all are of one size"


def test_what_is_held_equal_explains_nothing_any_more():
    rng = np.random.default_rng(0)
    z, noise = rng.normal(size=500), rng.normal(size=(2, 500))
    x, y = z + 0.1 * noise[0], z + 0.1 * noise[1]
    assert correlation(x, y) > 0.9 and abs(partial_correlation(x, y, [z])) < 0.15


@pytest.mark.parametrize(("x", "y"), [([], []), ([1.0], [2.0]), ([1.0, 1.0], [1.0, 2.0])])
def test_no_number_where_there_is_none(x, y):
    assert np.isnan(correlation(np.array(x), np.array(y)))
    assert np.isnan(partial_correlation(np.array(x), np.array(y), [np.zeros(len(x))]))
