import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from acs_core.artifacts.calibration import Calibration
from acs_core.artifacts.identity import ModelIdentity
from training.fitting.thresholds import guaranteed_points

IDENTITY = ModelIdentity("made-up", "internvl", 3, 2)


def curve_of(x, y):
    return Calibration(IDENTITY, "acs-free", "concentration", tuple(x), tuple(y))


def fitted(confidence, hit):
    found = IsotonicRegression(y_min=0.01, y_max=0.99, out_of_bounds="clip").fit(confidence, hit)
    return curve_of(found.X_thresholds_.tolist(), np.maximum.accumulate(found.y_thresholds_).tolist())


def drawn(rng, count, steep):
    """Confidences, and hits whose probability rises with them."""
    confidence = rng.random(count)
    return confidence, rng.random(count) < truth(confidence, steep)


def truth(confidence, steep):
    return 0.45 + 0.53 * confidence**steep


@pytest.mark.parametrize(("count", "steep", "wanted"), [(300, 0.5, 0.8), (1000, 1.0, 0.8), (1000, 0.3, 0.9)])
def test_a_threshold_keeps_its_precision_in_95_of_100_resamplings(count, steep, wanted):
    rng = np.random.default_rng(0)
    fresh = np.linspace(0, 1, 20_001)
    kept = []
    for _ in range(200):
        confidence, hit = drawn(rng, count, steep)
        curve = fitted(confidence, hit)
        for point in guaranteed_points(curve, confidence, hit):
            if point.wanted == wanted:
                kept.append(truth(fresh[curve.apply(fresh) >= point.min_score], steep).mean() >= wanted)
    assert len(kept) > 100, "a threshold is found in most of them"
    assert np.mean(kept) >= 0.95


@pytest.mark.parametrize(
    ("right", "count", "highest"),
    [(29, 29, None), (40, 40, 0.9), (80, 80, 0.95), (36, 40, 0.7), (25, 50, None), (100, 200, None), (130, 200, 0.5)],
)
def test_how_many_answers_stand_behind_a_precision(right, count, highest):
    """All of one confidence: one threshold, that of all answers."""
    hit = np.arange(count) < right
    points = guaranteed_points(curve_of((0.0, 1.0), (0.2, 0.9)), np.full(count, 0.5), hit)
    assert max((p.wanted for p in points), default=None) == highest
    assert all((p.answers, p.kept, p.min_score) == (count, 1.0, pytest.approx(0.55)) for p in points)


def test_answers_of_one_score_are_kept_or_left_together():
    confidence = np.linspace(1, 0, 400)
    hit = np.arange(400) % 10 > 0  # nine of ten are right among the first 200, none later
    hit[200:] = False
    plateau = curve_of((0.0, 0.1, 1.0), (0.2, 0.6, 0.6))  # nearly all have one score
    assert guaranteed_points(plateau, confidence, hit) == ()
    points = guaranteed_points(curve_of((0.0, 1.0), (0.1, 0.9)), confidence, hit)
    assert {p.wanted for p in points} == {0.5, 0.6, 0.7, 0.8}
    assert points[-1].answers <= 220 and points[0].answers > points[-1].answers
    assert points[0].min_score < points[-1].min_score
