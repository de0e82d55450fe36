from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from acs_core.selection.joint_features import AGREEMENT, BOX, feature_names, features
from training.collection.offline_selection import calls
from training.errors import DataError
from training.fitting.fit import split_by_image
from training.fitting.fit_joint import JointConfig, Prepared, fit_joint, judged, trees_of

QUICK = JointConfig(trees=80, learning_rate=0.1, leaf_candidates=5)


@pytest.fixture(scope="module")
def made(collection, identity):
    return fit_joint(collection, *split_by_image(collection.image, 0.2, 0), identity, "test", QUICK)


def test_it_learns_where_attention_knows_the_iou(made):
    assert made.held.pearson > 0.8
    assert made.quality.made_by == "test"


def test_training_and_run_time_see_the_same(collection, made):
    rows = Prepared.of(collection).rows()
    for call in list(calls(collection, True))[:5]:
        seen = features(call.candidates, call.record, call.image_size)
        # the made-up collection does not say how many responses were drawn: those with a box, then
        place = [int(np.flatnonzero(rows[0] == i)[0]) for i in call.index]
        assert np.array_equal(rows[1][place], seen)
        assert np.allclose(
            made.quality.predict(call.candidates, call.record, call.image_size),
            np.clip(made.quality.trees.predict(rows[1][place]), 0, 1),
        )


def test_held_out_images_alone_are_judged(collection, made):
    _, validation = split_by_image(collection.image, 0.2, 0)
    assert made.held.count == len(made.predicted) == len(validation)
    again = judged(made.quality, Prepared.of(collection), validation)
    assert again.pearson == pytest.approx(made.held.pearson)


def test_fewer_responses_are_judged_too(made, collection):
    assert set(made.held_by_count) == {1, 3}  # five were drawn
    images = len(np.unique(collection.image[split_by_image(collection.image, 0.2, 0)[1]]))
    assert made.held_by_count[1].count == images


def test_the_number_of_responses_is_the_manifests(collection):
    more = replace(collection, manifest=collection.manifest | {"samples": 10})
    prepared = Prepared.of(more)
    silent = len(BOX) + AGREEMENT.index("share without box")
    assert prepared.drawn == 10 and prepared.rows()[1][:, silent] == pytest.approx(0.5)


def test_parts_hold_some_of_the_responses(collection):
    prepared, rng = Prepared.of(collection), np.random.default_rng(0)
    sizes = {len(prepared.some(rng)) for _ in range(100)}
    assert sizes == {1, 2, 3, 4}
    index, rows = prepared.rows(lambda: np.array([1, 3]))
    assert set(collection.response[index]) == {1, 3}
    assert rows.shape == (len(index), len(feature_names(3)))
    assert prepared.rows(lambda: np.array([99]))[1].shape == (0, len(feature_names(3)))


def test_the_same_seed_gives_the_same_trees(collection, identity, made):
    again = fit_joint(collection, *split_by_image(collection.image, 0.2, 0), identity, "test", QUICK)
    assert np.array_equal(again.predicted, made.predicted)


def test_an_empty_side_is_said(collection, identity):
    with pytest.raises(DataError, match="others to judge on"):
        fit_joint(collection, np.arange(10), np.zeros(0, int), identity, "")


def test_trees_say_what_the_model_says():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 4)).astype(np.float32)
    model = HistGradientBoostingRegressor(max_iter=20, early_stopping=False).fit(rows, rows[:, 0] * rows[:, 1])
    assert np.allclose(trees_of(model, rows).predict(rows), model.predict(rows), atol=1e-9)


def test_another_scikit_learn_is_noticed():
    with pytest.raises(DataError, match="install the version that requirements/ names"):
        trees_of(object(), np.zeros((1, 4), np.float32))
