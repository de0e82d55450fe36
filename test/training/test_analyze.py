from dataclasses import replace

import numpy as np
import pytest

from training.analyze import AnalysisConfig, analyze, gradient_importance, head_file
from training.errors import DataError


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
