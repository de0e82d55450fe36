from dataclasses import replace

import numpy as np
import pytest
import torch

from acs_core.attention import AttentionRecord
from acs_core.errors import NonFiniteError, RegressorError
from acs_core.geometry import Box
from acs_core.selection.acs_learned import BATCH
from acs_core.selection.acs_learned_box import AcsLearnedBox
from acs_core.selection.box_regressor import BoxRegressor
from acs_core.types import Candidate, ScoreKind

SIZE = 200, 100  # pixels


def candidates(count):
    return [Candidate(Box(i, 10, i + 50, 40), "key", i, 0, (1, 3, 5, 7)) for i in range(count)]


def record(count, side=4):
    maps = np.random.default_rng(0).random((count, 4, 1, 2, side, side), dtype=np.float32) / side**2
    return AttentionRecord(entropy=np.full((count, 4, 1, 2), np.nan, np.float32), maps=maps, grid=(side, side))


@pytest.fixture
def selector():
    torch.manual_seed(0)
    return AcsLearnedBox(BoxRegressor(1, 2), (4, 4))


@pytest.mark.parametrize("count", [0, 1, BATCH, BATCH + 3])
def test_quality_is_the_predicted_iou_of_each_candidate_in_its_box(selector, count):
    given, made = record(count), candidates(count)
    values = selector.qualities(made, given, SIZE)
    assert values.dtype == np.float64
    with torch.no_grad():
        alone = [
            float(selector.regressor(torch.from_numpy(given.maps[i : i + 1]), torch.tensor([shares(made[i].box)])))
            for i in range(count)
        ]
    assert values == pytest.approx(np.array(alone), abs=1e-5)


def shares(box):
    return [box.x1 / 200, box.y1 / 100, box.x2 / 200, box.y2 / 100]


def test_other_candidates_do_not_matter(selector):
    given, made = record(3), candidates(3)
    values = selector.qualities(made, given, SIZE)
    assert selector.qualities(made[1:], given.only([1, 2]), SIZE) == pytest.approx(values[1:], abs=1e-6)


def test_a_box_of_a_second_look_is_compared_in_its_window(selector):
    given, (made,) = record(1), candidates(1)
    looked = replace(made, box=Box(150, 70, 160, 80), look=1, in_window=made.box)
    assert selector.qualities([looked], given, SIZE) == selector.qualities([made], given, SIZE)
    elsewhere = replace(looked, in_window=None)
    assert selector.qualities([elsewhere], given, SIZE) != selector.qualities([made], given, SIZE)


def test_what_it_says_about_itself(selector):
    assert selector.needs.maps and selector.needs.map_size == (4, 4) and selector.needs.heads is None
    assert selector.score_kind is ScoreKind.PREDICTED_IOU and not selector.greedy_decoding
    assert not selector.regressor.training
    values = np.array([0.1, 0.9])
    assert selector.confidences(candidates(2), record(2), (9, 9), values) is values


def test_evidence_without_maps_or_of_another_shape_is_refused(selector):
    with pytest.raises(RegressorError, match="acs-learned-box needs attention maps"):
        selector.qualities(candidates(1), AttentionRecord(record(1).entropy, None, (4, 4)), SIZE)
    other = replace(record(1), maps=record(1).maps[:, :, :, :1])
    with pytest.raises(RegressorError, match="expected maps"):
        selector.qualities(candidates(1), other, SIZE)


def test_predictions_that_are_no_numbers_are_an_error(selector):
    given = record(2)
    given.maps[1, 2, 0, 1, 3, 3] = np.nan
    with pytest.raises(NonFiniteError, match="regressor of acs-learned-box predicted NaN"):
        selector.qualities(candidates(2), given, SIZE)
