"""The presence probe: its estimate, its file form, and what it refuses."""

import json
import math

import numpy as np
import pytest

from acs_core.artifacts.presence import MAX_WIDTH, PresenceProbe

PROBE = PresenceProbe((0.5, -2.0), 0.25)


@pytest.mark.parametrize(
    ("hidden", "odds"), [((0, 0), 0.25), ((1, 0), 0.75), ((0, 1), -1.75), ((100, 0), 12.0), ((0, 100), -12.0)]
)
def test_log_odds_are_bounded(hidden, odds):
    assert PROBE.log_odds(np.array(hidden, np.float32)) == pytest.approx(odds)


def test_it_comes_back_from_json():
    assert PresenceProbe.from_dict(json.loads(json.dumps(PROBE.to_dict()))) == PROBE
    third = PresenceProbe((1 / 3,), 2 / 3).rounded()
    assert third.rounded() == third and third.weights[0] == pytest.approx(1 / 3, rel=1e-5)


@pytest.mark.parametrize(("hidden", "said"), [(None, "not kept"), (np.zeros(3), "reads 2 channels, the model has 3")])
def test_a_hidden_state_that_does_not_fit_is_refused(hidden, said):
    with pytest.raises(ValueError, match=said):
        PROBE.log_odds(hidden)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"weights": [], "bias": 0.0},
        {"weights": "1", "bias": 0.0},
        {"weights": [1.0, True], "bias": 0.0},
        {"weights": [1.0], "bias": None},
        {"weights": [math.nan], "bias": 0.0},
        {"weights": [1e30], "bias": 0.0},
        {"weights": [0.0] * (MAX_WIDTH + 1), "bias": 0.0},
    ],
)
def test_damaged_fields_are_refused(data):
    with pytest.raises(ValueError, match='"weights"'):
        PresenceProbe.from_dict(data)
