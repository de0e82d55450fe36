from dataclasses import replace

import numpy as np
import pytest

from training.errors import DataError
from training.fitting.analyze import AnalysisConfig, analyze, gradient_importance, head_file


def test_gradient_and_entropy_find_the_head_that_knows(collection, fitted, identity, telling_head):
    everything = np.arange(len(collection.iou))
    analysis = analyze(fitted.regressor, collection, everything, AnalysisConfig(layers=1))
    assert analysis.layers == (telling_head[0],)
    for c in range(4):
        assert np.unravel_index(analysis.entropy_gap[c].argmax(), analysis.entropy_gap[c].shape) == telling_head
    heads = head_file(analysis, identity, "test", AnalysisConfig(heads=1))
    assert all(pairs == (telling_head,) for pairs in heads.pairs())
    assert heads.heads[0][0].entropy_gap > 0.1


def test_restriction_keeps_heads_in_the_critical_layers(collection, fitted, identity):
    analysis = replace(analyze(fitted.regressor, collection, np.arange(len(collection.iou))), layers=(2,))
    inside = head_file(analysis, identity, "", AnalysisConfig(heads=2))
    anywhere = head_file(analysis, identity, "", AnalysisConfig(heads=2, restrict=False))
    assert {layer for pairs in inside.pairs() for layer, _ in pairs} == {2}
    assert {layer for pairs in anywhere.pairs() for layer, _ in pairs} != {2}


def test_importance_does_not_depend_on_the_batch(collection, fitted):
    index = np.arange(20)
    np.testing.assert_allclose(
        gradient_importance(fitted.regressor, collection, index, batch=20),
        gradient_importance(fitted.regressor, collection, index, batch=3),
        rtol=1e-3,
    )


def test_groups_too_small_to_compare_are_said(collection, fitted):
    with pytest.raises(DataError, match="collect more"):
        analyze(fitted.regressor, collection, np.arange(12))


def test_groups_and_gaps_are_means_over_candidates(collection, fitted):
    index = np.arange(len(collection.iou))
    analysis = analyze(fitted.regressor, collection, index, AnalysisConfig(draws=10))
    iou = collection.iou
    for group, inside in zip(analysis.entropy, (iou > 0.7, (iou > 0) & (iou <= 0.3), iou == 0), strict=True):
        np.testing.assert_allclose(group, collection.entropy[inside].mean(axis=0), rtol=1e-5)
    assert analysis.group_sizes == ((iou > 0.7).sum(), ((iou > 0) & (iou <= 0.3)).sum(), (iou == 0).sum())
    np.testing.assert_allclose(analysis.entropy_gap, analysis.entropy[1] - analysis.entropy[0])


def test_a_head_chosen_by_luck_is_seen_as_such(collection, fitted, telling_head):
    config = AnalysisConfig(heads=1, layers=1, draws=100)
    analysis = analyze(fitted.regressor, collection, np.arange(len(collection.iou)), config)
    assert (analysis.chosen_share_anywhere[:, *telling_head] > 0.999).all(), "it knows in every draw"
    low, high = analysis.gap_interval[:, :, *telling_head]
    assert (low > 0).all() and (high > analysis.entropy_gap[:, *telling_head]).all()
    noise = replace(collection, entropy=np.random.default_rng(0).random(collection.entropy.shape).astype(np.float32))
    lucky = analyze(fitted.regressor, noise, np.arange(len(noise.iou)), config)
    assert lucky.chosen_share_anywhere.max() < 0.9
    best = lucky.to_dict(config)["best_heads"]["anywhere"]["x1"][0]
    assert best["chosen_share"] < 0.9 and len(best["interval"]) == 2
    assert 0.99 < lucky.chosen_share_anywhere[0].sum() < 1.01


@pytest.mark.parametrize(("low", "high"), [(0.7, 0.3), (0.0, 0.7), (0.3, 1.0)])
def test_thresholds_that_are_none_are_said(collection, fitted, low, high):
    with pytest.raises(DataError, match="0 < low"):
        analyze(fitted.regressor, collection, np.arange(100), AnalysisConfig(low_iou=low, high_iou=high))
