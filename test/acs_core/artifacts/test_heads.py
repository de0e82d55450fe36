import json
import logging
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_core.artifacts import identity
from acs_core.artifacts.heads import Head, HeadFile
from acs_core.artifacts.identity import ModelIdentity
from acs_core.artifacts.json_io import SMALL
from acs_core.errors import HeadFileError


@dataclass
class HeadedModel:
    name: str = "some/model"
    family: str = "internvl"
    revision: str | None = None
    num_layers: int = 4
    num_heads: int = 8
    hidden_size: int | None = None


IDENTITY = ModelIdentity("some/model", "internvl", 4, 8, "abc", 64)
CHOSEN = HeadFile(
    IDENTITY,
    "heads",
    ((Head(0, 1, 0.5), Head(3, 7, 0.25)), (Head(1, 1, 0.1),), (Head(2, 0),), (Head(3, 3, -0.5),)),
    (0, 1, 2, 3),
    "by a test",
)
LAYERS = HeadFile.from_layers(IDENTITY, [1, 3], "by a test")


@pytest.mark.parametrize("file", [CHOSEN, LAYERS])
def test_round_trip(tmp_path, file):
    file.save(tmp_path / "heads.json")
    loaded = HeadFile.load(tmp_path / "heads.json")
    assert loaded == file and loaded.identity.hidden_size == 64


def test_layers_mean_all_their_heads():
    assert LAYERS.pairs() == (tuple((layer, head) for layer in (1, 3) for head in range(8)),) * 4


def with_x1(entry):
    return {"heads": CHOSEN.to_dict()["heads"] | {"x1": entry}}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema_version": 2}, '"schema_version" is 2'),
        ({"schema_version": None}, '"schema_version" is None'),
        ({"model": ""}, '"model" must be a name of 1 to 500 characters'),
        ({"model": "m" * 10**6}, '"model" must be a name of 1 to 500 characters, got .mmm'),
        ({"model": "a\n[ERROR] b"}, '"model" must be a name'),
        ({"revision": "\ud800"}, '"revision" must be a string or null'),
        ({"num_layers": [1] * 10**5}, '"num_layers" must be a whole number from 1 to 512'),
        ({"family": 7}, '"family" must be a name of 1 to 500 characters'),
        ({"num_layers": 0}, '"num_layers" must be a whole number from 1'),
        ({"num_heads": True}, '"num_heads" must be a whole number from 1'),
        ({"hidden_size": 0}, '"hidden_size" must be a whole number from 1 to 1000000'),
        ({"hidden_size": "64"}, '"hidden_size" must be a whole number from 1 to 1000000'),
        ({"num_layers": 10**9}, '"num_layers" must be a whole number from 1'),
        ({"revision": 3}, '"revision" must be a string or null'),
        ({"made_by": ["x"]}, '"made_by" must be a string'),
        ({"kind": "all"}, '"kind" must be "heads" or "layers"'),
        ({"kind": 1}, '"kind" must be "heads" or "layers"'),
        ({"kind": "layers", "heads": CHOSEN.to_dict()["heads"]}, 'every head of "layers"'),
        ({"layers": [4]}, '"layers": layer 4 is outside'),
        ({"layers": [1.5]}, '"layers" must hold whole numbers'),
        ({"layers": 3}, '"layers" must be a list'),
        ({"layers": [0] * 5}, '"layers" has 5 entries'),
        ({"heads": []}, '"heads" must be an object'),
        ({"heads": {"x1": []}}, "exactly the keys x1, y1, x2, y2"),
        (with_x1([]), '"heads.x1" lists no head'),
        (with_x1("all"), '"heads.x1" must be a list'),
        (with_x1([3]), r'"heads.x1\[0\]" must be an object'),
        (with_x1([{"layer": 0}]), r'"heads.x1\[0\].head" must hold whole numbers'),
        (with_x1([{"layer": 0, "head": 8}]), '"heads.x1": head 8 is outside the model, which has heads 0 to 7'),
        (with_x1([{"layer": -1, "head": 0}]), '"heads.x1": layer -1 is outside'),
        (with_x1([{"layer": 0, "head": 0}] * 2), '"heads.x1" lists a head twice'),
        (with_x1([{"layer": 0, "head": 0, "entropy_gap": "big"}]), '"entropy_gap" must be a finite number'),
        (with_x1([{"layer": 0, "head": 0}] * 33), '"heads.x1" has 33 entries'),
    ],
)
def test_wrong_fields_are_named(tmp_path, change, says):
    path = tmp_path / "heads.json"
    path.write_text(json.dumps(CHOSEN.to_dict() | change))
    with pytest.raises(HeadFileError, match=says) as caught:
        HeadFile.load(path)
    assert str(path) in str(caught.value)
    assert "acs-train build" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[1]", "one JSON object, not a list"),
        (b"\xff\xfe\x00", "not JSON text"),
        (b"[" * 200_000, "not JSON text"),
        (b'{"schema_version": NaN}', "NaN is not a number"),
        (b'{"schema_version": 1, "num_layers": -Infinity}', "-Infinity is not a number"),
        (b'{"schema_version": ' + b"9" * 10_000 + b"}", "not valid JSON"),
        (b" " * (SMALL.max_bytes + 1), "larger than 8 MiB"),
    ],
)
def test_damaged_files(tmp_path, content, says):
    path = tmp_path / "heads.json"
    path.write_bytes(content)
    with pytest.raises(HeadFileError, match=says):
        HeadFile.load(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(HeadFileError, match="cannot be read: No such file"):
        HeadFile.load(tmp_path / "none.json")
    with pytest.raises(HeadFileError, match="cannot be read"):
        HeadFile.load(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(CHOSEN.to_dict())), json_values, min_size=1))
