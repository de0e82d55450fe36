"""What is written and read again comes back whole: every field of it, also one that is added later.

Samples have no field at its default value, so that a field which is not carried over is noticed; a new field has to be
given a value here.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass, replace
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from helpers.score_parts import one_split
from hypothesis import given
from hypothesis import strategies as st

from acs_core.artifacts.calibration import Calibration, CalibrationImages, WorkingPoint
from acs_core.artifacts.heads import Head, HeadFile
from acs_core.artifacts.identity import ModelIdentity
from acs_core.artifacts.presence import PresenceProbe
from acs_core.artifacts.trees import Trees
from acs_core.evaluation.layout import from_dict, to_dict
from acs_core.evaluation.records import EntropyProfile, Evaluation, Group, Prediction, Question, RegressorAccuracy, Run
from acs_core.evaluation.storage import load, save
from acs_core.geometry import Box
from acs_core.lvlm.internvl import InternVL
from acs_core.lvlm.picture import PictureOptions
from acs_core.selection.box_regressor import BoxRegressor, load_box_regressor, save_box_regressor
from acs_core.selection.joint_features import feature_names
from acs_core.selection.joint_model import JointIoUModel, load_joint, save_joint
from acs_core.selection.regressor import AttentionIoURegressor, load_regressor, save_regressor
from acs_core.selection.regressor_files import RegressorInfo
from acs_core.serialize import result_from_dict, result_to_dict
from acs_core.types import GroundingResult
from training.collection.job import CollectConfig, Job, config_of, describe

IDENTITY = ModelIdentity("some/model", "internvl", 3, 2, "0123abc", 16)


def strategy_of(hint: Any) -> st.SearchStrategy:
    """Any value of a type, as its annotation says it; numbers have as few digits as files keep."""
    origin, inner = get_origin(hint), get_args(hint)
    simple = {
        float: st.integers(-(10**6), 10**6).map(lambda n: n / 100),
        int: st.integers(0, 10**6),
        bool: st.booleans(),
        str: st.text(max_size=8),
        NoneType: st.none(),
    }
    if hint in simple:
        return simple[hint]
    if origin in (Union, UnionType):
        return st.one_of(*map(strategy_of, inner))
    if origin is tuple and inner[1:] == (Ellipsis,):
        return st.lists(strategy_of(inner[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(strategy_of, inner))
    if origin is not None and issubclass(origin, Mapping):
        return st.dictionaries(*map(strategy_of, inner), max_size=3)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(hint)
    if is_dataclass(hint):
        hints = get_type_hints(hint)
        names = [f.name for f in fields(hint) if f.name not in LEFT_OUT]
        return st.builds(hint, **{n: SHARES[n] if n in SHARES else strategy_of(hints[n]) for n in names})
    raise TypeError(f"no values of type {hint} are known here")


LEFT_OUT = ("attention", "image")  # of a result, as the docstrings say
SHARE = st.integers(0, 100).map(lambda n: n / 100)
SHARES = {
    "score": SHARE,
    "expected_iou": st.none() | SHARE,
    "stated": st.none() | SHARE,
}  # lie in [0, 1], and are refused elsewhere


def told(value: Any) -> dict[str, Any]:
    """All fields, those too that a comparison leaves out."""
    return {name: v for name, v in asdict(value).items() if name not in LEFT_OUT}


@given(strategy_of(GroundingResult))
def test_a_result_comes_back_with_every_field(result):
    assert told(result_from_dict(json.loads(json.dumps(result_to_dict(result))))) == told(result)


def assert_full(value: Any, where: str = "") -> None:
    """Raises AssertionError where ``value``, or something in it, has a field at its default value."""
    if isinstance(value, (tuple, list)):
        for i, inner in enumerate(value):
            assert_full(inner, f"{where}[{i}]")
    if not is_dataclass(value):
        return
    for f in fields(value):
        here, found = f"{where}.{f.name}", getattr(value, f.name)
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        if not isinstance(found, np.ndarray):
            assert found != default, f"{here} has its default value: the test does not see whether it is kept"
        assert_full(found, here)


BOXES = (Box(1.25, 2.5, 30.0, 40.75), Box(3.0, 4.0, 5.5, 6.25))


def an_evaluation() -> Evaluation:
    question = Question("1:key", "the key", "key", "pictures/1.jpg", (640, 480), BOXES)
    answer = Prediction(BOXES, (0.75, 0.5), 0.625, 12.345, "sure", (0.5, 0.25))
    run = Run(
        "acs-free",
        0.5,
        10,
        (answer, replace(answer, boxes=BOXES[:1], scores=(0.25,), confidences=(0.125,), reason="less")),
        "bound",
        True,
    )
    group = Group("small", "several", (question, replace(question, key="2:key")), (run, replace(run, samples=3)))
    return Evaluation(
        "a title",
        (group, replace(group, name="large", objects="single")),
        {"model": "m", "date": "today"},
        (RegressorAccuracy(0.5, 7, 0.125, 0.75, "small"),),
        (EntropyProfile("y2", "IoU > 0.7", 5, (0.5, 1.25)),),
        (1, 2),
    )


@pytest.mark.parametrize("name", ["evaluation.json", "evaluation.json.gz"])
def test_an_evaluation_comes_back_with_every_field(tmp_path, name):
    given = an_evaluation()
    assert_full(given)
    assert save(given, tmp_path / name) == load(tmp_path / name) == given
    assert from_dict(json.loads(json.dumps(to_dict(given)))) == given


HEADS = tuple((Head(1, c % 2, 0.25), Head(2, 1, 0.5)) for c in range(4))
LAYERS = tuple(tuple(Head(2, k, gap) for k in range(2)) for gap in (0.25, 0.5, 0.75, 1.0))


@pytest.mark.parametrize(
    "given",
    [
        HeadFile(IDENTITY, "heads", HEADS, (1, 2), "acs-train"),
        HeadFile(IDENTITY, "layers", LAYERS, (2,), "acs-train"),
        HeadFile.from_layers(IDENTITY, (0, 2), "acs-train"),
    ],
)
def test_a_head_file_comes_back_with_every_field(tmp_path, given):
    if given.heads[0][0].entropy_gap is not None:
        assert_full(given)
    given.save(tmp_path / "heads.json")
    assert HeadFile.load(tmp_path / "heads.json") == given == HeadFile.from_dict(given.to_dict())


def test_a_calibration_comes_back_with_every_field(tmp_path):
    points = (WorkingPoint(0.5, 0.25, 0.625, 0.75, 9), WorkingPoint(0.75, 0.5, 0.875, 0.25, 3))
    curves = (0.0, 0.5, 1.0), (0.25, 0.5, 0.75)
    seen = CalibrationImages("val/instances.json", (3, 5), ("0123456789abcdef",))
    model = one_split("mean IoU", ["confidence", "mean IoU"])
    more = {"score_model": model, "questions": 20, "absent": 10, "presence": PresenceProbe((0.5, 0.25), 1.5)}
    given = Calibration(
        IDENTITY, "acs-free", "concentration", *curves, 12, "acs-train", *curves, points, True, seen, **more
    )
    assert_full(given)
    given.save(tmp_path / "calibration.json")
    for read in (Calibration.load(tmp_path / "calibration.json"), Calibration.from_dict(given.to_dict())):
        assert read.to_dict() == given.to_dict()  # trees hold arrays, which == does not compare as a whole
        assert replace(read, score_model=None) == replace(given, score_model=None)


def test_an_identity_comes_back_with_every_field():
    assert_full(IDENTITY)
    assert ModelIdentity.from_dict(json.loads(json.dumps(IDENTITY.to_dict()))) == IDENTITY


def test_a_joint_quality_comes_back_with_every_field(tmp_path):
    width = len(feature_names(IDENTITY.num_layers))
    child = np.array([[[1, 2], [1, 1], [2, 2]]], np.int32)
    numbers = np.array([[0.1, 0.2, 1 / 3]])
    trees = Trees(np.array([[width - 1, 0, 0]], np.int32), numbers, child, -numbers, 0.7, width)
    given = JointIoUModel(trees, IDENTITY, (4, 6), "acs-train")
    assert_full(given)
    save_joint(tmp_path / "joint.safetensors", given)
    found = load_joint(tmp_path / "joint.safetensors")
    for f in fields(JointIoUModel):
        if f.name != "trees":
            assert getattr(found, f.name) == getattr(given, f.name)
    for f in fields(Trees):
        np.testing.assert_array_equal(getattr(found.trees, f.name), getattr(trees, f.name), strict=True)


def test_a_regressor_comes_back_with_every_field(tmp_path):
    torch.manual_seed(0)
    regressor = AttentionIoURegressor(3, 2, input_transform="log_cells")
    wanted = RegressorInfo(IDENTITY, (4, 6), "log_cells", "acs-train")
    assert_full(wanted)
    save_regressor(tmp_path / "r.safetensors", regressor, IDENTITY, (4, 6), "acs-train", half=False)
    found, info = load_regressor(tmp_path / "r.safetensors")
    assert info == wanted
    torch.testing.assert_close(found.state_dict(), regressor.state_dict(), atol=0, rtol=0)


def test_a_box_regressor_comes_back_with_every_field(tmp_path):
    torch.manual_seed(0)
    regressor = BoxRegressor(3, 2, input_transform="log_cells")
    wanted = RegressorInfo(IDENTITY, (4, 6), "log_cells", "acs-train")
    save_box_regressor(tmp_path / "r.safetensors", regressor, IDENTITY, (4, 6), "acs-train")
    found, info = load_box_regressor(tmp_path / "r.safetensors")
    assert info == wanted
    stored = {k: v.half().float() if v.ndim >= 2 else v for k, v in regressor.state_dict().items()}
    torch.testing.assert_close(found.state_dict(), stored, atol=0, rtol=0)


class Lvlm:
    """What a manifest says of a model."""

    name, family, revision, num_layers, num_heads, hidden_size = "some/model", "internvl", None, 3, 2, 16
    hf_model = torch.nn.Linear(1, 1)
    hf_model.dtype = torch.float32
    adapter = InternVL()
    picture = PictureOptions(adapter.max_image_tokens)


def test_the_settings_of_a_collection_come_back_with_every_field():
    given = CollectConfig(3, 0.5, 0.8, 50, 64, 7, (4, 6), True, "consuming")
    assert_full(given)
    manifest = json.loads(json.dumps(describe(Lvlm(), Job((), given), "", "")))
    assert config_of(manifest) == given
    assert config_of(json.loads(json.dumps(describe(Lvlm(), Job((), CollectConfig()), "", "")))) == CollectConfig()
