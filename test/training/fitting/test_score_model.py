"""Fitting of score models, and calibrations that hold one."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.made_up_parts import half_absent

from acs_core.artifacts.calibration import Calibration
from acs_core.artifacts.heads import Head, HeadFile
from acs_core.evaluation.statistics import auroc
from acs_core.selection.registry import AcsFree
from acs_core.selection.scorer import Scorer
from training.collection.offline_selection import calls
from training.fitting.calibrate import calibrate
from training.fitting.fit_score_model import FOLDS, fit_score_model, folds, out_of_fold_estimates
from training.fitting.score_rows import ScoreRows

NAMES = ("confidence", "share without box", "mean IoU")


def rows(count=400, seed=0):
    """Confidence says nothing; few responses with a box mean that it is wrong."""
    rng = np.random.default_rng(seed)
    features = rng.random((count, len(NAMES)))
    iou = np.where(features[:, 1] + 0.1 * rng.standard_normal(count) < 0.4, 0.8, 0.1)
    return ScoreRows(NAMES, features, iou, np.arange(count), np.ones(count, bool), 0)


def test_estimates_of_unseen_images_tell_right_from_wrong_where_the_confidence_does_not():
    made = rows()
    told = out_of_fold_estimates(made, folds(made.image, 0))
    assert auroc(told, made.iou >= 0.5) > 0.95
    assert auroc(made.confidence, made.iou >= 0.5) < 0.6


def test_the_estimate_never_rises_with_what_speaks_against_the_box():
    model = fit_score_model(rows(), np.ones(400, bool))
    share = np.linspace(0, 1, 50)
    told = model.predict(np.stack([np.full(50, 0.5), share, np.full(50, 0.5)], axis=1))
    assert (np.diff(told) <= 1e-12).all() and told[0] - told[-1] > 0.5


def test_what_is_not_used_does_not_change_the_model():
    made, used = rows(), np.arange(400) < 300
    other = replace(made, iou=np.where(used, made.iou, 1 - made.iou))
    assert fit_score_model(made, used).to_dict() == fit_score_model(other, used).to_dict()


def test_all_rows_of_an_image_are_in_one_fold():
    image = np.repeat(np.arange(40), 3)
    fold = folds(image, seed=1)
    assert {len(set(fold[image == i])) for i in range(40)} == {1}
    assert set(fold) == set(range(FOLDS))


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    return half_absent(tmp_path_factory.mktemp("store"), pairs=240, per_pair=3)


@pytest.fixture
def selector(identity, telling_head):
    return AcsFree(HeadFile(identity, "heads", ((Head(*telling_head),),) * 4))


def test_a_calibration_counts_absent_objects_and_scores_as_a_call_does(collected, selector, identity, tmp_path):
    curve, told = calibrate(selector, collected, identity, "test")
    assert (curve.questions, curve.absent, curve.counts_absent) == (240, 120, True)
    assert told.auroc is not None and told.auroc_all == told.auroc  # each question got a box
    curve.save(tmp_path / "c.json")
    read = Calibration.load(tmp_path / "c.json")
    assert read.to_dict() == curve.to_dict()
    found = list(calls(collected, False))
    scores = np.array([call.decided(Scorer(selector, read)).detections[0].score for call in found])
    assert ((scores >= 0) & (scores <= 1)).all() and len(set(scores.tolist())) > 5
    right = np.array([c.decided(Scorer(selector, None)).detections[0].candidate for c in found])
    hit = np.array([collected.iou[call.index[k]] >= 0.5 for call, k in zip(found, right, strict=True)])
    assert auroc(scores, hit) > 0.6  # fitted to these
    assert abs(scores.mean() - hit.mean()) < 0.1


def test_few_answers_get_curves_without_a_score_model(collection, collected, selector, identity):
    assert calibrate(selector, collection, identity, "")[0].score_model is None
    curve, told = calibrate(selector, collected, identity, "", plain=True)
    assert curve.score_model is None and curve.counts_absent
    assert told.auroc == pytest.approx(told.auroc_confidence, abs=0.1)


def test_second_looks_count_their_own_questions(collected, selector, identity):
    """A model that refuses well gives fewer second looks than there are questions about absent objects."""
    again = [
        replace(call, looked_again=True) for call in calls(collected, False) if call.pair % 2 == 0 or call.pair < 30
    ]
    curve, _ = calibrate(selector, collected, identity, "test", looked_again=again)
    assert (curve.questions, curve.absent, curve.second_look) == (135, 15, True)
    few = [call for call in again if call.pair % 2 == 0 and call.pair < 120]
    assert calibrate(selector, collected, identity, "test", looked_again=few)[0].absent == 0


def test_a_part_of_the_responses_knows_their_number(collected):
    call = next(iter(calls(collected, False)))
    whole = replace(call, record=replace(call.record, num_responses=10))
    assert whole.first(5).record.num_responses == 5