def test_any_value_in_any_field_is_a_file_or_a_named_error(changes):
    try:
        file = HeadFile.from_dict(CHOSEN.to_dict() | changes)
    except (HeadFileError, ValueError) as error:
        assert "field" in str(error)
    else:
        assert len(file.pairs()) == 4


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (HeadedModel(num_layers=5), r"4 layers x 8 heads, the model some/model has 5 x 8"),
        (HeadedModel(num_heads=4), r"has 4 x 4"),
        (HeadedModel(family="qwen2_5_vl"), "family internvl, the model some/model is qwen2_5_vl"),
        (HeadedModel(name="some/other"), "made for some/model, the model is some/other"),
        (HeadedModel(name="/data/model", hidden_size=16), "as many layers and heads but 16 numbers"),
    ],
)
def test_the_wrong_model_is_refused(model, says):
    with pytest.raises(HeadFileError, match=says):
        CHOSEN.check(model)


@pytest.mark.parametrize(
    ("name", "revision", "warning"),
    [
        ("some/model", "abc", None),
        ("/data/weights/Model", None, None),
        ("/data/weights/renamed", "abc", "same shape, another name"),
        ("some/model", "def", "revision abc"),
    ],
)
def test_a_local_copy_fits_and_differences_are_said_once(caplog, name, revision, warning):
    identity._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            CHOSEN.check(HeadedModel(name=name, revision=revision))
    assert warning in caplog.text if warning else not caplog.records
    assert len(caplog.records) == bool(warning)


@pytest.mark.parametrize(("name", "noted"), [("some/model", False), ("some/other", True), ("/data/other", True)])
def test_layers_serve_every_model_of_the_shape(caplog, name, noted):
    identity._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        LAYERS.check(HeadedModel(name=name))
    assert (f"made for some/model is used with {name}" in caplog.text) == noted


@pytest.mark.parametrize(
    "model",
    [
        HeadedModel(num_layers=5),
        HeadedModel(num_heads=4),
        HeadedModel(family="qwen2_5_vl"),
        HeadedModel(name="some/smaller", hidden_size=32),
    ],
)
def test_layers_of_another_shape_or_family_are_refused(model):
    with pytest.raises(HeadFileError, match="does not fit"):
        LAYERS.check(model)


@pytest.mark.parametrize(
    ("name", "short"),
    [("some/model", "some/model"), ("/data/tiny", "tiny"), ("./tiny/", "tiny"), ("tiny", "tiny"), ("a/b/c", "c")],
)
def test_identity_of_a_folder_is_its_last_part(name, short):
    assert ModelIdentity.of(HeadedModel(name=name)).model == short


@pytest.mark.parametrize("gap", [1e300, -51.0])
def test_entropy_gaps_of_no_sensible_size_are_refused(tmp_path, gap):
    (tmp_path / "heads.json").write_text(
        json.dumps(CHOSEN.to_dict() | with_x1([{"layer": 0, "head": 1, "entropy_gap": gap}]))
    )
    with pytest.raises(HeadFileError, match=r"heads.x1\[0\].entropy_gap.* is .* nats, entropies differ by at most 50"):
        HeadFile.load(tmp_path / "heads.json")


@pytest.mark.parametrize("key", ["kind", "heads", "num_layers"])
def test_a_field_that_stands_twice_is_refused(tmp_path, key):
    (tmp_path / "heads.json").write_text(f'{{"{key}": 1, {json.dumps(CHOSEN.to_dict())[1:]}')
    with pytest.raises(HeadFileError, match=f"the key '{key}' stands twice"):
        HeadFile.load(tmp_path / "heads.json")
