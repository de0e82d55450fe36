"""Grounders of hub repositories, from a cache as the hub's client leaves it: the commit in every answer, files that
were built for a model, and what is said before any weights are there."""

import json
import logging
import shutil
import types

import pytest
from grounder_parts import ANSWERS, IMAGE
from hub_parts import add_to_cache, config_alone
from PIL import Image

from acs_core.artifacts.built import built_content
from acs_core.artifacts.heads import HeadFile
from acs_core.artifacts.hub import HubRepository
from acs_core.artifacts.identity import ModelIdentity
from acs_core.artifacts.registry import ASSETS
from acs_core.cli import main
from acs_core.errors import HeadFileError, ModelError, RegressorError
from acs_core.grounder import Grounder
from acs_core.selection.regressor import AttentionIoURegressor, save_regressor

MODEL, FILES = "acs-test/random-internvl", "acs-test/acs-files"
OWN = ("heads.json", "regressor.safetensors", "calibration-acs-free.json", "calibration-acs-learned.json")

# Sizes as in the config.json of Qwen2.5-VL-3B-Instruct and InternVL3_5-4B-HF; the first is written without text_config.
QWEN_3B = {
    "model_type": "qwen2_5_vl",
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "sliding_window": 32768,
    "use_sliding_window": False,
    "vision_config": {"depth": 32, "hidden_size": 1280, "num_heads": 16, "out_hidden_size": 2048},
}
INTERNVL_4B = {
    "model_type": "internvl",
    "text_config": {
        "model_type": "qwen3",
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
}
HEADS_8B = ASSETS / "internvl3.5-8b" / "heads.json"


@pytest.fixture
def split(folder, tmp_path):
    """Two folders, a model without any file of acs, and the files for it."""
    model, files = tmp_path / "model", tmp_path / "files"
    shutil.copytree(folder, model, ignore=shutil.ignore_patterns(*OWN))
    files.mkdir()
    for name in OWN:
        shutil.copy(folder / name, files / name)
    return model, files


def config_in_cache(cache, tmp_path, name, config):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.json").write_text(json.dumps(config))
    return add_to_cache(cache, name, tmp_path / "config", keep=config_alone)


def test_every_answer_has_the_commit(hub_cache, folder, answers, tmp_path, capsys):
    commit = add_to_cache(hub_cache, MODEL, folder)
    grounder = Grounder.from_pretrained(MODEL, device="cpu")
    answers(*ANSWERS)
    result = grounder.ground(IMAGE, "key")
    assert (result.model, result.revision, grounder.revision) == (MODEL, commit, commit)
    # heads.json and its calibration lie in the model's own repository
    assert (result.selector, result.score_kind.value) == ("acs-free", "calibrated")
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    assert main([str(tmp_path / "a.png"), "key", "--model", MODEL, "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["revision"] == commit


@pytest.mark.parametrize("listed", [True, False])
def test_files_of_the_hub_bring_their_model(hub_cache, split, answers, listed):
    model, files = split
    wanted = add_to_cache(hub_cache, MODEL, model)
    (files / "acs.json").write_text(json.dumps(built_content(MODEL, wanted, OWN if listed else None)))
    first = add_to_cache(hub_cache, FILES, files)
    # Both repositories go on; the files' branch names other files, and they name the commit of the model.
    (model / "note.txt").write_text("later")
    assert add_to_cache(hub_cache, MODEL, model) != wanted
    answers(*ANSWERS)
    for selector in ("auto", "acs-learned"):
        grounder = Grounder.from_pretrained(FILES, selector=selector, device="cpu")
        result = grounder.ground(IMAGE, "key")
        assert (result.model, result.revision, result.score_kind.value) == (FILES, first, "calibrated")
        assert (grounder.lvlm.name, grounder.lvlm.revision) == (MODEL, wanted)
    (files / "heads.json").unlink()
    (files / "acs.json").write_text(json.dumps(built_content(MODEL, wanted)))
    second = add_to_cache(hub_cache, FILES, files)
    newest = Grounder.from_pretrained(FILES, device="cpu")
    assert (newest.selector_name, newest.revision) == ("consensus", second)
    pinned = Grounder.from_pretrained(FILES, revision=first, device="cpu")
    assert (pinned.selector_name, pinned.revision) == ("acs-free", first)


def test_a_listed_file_that_is_not_in_the_cache_is_said(hub_cache, split):
    model, files = split
    (files / "acs.json").write_text(json.dumps(built_content(MODEL, add_to_cache(hub_cache, MODEL, model), OWN)))
    commit = add_to_cache(hub_cache, FILES, files, keep=lambda path: path != "heads.json")
    with pytest.raises(ModelError, match=rf"heads\.json of commit {commit} is neither in .*hf download"):
        Grounder.from_pretrained(FILES, device="cpu")


@pytest.mark.parametrize("named", ["/home/somebody/model", "./model", "folder"])
def test_files_of_the_hub_name_no_folder(hub_cache, tmp_path, named):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "acs.json").write_text(json.dumps(built_content(named, None)))
    add_to_cache(hub_cache, FILES, tmp_path / "files")
    with pytest.raises(ModelError, match=rf"{FILES}: its acs.json names the model {named}, which is neither a hub id"):
        Grounder.from_pretrained(FILES)


def test_files_are_not_built_for_files(hub_cache, tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "acs.json").write_text(json.dumps(built_content(FILES, None)))
    add_to_cache(hub_cache, FILES, tmp_path / "files")
    with pytest.raises(ModelError, match=rf"it is built for {FILES}, and there: commit"):
        Grounder.from_pretrained(FILES)


def test_a_folder_of_files_takes_its_model_from_the_hub(hub_cache, split):
    model, files = split
    commit = add_to_cache(hub_cache, MODEL, model)
    (files / "acs.json").write_text(json.dumps(built_content(MODEL, commit)))
    grounder = Grounder.from_pretrained(files, device="cpu")
    assert (grounder.model_name, grounder.revision, grounder.selector_name) == (str(files), commit, "acs-free")


@pytest.mark.parametrize(
    ("recorded", "given", "picture", "warned"),
    [
        ({"max_image_tokens": 500, "coordinate_frame": "original"}, {}, (500, "original"), ()),
        ({"max_image_tokens": 500, "coordinate_frame": "original"}, {"max_image_tokens": 500}, (500, "original"), ()),
        ({"coordinate_frame": "original"}, {"coordinate_frame": "0-1"}, (2304, "0-1"), ("coordinate_frame",)),
        ({"max_image_tokens": 500}, {"max_image_tokens": 600}, (600, "family"), ("max_image_tokens",)),
        ({"max_image_tokens": 500}, {"coordinate_frame": "0-1000"}, (500, "0-1000"), ()),  # that of the family
        ({}, {"max_image_tokens": 600}, (600, "family"), ()),  # an earlier version of acs built the files
    ],
)
def test_files_are_used_with_the_pictures_they_were_made_with(split, caplog, recorded, given, picture, warned):
    model, files = split
    content = {"schema_version": 1, "model": str(model), "revision": None, **recorded}
    (files / "acs.json").write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        lvlm = Grounder.from_pretrained(files, device="cpu", **given).lvlm
    assert (lvlm.picture.max_image_tokens, lvlm.picture.coordinate_frame) == picture
    frame = {"original": (IMAGE.shape[1], IMAGE.shape[0]), "0-1": (1, 1)}.get(picture[1], (1000, 1000))
    assert lvlm.prepare(IMAGE, "key").frame_size == frame
    said = [record.getMessage() for record in caplog.records if "its files were made with" in record.getMessage()]
    assert len(said) == len(warned) and all(name in line for name, line in zip(warned, said, strict=True))


def test_a_model_without_heads_is_refused_before_its_weights(hub_cache, tmp_path, caplog):
    name = "Qwen/Qwen2.5-VL-3B-Instruct"
    config_in_cache(hub_cache, tmp_path, name, QWEN_3B)
    said = r"no head file is known for .*2.5-VL-3B-Instruct: .*; the default selector .*, consensus, works"
    with pytest.raises(HeadFileError, match=said):
        Grounder.from_pretrained(name, selector="acs-free", device="cpu")
    # The default needs no file, so the next thing that is missing is the rest of the model.
    with caplog.at_level(logging.WARNING), pytest.raises(ModelError, match="could not be loaded"):
        Grounder.from_pretrained(name, device="cpu")
    assert "no head file is known for this model, so the selector is consensus" in caplog.text


def test_heads_of_a_larger_model_are_not_taken(hub_cache, tmp_path):
    """InternVL3.5-8B and -4B have as many layers and heads; their hidden states differ."""
    name = "OpenGVLab/InternVL3_5-4B-HF"
    config_in_cache(hub_cache, tmp_path, name, INTERNVL_4B)
    with pytest.raises(HeadFileError, match=f"no head file is known for the model {name}"):
        Grounder.from_pretrained(name, selector="acs-free", device="cpu")
    said = (
        f"InternVL3_5-8B-HF with hidden states of 4096 numbers, the model {name} has as many layers and heads but 2560"
    )
    with pytest.raises(HeadFileError, match=said):
        Grounder.from_pretrained(name, heads=HEADS_8B, device="cpu")
    with pytest.raises(ModelError, match="could not be loaded"):
        Grounder.from_pretrained(name, device="cpu")


@pytest.mark.parametrize(
    ("size", "hidden", "message"), [((36, 32), 4096, "hidden states of 4096"), ((28, 28), 2560, "has 36 x 32")]
)
def test_other_files_are_checked_before_the_weights_too(hub_cache, tmp_path, size, hidden, message):
    config_in_cache(hub_cache, tmp_path, MODEL, INTERNVL_4B)
    identity = ModelIdentity("some-folder", "internvl", *size, hidden_size=hidden)
    file = tmp_path / "regressor.safetensors"
    save_regressor(file, AttentionIoURegressor(*size), identity, (16, 16))
    with pytest.raises(RegressorError, match=message):
        Grounder.from_pretrained(MODEL, selector="acs-learned", regressor=file, device="cpu")


def test_an_unknown_architecture_is_refused_before_its_weights(hub_cache, tmp_path, capsys):
    config_in_cache(hub_cache, tmp_path, MODEL, {"model_type": "llava", "text_config": {}})
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    assert main([str(tmp_path / "a.png"), "key", "--model", MODEL]) == 1
    assert f"{MODEL}: architecture 'llava' is not supported: use one of" in capsys.readouterr().err


def test_a_head_file_given_makes_acs_free_the_default(hub_cache, split):
    model, files = split
    add_to_cache(hub_cache, MODEL, model)
    assert Grounder.from_pretrained(MODEL, device="cpu").selector_name == "consensus"
    given = HeadFile.load(files / "heads.json")
    assert Grounder.from_pretrained(MODEL, heads=given, device="cpu").selector_name == "acs-free"


def test_a_hub_out_of_reach_is_one_line_and_not_one_for_each_retry(tmp_path, monkeypatch, caplog):
    slept = []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}")
    monkeypatch.setattr("huggingface_hub.utils._http.time", types.SimpleNamespace(sleep=slept.append))
    with caplog.at_level(logging.WARNING):
        assert HubRepository("owner/model", "0" * 40).find("config.json") is None
    assert len(slept) > 2
    [record] = caplog.records
    assert record.name == "acs_core.artifacts.hub" and "the hub does not answer" in record.getMessage()
