"""Models of the hub, from a cache as the hub's client leaves it: one commit for all files, and what config.json says is
checked before the weights are there."""

import json
import shutil

import pytest
import tiny_models
import torch
from hub_parts import add_to_cache, config_alone

from acs_core.artifacts.built import built_content
from acs_core.errors import ModelError
from acs_core.lvlm import load_lvlm, open_model
from acs_core.lvlm.source import ModelSource

NAME = "acs-test/random-internvl"


@pytest.fixture
def commit(hub_cache, model_folders):
    return add_to_cache(hub_cache, NAME, model_folders["internvl"])


def changed(folder, to, **changes):
    """A copy of a model folder as ``to``, with another config.json."""
    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(config | changes))
    return to


@pytest.mark.parametrize("kind", ["internvl", "qwen2_5_vl"])
@pytest.mark.parametrize("revision", [None, "main", "commit"])
def test_the_commit_is_that_of_the_cache(hub_cache, model_folders, picture, kind, revision):
    commit = add_to_cache(hub_cache, NAME, model_folders[kind])
    loaded = load_lvlm(NAME, revision=commit if revision == "commit" else revision, device="cpu")
    assert (loaded.name, loaded.revision) == (NAME, commit)
    own = load_lvlm(model_folders[kind], device="cpu").prepare(picture, "key")
    assert torch.equal(loaded.prepare(picture, "key").input_ids, own.input_ids)


def test_every_file_is_of_the_commit_of_the_config(hub_cache, commit, model_folders, tmp_path):
    """The branch moves after config.json was read, to a commit with other weights and another processor."""
    source = open_model(NAME, device="cpu")
    later = shutil.copytree(model_folders["internvl-tiles"], tmp_path / "later")
    tiny_models.save_internvl(later, max_patches=6, seed=1)
    assert add_to_cache(hub_cache, NAME, later) == open_model(NAME).revision != commit
    loaded, newest = load_lvlm(source), load_lvlm(NAME, device="cpu")
    assert (loaded.revision, newest.revision) == (commit, open_model(NAME).revision)
    assert [m.processor.image_processor.max_patches for m in (loaded, newest)] == [1, 6]
    own = load_lvlm(model_folders["internvl"], device="cpu").hf_model.state_dict()
    same = [all(torch.equal(t, own[n]) for n, t in m.hf_model.state_dict().items()) for m in (loaded, newest)]
    assert same == [True, False]


def test_a_tag_and_a_branch_name_their_commits(hub_cache, model_folders, tmp_path):
    first = add_to_cache(hub_cache, NAME, model_folders["internvl"], "v1")
    second = add_to_cache(hub_cache, NAME, changed(model_folders["internvl"], tmp_path / "other", note="second"))
    assert [open_model(NAME, revision=r).revision for r in ("v1", "main", None, first)] == [
        first,
        second,
        second,
        first,
    ]


def test_what_is_not_in_the_cache_is_said(commit):
    with pytest.raises(ModelError, match=r"acs-test/other: .*out of reach.*no revision 'main' of acs-test/other"):
        open_model("acs-test/other")
    with pytest.raises(ModelError, match="no revision 'v9'"):
        open_model(NAME, revision="v9")
    absent = "0" * 40
    with pytest.raises(ModelError, match=rf"commit {absent} of {NAME} has neither a config.json nor an acs.json"):
        open_model(NAME, revision=absent)


@pytest.mark.parametrize("what", ["a model", "a shipped model", "files for a folder"])
def test_a_revision_of_a_folder_is_refused(model_folders, tmp_path, what):
    model = str(model_folders["internvl"])
    (tmp_path / "acs.json").write_text(json.dumps(built_content(model, None)))
    name = {"a model": model, "a shipped model": "tiny-internvl", "files for a folder": str(tmp_path)}[what]
    with pytest.raises(ModelError, match=r"a folder has no revisions: leave revision out"):
        open_model(name, revision="v1", device="cpu")


