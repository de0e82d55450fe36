"""The configurations of training and evaluation refuse senseless values, and say which."""

import math
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acs_core.evaluation.metrics import GroupMetrics
from acs_core.evaluation.storage import load
from training.collection.ray_pool import RayConfig
from training.fitting.fit_joint import JointConfig
from training.settings import AnalysisConfig, BuildConfig, CollectConfig, EvaluateConfig, FitConfig

CONFIGS = (CollectConfig, FitConfig, AnalysisConfig, JointConfig, RayConfig, EvaluateConfig, BuildConfig)
NAN = float("nan")
SENSELESS = st.one_of(
    st.integers(), st.floats(), st.just(2**64), st.booleans(), st.none(), st.text(max_size=5), st.binary(max_size=3),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.floats(width=32).map(np.float32), st.tuples(st.floats(), st.floats()),
)  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: CollectConfig(temperature=1e-40), ValueError, "temperature must be a number from 0.0001"),
        (lambda: CollectConfig(samples="3"), TypeError, "samples must be a whole number from 1 to 1024, got '3'"),
        (lambda: CollectConfig(seed=2**64), ValueError, "seed must be a whole number from 0"),
        (lambda: CollectConfig(map_size=24), TypeError, "map_size must be a list or tuple"),
        (lambda: CollectConfig(map_size=(24,)), ValueError, r"map_size must be \(h, w\)"),
        (lambda: CollectConfig(map_size=(24, 0)), ValueError, r"map_size\[1\] must be a whole number from 1"),
        (lambda: CollectConfig(step="both"), ValueError, "step must be one of emitting, consuming, got 'both'"),
        (lambda: CollectConfig(greedy=1), TypeError, "greedy must be True or False"),
        (lambda: FitConfig(epochs=0), ValueError, "epochs must be a whole number from 1"),
        (lambda: FitConfig(learning_rate=NAN), ValueError, "learning_rate must be.*got nan"),
        (lambda: FitConfig(validation_share=0), ValueError, "validation_share must be a number above 0"),
        (lambda: FitConfig(input_transform="sqrt"), ValueError, "input_transform must be one of raw, cells, log_cells"),
        (lambda: FitConfig(seed=2**32), ValueError, r"seed must be a whole number from 0 to 2\^32 - 1"),
        (lambda: AnalysisConfig(heads=True), TypeError, "heads must be a whole number"),
        (lambda: AnalysisConfig(high_iou=1.5), ValueError, "high_iou must be a number from 0 to 1"),
        (lambda: AnalysisConfig(layers=0), ValueError, "layers must be a whole number from 1"),
        (lambda: JointConfig(leaves=1), ValueError, "leaves must be a whole number from 2"),
        (lambda: RayConfig(actors=-1), ValueError, "actors must be a whole number from 1"),
        (lambda: RayConfig(address=""), ValueError, "address must have 1 to"),
        (lambda: EvaluateConfig({"tiny": 3}), ValueError, "limits must be one of small, several small"),
        (lambda: EvaluateConfig({"small": -3}), ValueError, r"limits\['small'\] must be a whole number from 0"),
        (lambda: EvaluateConfig(temperatures=0.5), TypeError, "temperatures must be a list or tuple"),
        (lambda: EvaluateConfig(temperatures=()), ValueError, "temperatures must hold 1 to 64"),
        (lambda: EvaluateConfig(temperatures=(NAN,)), ValueError, "temperatures must be a number from"),
        (lambda: EvaluateConfig(curve=(0,)), ValueError, "curve must be a whole number from 1"),
        (lambda: BuildConfig(fit={"epochs": 3}), TypeError, "fit must be a FitConfig"),
        (lambda: BuildConfig(run_temperature="0.5"), TypeError, "run_temperature must be a number"),
        (lambda: GroupMetrics(None, None, draws=0), ValueError, "draws must be a whole number from 1"),
        (lambda: GroupMetrics(None, None, seed=-1), ValueError, "seed must be a whole number from 0"),
        (lambda: load(None), TypeError, "file must be a path"),
        (lambda: load(""), ValueError, "file must have 1 to"),
    ],
)
def test_what_is_wrong_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("config", CONFIGS)
def test_any_configuration_is_usable_or_named(config):
    names = [f.name for f in fields(config)]

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.dictionaries(st.sampled_from(names), SENSELESS, min_size=1))
    def tried(options):
        try:
            made = config(**options)
        except (TypeError, ValueError) as error:
            assert any(name in str(error) for name in options), error
            return
        for name in names:
            value = getattr(made, name)
            assert not isinstance(value, float) or math.isfinite(value)

    tried()
