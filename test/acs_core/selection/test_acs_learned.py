import numpy as np
import pytest
import torch

from acs_core.attention import AttentionRecord
from acs_core.errors import NonFiniteError, RegressorError
from acs_core.geometry import Box
from acs_core.selection.acs_learned import BATCH, AcsLearned
from acs_core.selection.regressor import AttentionIoURegressor
from acs_core.types import Candidate, ScoreKind


def candidates(count):
    return [Candidate(Box(i, 0, i + 5, 5), "key", i, 0, (1, 3, 5, 7)) for i in range(count)]


def record(count, side=4):
    maps = np.random.default_rng(0).random((count, 4, 1, 2, side, side), dtype=np.float32) / side**2
    return AttentionRecord(entropy=np.full((count, 4, 1, 2), np.nan, np.float32), maps=maps, grid=(side, side))


@pytest.fixture
def selector():
    torch.manual_seed(0)
    return AcsLearned(AttentionIoURegressor(1, 2), (4, 4))


@pytest.mark.parametrize("count", [0, 1, BATCH, BATCH + 3])
def test_quality_is_the_predicted_iou_of_each_candidate(selector, count):
    ev = record(count)
    values = selector.qualities(candidates(count), ev, (100, 100))
    assert values.dtype == np.float64
    with torch.no_grad():
        alone = [float(selector.regressor(torch.from_numpy(ev.maps[i : i + 1]))) for i in range(count)]
    assert values == pytest.approx(np.array(alone), abs=1e-5)


def test_confidence_is_the_quality(selector):
    values = np.array([0.1, 0.9])
    assert selector.confidences(candidates(2), record(2), (9, 9), values) is values


def test_what_it_says_about_itself(selector):
    assert selector.needs.maps and selector.needs.map_size == (4, 4) and selector.needs.heads is None
    assert selector.score_kind is ScoreKind.PREDICTED_IOU
    assert not selector.regressor.training


def test_evidence_without_maps_is_refused(selector):
    with pytest.raises(RegressorError, match="needs attention maps"):
        selector.qualities(candidates(1), AttentionRecord(record(1).entropy, None, (4, 4)), (100, 100))


def test_predictions_that_are_no_numbers_are_an_error(selector):
    given = record(2)
    given.maps[1, 2, 0, 1, 3, 3] = np.nan
    with pytest.raises(NonFiniteError, match="regressor of acs-learned predicted NaN"):
        selector.qualities(candidates(2), given, (100, 100))


def test_weights_that_overflow_are_an_error(selector):
    with torch.no_grad():
        selector.regressor.fusion[0].weight.fill_(3e38)
    with pytest.raises(NonFiniteError, match="build it again with `acs-train build`"):
        selector.qualities(candidates(2), record(2), (100, 100))
