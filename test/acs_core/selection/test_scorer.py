from dataclasses import replace

import numpy as np
import pytest

from acs_core.artifacts.calibration import Calibration
from acs_core.artifacts.heads import Head, HeadFile
from acs_core.artifacts.identity import ModelIdentity
from acs_core.attention import AttentionRecord
from acs_core.errors import CalibrationError, NonFiniteError
from acs_core.geometry import Box
from acs_core.selection.defaults import scorer_for
from acs_core.selection.registry import AcsFusion
from acs_core.selection.scorer import Scorer, check_confidences, check_scores
from acs_core.types import Candidate, Response, ScoreKind

IDENTITY = ModelIdentity("m", "internvl", 1, 1)
HEADS = HeadFile(IDENTITY, "heads", ((Head(0, 0),),) * 4)
SELECTOR = AcsFusion(HEADS)
CANDIDATES = tuple(Candidate(Box(10, 10, 20, 20), "", r, 0, (0, 1, 2, 3)) for r in range(3))
RESPONSES = tuple(Response("", 1, True) for _ in CANDIDATES)
EVIDENCE = AttentionRecord(np.ones((3, 4, 1, 1), np.float32), None, (4, 4), num_responses=3)


class Model:
    name, family, num_layers, num_heads, revision, device = "m", "internvl", 1, 1, None, "cpu"


def curve(score, second_look=False, **more):
    feature = SELECTOR.feature
    return Calibration(IDENTITY, "acs-fusion", feature, (0.5,), (score,), second_look=second_look, **more)


ONE, SECOND = curve(0.3), curve(0.9, second_look=True)
COUNTS_ABSENT = curve(0.3, questions=100, absent=50)


@pytest.mark.parametrize(
    ("calibration", "second", "looked_again", "score", "kind"),
    [
        (ONE, SECOND, False, 0.3, ScoreKind.CALIBRATED_IF_PRESENT),
        (ONE, SECOND, True, 0.9, ScoreKind.CALIBRATED_IF_PRESENT),
        (ONE, None, True, 0.3, ScoreKind.CALIBRATED_IF_PRESENT),
        (None, SECOND, True, 0.9, ScoreKind.CALIBRATED_IF_PRESENT),
        (COUNTS_ABSENT, SECOND, False, 0.3, ScoreKind.CALIBRATED),
        (COUNTS_ABSENT, SECOND, True, 0.9, ScoreKind.CALIBRATED_IF_PRESENT),
        (None, SECOND, False, 1.0, ScoreKind.RANK_RELATIVE),  # the quality itself: all agree
        (None, None, True, 1.0, ScoreKind.RANK_RELATIVE),
    ],
)
def test_an_answer_has_the_calibration_of_its_looks(calibration, second, looked_again, score, kind):
    scorer = Scorer(SELECTOR, calibration, second)
    decision = scorer.decide(CANDIDATES, RESPONSES, EVIDENCE, (40, 40), looked_again=looked_again)
    assert decision.detections[0].score == pytest.approx(score)
    assert scorer.kind_of(looked_again) is kind


@pytest.fixture
def folder(tmp_path):
    """Of `acs-train build`, with both calibrations."""
    HEADS.save(tmp_path / "heads.json")
    ONE.save(tmp_path / "calibration-acs-fusion.json")
    SECOND.save(tmp_path / "calibration-acs-fusion-second-look.json")
    return tmp_path


def test_both_are_found_beside_the_heads(folder):
    scorer = scorer_for(Model(), "acs-fusion", built=folder)
    assert (scorer.calibration, scorer.second_look) == (ONE, SECOND)


def test_those_of_the_model_do_not_belong_to_built_files(folder, monkeypatch):
    monkeypatch.setattr("acs_core.selection.defaults.asset_for", lambda *_: pytest.fail("looked for the model's own"))
    (folder / "calibration-acs-fusion-second-look.json").unlink()
    scorer = scorer_for(Model(), "acs-fusion", built=folder)
    assert (scorer.calibration, scorer.second_look) == (ONE, None)


@pytest.mark.parametrize("given", [False, ONE])
def test_a_given_calibration_serves_both_looks(folder, given):
    scorer = scorer_for(Model(), "acs-fusion", calibration=given, built=folder)
    assert (scorer.calibration, scorer.second_look) == (given or None, None)


def test_one_file_in_the_place_of_the_other_is_refused(folder):
    ONE.save(folder / "calibration-acs-fusion-second-look.json")
    with pytest.raises(CalibrationError, match="of one look, not of a second look"):
        scorer_for(Model(), "acs-fusion", built=folder)


@pytest.mark.parametrize(
    ("calibration", "second", "says"),
    [
        (SECOND, None, "of a second look, not of one look"),
        (None, ONE, "of one look, not of a second look"),
        (replace(ONE, selector="acs-free"), None, "made for the selector acs-free, not acs-fusion"),
        (ONE, replace(SECOND, feature="votes"), "maps 'votes', but acs-fusion gives"),
        (ONE, replace(SECOND, identity=ModelIdentity("m", "qwen2_5_vl", 1, 1)), "the family qwen2_5_vl"),
    ],
)
def test_calibrations_that_do_not_fit_are_named(calibration, second, says):
    Scorer(SELECTOR, ONE, SECOND).check(Model())
    with pytest.raises(CalibrationError, match=says):
        Scorer(SELECTOR, calibration, second).check(Model())


GOOD = np.array([0.0, 0.5, 1.0])


def test_numbers_from_0_to_1_pass_and_rounding_is_no_matter():
    check_scores("s", GOOD, GOOD)
    check_scores("s", GOOD + 1e-7, GOOD - 1e-7)
    check_scores("s", np.zeros(0), np.zeros(0))


def test_candidates_that_are_not_considered_are_not_judged():
    check_scores("s", np.array([np.nan, 0.5]), np.array([np.nan, 0.5]))
    check_scores("s", np.array([np.nan]), np.array([7.0]))


@pytest.mark.parametrize(
    ("qualities", "scores", "says"),
    [
        ([0.1, np.inf], [0.1, 0.1], "gave a quality that is NaN or infinite"),
        ([0.1, 0.2], [0.1, np.nan], "gave a score that is NaN or infinite"),
        ([0.1, 0.2], [0.1, -np.inf], "gave a score that is NaN or infinite"),
    ],
)
def test_what_is_no_number_is_an_error(qualities, scores, says):
    with pytest.raises(NonFiniteError, match=f"selector mine {says}.*no score is published"):
        check_scores("mine", np.array(qualities), np.array(scores))


@pytest.mark.parametrize(
    ("qualities", "scores", "says"),
    [
        ([5.0, 0.2], [0.5, 0.5], "quality of 0.2 to 5"),
        ([0.5], [1.1], "score of 1.1"),
        ([-0.1], [0.5], "quality of -0.1"),
    ],
)
def test_what_lies_outside_is_an_error(qualities, scores, says):
    with pytest.raises(ValueError, match=rf"selector mine gave a {says}.*must lie in \[0, 1\]"):
        check_scores("mine", np.array(qualities), np.array(scores))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_confidence_that_is_no_number_is_an_error(value):
    with pytest.raises(NonFiniteError, match="selector mine gave a confidence that is NaN or infinite"):
        check_confidences("mine", np.array([0.5, 0.5]), np.array([0.5, value]))
    check_confidences("mine", np.array([0.5, np.nan]), np.array([0.5, value]))  # the second is not considered