def test_a_source_says_what_the_model_says(hub_cache, commit, lvlm, model_folders):
    source = open_model(lvlm.name, device="cpu")
    facts = ("name", "family", "revision", "num_layers", "num_heads", "hidden_size", "device")
    assert [getattr(source, n) for n in facts] == [getattr(lvlm, n) for n in facts]
    assert (source.given_revision, source.built, source.is_folder) == (None, None, True)
    cached = open_model(NAME)
    assert (cached.given_revision, cached.revision, cached.is_folder) == (commit, commit, False)


SLIDING = {"layer_types": ["full_attention", "sliding_attention", "full_attention"], "use_sliding_window": True}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "architecture 'bert' is not supported"),
        ({"auto_map": {"AutoModel": "modeling.Other"}}, "auto_map"),
        ({"text_config": SLIDING}, "sliding_attention"),
        ({"text_config": {"num_hidden_layers": 10**6}}, "num_hidden_layers"),
    ],
)
def test_what_the_config_rules_out_is_said_without_weights(hub_cache, model_folders, tmp_path, change, message):
    folder = changed(model_folders["internvl"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    for key, value in change.items():
        config[key] = config[key] | value if key == "text_config" else value
    (folder / "config.json").write_text(json.dumps(config))
    add_to_cache(hub_cache, NAME, folder, keep=config_alone)
    with pytest.raises(ModelError, match=message):
        load_lvlm(NAME, device="cpu")


def test_the_small_files_are_checked_before_the_weights(hub_cache, model_folders, tmp_path):
    folder = shutil.copytree(model_folders["internvl"], tmp_path / "model")
    processor = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps(processor | {"image_seq_length": 16}))
    add_to_cache(hub_cache, NAME, folder, keep=lambda path: not path.endswith(".safetensors"))
    with pytest.raises(ModelError, match=r"config\.json says 9, processor_config\.json says 16"):
        load_lvlm(NAME, device="cpu")


def test_a_source_is_read_once(commit, monkeypatch):
    source = open_model(NAME, device="cpu")
    monkeypatch.setattr("acs_core.lvlm.loading.open_model", lambda *_, **__: pytest.fail("read again"))
    assert isinstance(source, ModelSource) and load_lvlm(source, dtype="bfloat16").hf_model.dtype == torch.bfloat16


def test_a_branch_that_moves_during_the_download_is_not_followed(hub, model_folders, tmp_path):
    """Over HTTP, from an empty cache: the hub moves its branch once it has served config.json."""
    later = shutil.copytree(model_folders["internvl-tiles"], tmp_path / "later")
    tiny_models.save_internvl(later, max_patches=6, seed=1)
    first = hub.commit_folder(NAME, model_folders["internvl"])
    moved = []
    hub.after = lambda file: file == "config.json" and not moved and moved.append(hub.commit_folder(NAME, later))
    loaded = load_lvlm(NAME, device="cpu")
    assert moved and hub.branches[NAME]["main"] == moved[0] != first
    assert loaded.revision == first and loaded.processor.image_processor.max_patches == 1
    own = load_lvlm(model_folders["internvl"], device="cpu").hf_model.state_dict()
    assert all(torch.equal(t, own[n]) for n, t in loaded.hf_model.state_dict().items())
    assert {commit for _, commit, _ in hub.served} == {first}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file for _, _, file in hub.served}


def test_what_the_hub_refuses_is_said(hub, model_folders):
    hub.commit_folder(NAME, model_folders["internvl"])
    with pytest.raises(ModelError, match=r"acs-test/other: the hub has no repository acs-test/other, or shows it only"):
        open_model("acs-test/other")
    with pytest.raises(ModelError, match=rf"the hub's repository {NAME} has no revision 'v9'"):
        open_model(NAME, revision="v9")


def test_no_weights_are_downloaded_for_a_model_that_is_refused(hub, model_folders, tmp_path):
    hub.commit_folder(NAME, changed(model_folders["internvl"], tmp_path / "other", model_type="llava"))
    with pytest.raises(ModelError, match="architecture 'llava' is not supported"):
        load_lvlm(NAME, device="cpu")
    assert {file for _, _, file in hub.served} == {"config.json"}
