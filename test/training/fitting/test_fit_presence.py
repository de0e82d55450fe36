"""A probe of the hidden state, and calibrations that hold one."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.made_up_parts import half_absent

from acs_core.artifacts.calibration import Calibration
from acs_core.artifacts.heads import Head, HeadFile
from acs_core.evaluation.statistics import auroc
from acs_core.selection.evidence import PRESENCE
from acs_core.selection.registry import AcsFree
from acs_core.selection.scorer import Scorer
from training.collection.offline_selection import calls
from training.errors import DataError
from training.fitting.calibrate import calibrate
from training.fitting.fit_presence import fit_presence, out_of_fold_presence, presence_rows
from training.fitting.steps import calibrate_step

WIDTH = 6


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    return half_absent(tmp_path_factory.mktemp("store"), pairs=240, per_pair=3)


@pytest.fixture(scope="module")
def answers(collected):
    """Their responses. The third channel of the hidden state tells whether the object is there."""
    rng = np.random.default_rng(0)
    told = []
    for pair in collected.pairs.tolist():
        hidden = rng.standard_normal(WIDTH)
        hidden[2] = 5.0 + (1 if pair % 2 == 0 else -1) + 0.2 * hidden[2]
        for r in range(3):
            one = {"pair": pair, "response": r, "text": "", "num_boxes": 1, "finished": True, "problem": ""}
            one |= {"token_entropy": [0.1] * 9, "token_logprob": [-0.1] * 9}
            told.append(one | ({"hidden": hidden.tolist()} if r == 0 else {}))
    return told


@pytest.fixture
def selector(identity, telling_head):
    return AcsFree(HeadFile(identity, "heads", ((Head(*telling_head),),) * 4))


def test_a_probe_tells_present_from_absent_on_images_it_did_not_see(collected, answers):
    pairs, hidden, there, image = presence_rows(collected, answers)
    assert pairs == collected.pairs.tolist() and there.tolist() == [p % 2 == 0 for p in pairs]
    assert auroc(out_of_fold_presence(hidden, there, image), there) > 0.95
    noise = np.random.default_rng(1).permutation(there)
    assert auroc(out_of_fold_presence(hidden, noise, image), noise) < 0.7
    weights = np.abs(fit_presence(hidden, there).weights)
    assert weights.argmax() == 2


def test_a_calibration_with_a_probe_knows_what_is_absent(collected, answers, selector, identity, tmp_path):
    plain, told_plain = calibrate(selector, collected, identity, "test", answers=answers)
    curve, told = calibrate(selector, collected, identity, "test", answers=answers, presence=True)
    assert plain.presence is None and PRESENCE not in plain.features and curve.features[-1] == PRESENCE
    assert told.auroc > told_plain.auroc + 0.1
    curve.save(tmp_path / "c.json")
    read = Calibration.load(tmp_path / "c.json")
    assert read.presence == curve.presence and len(read.presence.weights) == WIDTH
    scorer = Scorer(selector, read)
    scores = np.array([call.decided(scorer).detections[0].score for call in calls(collected, False, answers)])
    absent = collected.pairs % 2 == 1
    assert scores[absent].mean() < 0.1 < scores[~absent].mean() - 0.2


def test_a_score_without_the_hidden_state_is_refused(collected, answers, selector, identity):
    curve, _ = calibrate(selector, collected, identity, "test", answers=answers, presence=True)
    call = next(calls(collected, False, answers))
    blind = replace(call, record=replace(call.record, hidden=None))
    with pytest.raises(ValueError, match="hidden state at the end of the prompt"):
        blind.decided(Scorer(selector, curve))


def test_collections_without_hidden_states_are_said(collected, answers, selector, identity):
    old = [{k: v for k, v in a.items() if k != "hidden"} for a in answers]
    assert next(calls(collected, False, old)).record.hidden is None
    assert calibrate(selector, collected, identity, "test", answers=old)[0].score_model is not None
    with pytest.raises(DataError, match=r"no hidden states at the end of the prompts.*collect again"):
        calibrate(selector, collected, identity, "test", answers=old, presence=True)


def test_a_collection_that_an_earlier_version_began_is_said(collected, answers, selector, identity):
    mixed = [{k: v for k, v in a.items() if k != "hidden" or a["pair"] >= 40} for a in answers]
    with pytest.raises(DataError, match=r"no hidden states .* for 40 of 240 questions, an earlier .* collect again"):
        calibrate(selector, collected, identity, "test", answers=mixed, presence=True)


def test_hidden_states_of_several_widths_are_said(collected, answers, selector, identity):
    mixed = [a | {"hidden": a["hidden"][:5]} if a["pair"] == 7 and "hidden" in a else a for a in answers]
    with pytest.raises(DataError, match=r"hidden states of 5 and of 6 numbers: collect again"):
        calibrate(selector, collected, identity, "test", answers=mixed, presence=True)


@pytest.mark.parametrize(("count", "said"), [(140, 1), (240, 0)])
def test_a_probe_that_no_score_model_reads_is_said(collected, answers, selector, tmp_path, count, said):
    told = []
    few = replace(collected, pairs=collected.pairs[:count])
    calibrate_step(few, [selector], tmp_path, "test", told.append, answers=answers, presence=True)
    assert (Calibration.load(tmp_path / "calibration-acs-free.json").presence is None) == bool(said)
    line = "acs-free: no presence probe, since there is no score model to read it: one needs 200 answers about several "
    assert [t for t in told if "presence probe" in t] == [f"{line}images, there are {count}"] * said


def test_a_probe_needs_questions_about_absent_objects(collected, answers):
    pairs = collected.pairs[(collected.pairs % 2 == 0) | (collected.pairs < 40)]
    with pytest.raises(DataError, match="120 questions about present objects and 20 about absent ones are too few"):
        presence_rows(replace(collected, pairs=pairs), answers)
