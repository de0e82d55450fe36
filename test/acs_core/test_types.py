import json
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from acs_core.errors import OutputError
from acs_core.geometry import Box
from acs_core.overlay import draw_result
from acs_core.serialize import result_from_dict
from acs_core.types import Candidate, Detection, GroundingResult, Outcome, SamplingConfig, ScoreKind


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"num_samples": 0}, "num_samples"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
    ],
)
def test_sampling_values_out_of_range_are_named(values, names):
    with pytest.raises(ValueError, match=names):
        SamplingConfig(**values)


def test_sampling_defaults_are_those_of_the_paper():
    config = SamplingConfig()
    assert (config.num_samples, config.temperature, config.top_p, config.top_k) == (10, 0.5, 0.9, 100)


@pytest.mark.parametrize(("scores", "best"), [((), None), ((0.3,), 0.3), ((0.3, 0.9, 0.5), 0.9)])
def test_best_is_the_highest_score(scores, best):
    detections = tuple(Detection(Box(0, 0, 1, 1), s, i) for i, s in enumerate(scores))
    result = GroundingResult("key", (9, 9), detections, (), (), "acs-free", ScoreKind.CALIBRATED, "m", None, 1)
    assert (result.best.score if result.best else None) == best


def found(count=2, kind=ScoreKind.CALIBRATED, **changes):
    candidates = tuple(
        Candidate(Box(10 * i + 1, 5, 10 * i + 8, 15), "key", i, 0, (1, 3, 5, 7), outcome=Outcome.SELECTED)
        for i in range(count)
    )
    detections = tuple(Detection(c.box, 0.9 - 0.5 * i, i) for i, c in enumerate(candidates))
    reason = "" if count else "no box in all 3 responses"
    base = GroundingResult("key", (60, 40), detections, candidates, (), "acs-free", kind, "tiny", None, 7, reason)
    return replace(base, **changes)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (found(1), "'key': Box(1, 5, 8, 15), score 0.90 (calibrated); 1 candidates in 0 responses, tiny, acs-free, "),
        (found(2), "Box(1, 5, 8, 15), score 0.90 (calibrated), and 1 more; 2 candidates"),
        (found(1, ScoreKind.NONE), "'key': Box(1, 5, 8, 15) (none); 1"),
        (found(0), "'key': no detection: no box in all 3 responses; 0 candidates"),
    ],
)
def test_a_result_in_one_line(result, text):
    assert text in repr(result) and "seed 7" in repr(result) and len(repr(result)) < 200
    assert result  # also an abstention: its reason is wanted


@pytest.mark.parametrize("count", [0, 1, 2])
def test_boxes_and_scores_are_arrays_of_the_detections(count):
    result = found(count)
    assert (result.boxes.shape, result.scores.shape, len(result)) == ((count, 4), (count,), count)
    assert result.boxes.tolist() == [list(d.box) for d in result.detections]
    assert result.scores.tolist() == [d.score for d in result.detections]


@pytest.mark.parametrize(("kind", "scored"), [(ScoreKind.CALIBRATED, True), (ScoreKind.NONE, False)])
def test_supervision_gets_boxes_scores_and_names(monkeypatch, kind, scored):
    package = types.ModuleType("supervision")
    package.Detections = lambda **given: given
    monkeypatch.setitem(sys.modules, "supervision", package)
    given = found(2, kind).to_supervision()
    assert given["xyxy"].dtype == np.float32 and given["xyxy"].tolist() == [[1, 5, 8, 15], [11, 5, 18, 15]]
    assert (given["confidence"] is not None) == scored
    assert given["class_id"].tolist() == [0, 0] and given["data"]["class_name"].tolist() == ["key", "key"]
    assert found(0).to_supervision()["xyxy"].shape == (0, 4)


def test_without_supervision_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="needs the package supervision: pip install supervision"):
        found().to_supervision()


def test_a_result_is_drawn_and_saved_and_files_of_the_user_are_kept(tmp_path):
    grey = np.full((40, 60, 3), 128, np.uint8)
    result = found(image=grey)
    assert np.array_equal(np.asarray(result.plot()), draw_result(grey, result))
    for image in (grey, Image.fromarray(grey)):
        assert np.array_equal(np.asarray(found().plot(image)), draw_result(grey, result))
    picture = result.save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(Image.open(picture)), draw_result(grey, result))
    assert json.loads(result.save(str(tmp_path / "a.json")).read_text()) == {
        "written_by": "acs-ground",
        **result.to_dict(),
    }
    assert result_from_dict(result.to_dict()) == result
    result.save(picture)  # again
    Image.fromarray(grey).save(tmp_path / "mine.png")
    with pytest.raises(OutputError, match="acs did not write it"):
        result.save(tmp_path / "mine.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "mine.png")), grey)
    for call, message in (
        (lambda: found().plot(), "the result has no image"),
        (lambda: result.plot(grey[:, :50]), "image has 50 x 40 pixels, and the result is about one of 60 x 40"),
        (lambda: result.save(tmp_path / "a.txt"), "must end in one of .png"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
