"""Which calibration gives an answer its score."""

from dataclasses import replace

import numpy as np
import pytest

from acs_core.attention import Evidence
from acs_core.calibration import Calibration
from acs_core.errors import CalibrationError
from acs_core.geometry import Box
from acs_core.heads import Head, HeadFile
from acs_core.identity import ModelIdentity
from acs_core.judging import Judge, judge_for, why_no_candidates
from acs_core.selection import AcsFusion
from acs_core.types import Candidate, Response, ScoreKind

IDENTITY = ModelIdentity("m", "internvl", 1, 1)
HEADS = HeadFile(IDENTITY, "heads", ((Head(0, 0),),) * 4)
SELECTOR = AcsFusion(HEADS)
CANDIDATES = tuple(Candidate(Box(10, 10, 20, 20), "", r, 0, (0, 1, 2, 3)) for r in range(3))
RESPONSES = tuple(Response("", 1, True) for _ in CANDIDATES)
EVIDENCE = Evidence(np.ones((3, 4, 1, 1), np.float32), None, (4, 4), num_responses=3)


class Model:
    name, family, num_layers, num_heads, revision, device = "m", "internvl", 1, 1, None, "cpu"


def curve(score, second_look=False):
    feature = SELECTOR.feature
    return Calibration(IDENTITY, "acs-fusion", feature, (0.5,), (score,), second_look=second_look)


ONE, SECOND = curve(0.3), curve(0.9, second_look=True)


@pytest.mark.parametrize(
    ("calibration", "second", "looked_again", "score", "kind"),
    [
        (ONE, SECOND, False, 0.3, ScoreKind.CALIBRATED),
        (ONE, SECOND, True, 0.9, ScoreKind.CALIBRATED),
        (ONE, None, True, 0.3, ScoreKind.CALIBRATED),
        (None, SECOND, True, 0.9, ScoreKind.CALIBRATED),
        (None, SECOND, False, 1.0, ScoreKind.RANK_RELATIVE),  # the quality itself: all agree
        (None, None, True, 1.0, ScoreKind.RANK_RELATIVE),
    ],
)
def test_an_answer_has_the_calibration_of_its_looks(calibration, second, looked_again, score, kind):
    judge = Judge(SELECTOR, calibration, second)
    choice = judge.choose(CANDIDATES, RESPONSES, EVIDENCE, (40, 40), looked_again=looked_again)
    assert choice.detections[0].score == pytest.approx(score)
    assert judge.kind_of(looked_again) is kind


@pytest.fixture
def folder(tmp_path):
    """Of `acs-train build`, with both calibrations."""
    HEADS.save(tmp_path / "heads.json")
    ONE.save(tmp_path / "calibration-acs-fusion.json")
    SECOND.save(tmp_path / "calibration-acs-fusion-second-look.json")
    return tmp_path


def test_both_are_found_beside_the_heads(folder):
    judge = judge_for(Model(), "acs-fusion", built=folder)
    assert (judge.calibration, judge.second_look) == (ONE, SECOND)


@pytest.mark.parametrize("given", [False, ONE])
def test_a_given_calibration_serves_both_looks(folder, given):
    judge = judge_for(Model(), "acs-fusion", calibration=given, built=folder)
    assert (judge.calibration, judge.second_look) == (given or None, None)


def test_one_file_in_the_place_of_the_other_is_refused(folder):
    ONE.save(folder / "calibration-acs-fusion-second-look.json")
    with pytest.raises(CalibrationError, match="of one look, not of a second look"):
        judge_for(Model(), "acs-fusion", built=folder)


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
    Judge(SELECTOR, ONE, SECOND).check(Model())
    with pytest.raises(CalibrationError, match=says):
        Judge(SELECTOR, calibration, second).check(Model())


@pytest.mark.parametrize(
    ("problems", "said"),
    [
        (["a"], "no box in the response: a"),
        (["a", "a"], "no box in all 2 responses: a"),
        (["a", "b", "b"], "no box in any of 3 responses: 2 x b, 1 x a"),
        ([""], "no box in the response: no usable box"),
    ],
)
def test_reasons(problems, said):
    assert why_no_candidates([Response("", 0, True, p) for p in problems]) == said
