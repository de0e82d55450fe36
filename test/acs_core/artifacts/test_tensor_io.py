"""What holds for every kind of file: bad ones are refused by the kind's own error, which names the file and says where
to get a good one."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tensor_parts import IDENTITY, FakeModel, rewrite, step_quality, trained

from acs_core.artifacts.tensor_io import Origin, TensorFile
from acs_core.errors import JointError, RegressorError
from acs_core.selection import box_regressor, joint_model, regressor
from acs_core.selection.box_regressor import BoxRegressor, load_box_regressor, save_box_regressor
from acs_core.selection.joint_model import load_joint, save_joint
from acs_core.selection.regressor import load_regressor, save_regressor


@dataclass(frozen=True)
class Kind:
    what: str
    save: Callable
    load: Callable
    file: TensorFile
    error: type


KINDS = (
    Kind(
        "regressor",
        lambda path: save_regressor(path, trained(), IDENTITY, (8, 6), "by a test"),
        lambda path, lvlm=None: load_regressor(path, lvlm=lvlm),
        regressor.FILE,
        RegressorError,
    ),
    Kind(
        "box regressor",
        lambda path: save_box_regressor(path, BoxRegressor(2, 3), IDENTITY, (8, 6), "by a test"),
        lambda path, lvlm=None: load_box_regressor(path, lvlm=lvlm),
        box_regressor.FILE,
        RegressorError,
    ),
    Kind("joint model", lambda path: save_joint(path, step_quality()), load_joint, joint_model.FILE, JointError),
)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.what)
def kind(request):
    return request.param


@pytest.fixture
def path(kind, tmp_path):
    kind.save(tmp_path / "file.safetensors")
    return tmp_path / "file.safetensors"


def refusal(kind, path, lvlm=None):
    """What the file is refused with, after it was checked for what every refusal says."""
    with pytest.raises(RegressorError) as caught:  # what `acs-train evaluate` leaves files out by
        kind.load(path, lvlm)
    assert type(caught.value) is kind.error
    said = str(caught.value)
    assert said.startswith(f"{kind.what} {path}") and said.endswith(kind.file.advice)
    assert len(said) < 1000
    return said


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema_version": 7}, 'field "schema_version" is 7, this version of acs reads 1'),
        ({"schema_version": None}, '"schema_version"'),
        ({"num_layers": "2"}, '"num_layers"'),
        ({"num_layers": 10**6}, '"num_layers"'),
        ({"num_heads": True}, '"num_heads"'),
        ({"map_size": None}, '"map_size"'),
        ({"map_size": [8]}, '"map_size"'),
        ({"map_size": [8, 6, 4]}, '"map_size"'),
        ({"map_size": [0, 8]}, '"map_size"'),
        ({"map_size": [8, 257]}, '"map_size"'),
        ({"map_size": [8, 6.0]}, '"map_size"'),
        ({"map_size": [True, 8]}, '"map_size"'),
        ({"map_size": "8" * 10**5}, '"map_size"'),
        ({"made_by": 5}, '"made_by"'),
        ({"family": None}, '"family"'),
        ({"model": "m" * 10**5}, '"model"'),
        ({"revision": 5}, '"revision"'),
    ],
)
def test_wrong_metadata_is_named(kind, path, change, says):
    rewrite(path, change)
    assert says in refusal(kind, path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not valid JSON"),
        ("{" * 10, "is not valid JSON"),
        ("[" * 10**5, "is not JSON text (RecursionError)"),
        ('{"schema_version": NaN}', "NaN"),
        ("[1]", "must hold one JSON object, not a list"),
    ],
)
def test_metadata_that_are_no_object_are_named(kind, path, text, says):
    save_file(load_file(path), path, metadata={kind.file.key: text})
    said = refusal(kind, path)
    assert says in said and f"its {kind.file.key} metadata cannot be used" in said


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_foreign_files_are_told_apart(kind, path, metadata):
    save_file({"x": np.zeros(1)}, path, metadata=metadata)
    assert f"no {kind.file.key} metadata, so it is not one of ours" in refusal(kind, path)


@pytest.mark.parametrize(("mine", "other"), permutations(KINDS, 2), ids=lambda kind: kind.what)
def test_one_kind_is_not_taken_for_another(mine, other, tmp_path):
    other.save(tmp_path / "other")
    assert f"no {mine.file.key} metadata" in refusal(mine, tmp_path / "other")


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5])
def test_damaged_files_are_named(kind, path, keep):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    assert "is damaged or no safetensors file" in refusal(kind, path)


def test_what_is_no_file_is_not_waited_for(kind, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "it is no file" in refusal(kind, tmp_path / "pipe")
    assert "it is no file" in refusal(kind, tmp_path)
    assert "cannot be read: No such file" in refusal(kind, tmp_path / "none.safetensors")


def test_too_large_a_file_is_not_opened(kind, path):
    os.truncate(path, kind.file.max_bytes + 1)  # sparse: takes no room
    assert f"larger than {kind.file.max_bytes >> 20} MiB, which no {kind.what} needs" in refusal(kind, path)
    os.truncate(path, kind.file.max_bytes)
    assert "damaged" in refusal(kind, path)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("num_layers", 4, r"2 layers x 3 heads, the model some/model has 4 x 3"),
        ("family", "qwen2_5_vl", "family internvl"),
        ("name", "some/other", "the model is some/other"),
    ],
)
def test_the_wrong_model_is_refused(kind, path, name, value, says):
    other = type("Other", (FakeModel,), {name: value})()
    kind.load(path, FakeModel())
    with pytest.raises(kind.error, match=says):
        kind.load(path, other)


def test_what_is_written_is_read(kind, tmp_path):
    origin = Origin(IDENTITY, (8, 256), "by a test")
    save_file({"x": np.arange(3.0)}, tmp_path / "f", metadata=kind.file.metadata(origin, more=[1, "two"]))
    with safe_open(str(tmp_path / "f"), framework="np") as file:
        assert set(file.metadata()) == {kind.file.key}
    assert kind.file.read(
        tmp_path / "f", "np", lambda origin, fields, file: (origin, fields["more"], file.get_tensor("x").tolist())
    ) == (origin, [1, "two"], [0.0, 1.0, 2.0])


def test_control_characters_of_a_damaged_header_are_not_repeated(kind, path, capsys):
    """The library quotes the type of an array as it stands in the file."""
    header = b'{"a":{"dtype":"\\u001b]0;owned\\u0007\\u202e\\n","shape":[1],"data_offsets":[0,4]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    said = refusal(kind, path)
    assert "is damaged or no safetensors file" in said and "]0;owned" in said and said.isprintable()
