"""Nothing of a model folder runs, whatever lies in it: each trap would write a file, the canary."""

import json
import os
import pickle
import shutil

import pytest

from acs_core.artifacts.built import built_for
from acs_core.artifacts.registry import ASSETS
from acs_core.errors import ModelError
from acs_core.grounder import Grounder
from acs_core.lvlm import load_lvlm
from acs_core.lvlm.checks import check_config, check_folder

CONFIGS = ("processor_config.json", "tokenizer_config.json", "generation_config.json", "preprocessor_config.json")


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.fixture
def canary(tmp_path):
    return tmp_path / "canary"


@pytest.fixture
def folder(tmp_path, canary):
    """A good model folder, with Python files beside it that nobody may import."""
    made = tmp_path / "model"
    shutil.copytree(ASSETS / "tiny-internvl", made)
    code = f"open({str(canary)!r}, 'w')\nclass Evil: pass\n"
    for name in ("modeling_evil.py", "configuration_evil.py", "processing_evil.py", "__init__.py", "generate.py"):
        (made / name).write_text(code)
    (made / "custom_generate").mkdir()
    (made / "custom_generate" / "generate.py").write_text(code)
    return made


def edit(path, **changes):
    data = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(data | changes))


def trap_pickles(folder, canary):
    """Pickles under every name that weights and side files ever had."""
    names = ("pytorch_model.bin", "model.pt", "adapter_model.bin", "training_args.bin", "tokenizer.pkl", "optimizer.pt")
    for name in names:
        (folder / name).write_bytes(pickle.dumps(Trap(canary)))


def test_the_trap_works(canary):
    pickle.loads(pickle.dumps(Trap(canary))).close()
    assert canary.exists()


def test_pickles_and_code_beside_good_weights_are_left_alone(folder, canary):
    trap_pickles(folder, canary)
    load_lvlm(folder, device="cpu")
    assert not canary.exists()


def test_only_pickles_are_refused(folder, canary):
    trap_pickles(folder, canary)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="only pickled weights"):
        load_lvlm(folder, device="cpu")
    assert not canary.exists()


def test_a_pickle_named_safetensors_is_not_unpickled(folder, canary):
    (folder / "model.safetensors").write_bytes(pickle.dumps(Trap(canary)))
    with pytest.raises(ModelError, match="could not be loaded"):
        load_lvlm(folder, device="cpu")
    assert not canary.exists()


@pytest.mark.parametrize(
    "shard", ["pytorch_model.bin", "../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..", ""]
)
def test_an_index_cannot_lead_to_pickles_or_out_of_the_folder(folder, canary, shard):
    trap_pickles(folder, canary)
    (folder / "model.safetensors").rename(folder.parent / "secret.safetensors")
    (folder / "decoy.safetensors").write_bytes(b"")
    index = {"metadata": {}, "weight_map": {"model.language_model.embed_tokens.weight": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"names '.*', which is no \*\.safetensors of this folder"):
        load_lvlm(folder, device="cpu")
    assert not canary.exists()


@pytest.mark.parametrize("file", ["config.json", *CONFIGS])
@pytest.mark.parametrize("nested", [False, True])
def test_remote_code_is_refused_in_every_file(folder, canary, file, nested):
    maps = {"auto_map": {"AutoModel": "modeling_evil.Evil", "AutoProcessor": "owner/repo--processing_evil.Evil"}}
    edit(folder / file, **({"image_processor": maps} if nested and file != "config.json" else maps))
    with pytest.raises(ModelError, match=rf"{file} asks to run Python code of its own \(auto_map\)"):
        load_lvlm(folder, device="cpu")
    assert not canary.exists()


def test_an_adapter_is_refused(folder, canary):
    edit(folder / "adapter_config.json", base_model_name_or_path="owner/evil", peft_type="LORA")
    with pytest.raises(ModelError, match="an adapter, which is not read"):
        load_lvlm(folder, device="cpu")


def test_links_of_the_hub_cache_are_followed(folder):
    (folder / "model.safetensors").rename(folder.parent / "blob")
    (folder / "model.safetensors").symlink_to("../blob")
    check_folder(folder)
    assert load_lvlm(folder, device="cpu").num_layers > 0


def test_a_link_to_something_else_is_no_weights(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("/etc/passwd")
    with pytest.raises(ModelError, match="could not be loaded"):
        load_lvlm(folder, device="cpu")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"num_hidden_layers": 10**9}, '"num_hidden_layers" must be a whole number from 1 to 512, got 1000000000'),
        ({"text_config": {"num_attention_heads": "4"}}, '"text_config.num_attention_heads" must be a whole number'),
        ({"vision_config": {"depth": 0}}, '"vision_config.depth" must be'),
        ({"text_config": [1] * 1000}, '"text_config" must be an object, got'),
    ],
)
def test_sizes_that_no_model_has_are_refused_before_anything_is_built(config, says):
    with pytest.raises(ModelError, match=says):
        check_config(config)


@pytest.mark.parametrize("make", [os.mkfifo, lambda p: p.mkdir(), lambda p: p.symlink_to("/dev/zero")])
def test_files_that_are_none_are_not_waited_for(folder, make):
    (folder / "processor_config.json").unlink()
    make(folder / "processor_config.json")
    with pytest.raises(ModelError, match=r"processor_config\.json cannot be used .*it is no file"):
        check_folder(folder)


@pytest.mark.parametrize("content", ["[" * 10**5, "[]", "{", "\ud800".encode("utf-8", "surrogatepass")])
def test_configuration_that_cannot_be_read_is_named(folder, content):
    path = folder / "tokenizer_config.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelError, match=r"tokenizer_config\.json"):
        check_folder(folder)


@pytest.mark.parametrize("model", ["../../../etc", "/etc", "./nothing", "a/../b/c", "owner/../x"])
def test_acs_json_leads_to_a_model_or_to_an_error(tmp_path, model):
    """It may name any folder, as its user could; what lies there is looked over like every other."""
    (tmp_path / "acs.json").write_text(json.dumps({"schema_version": 1, "model": model}))
    assert built_for(tmp_path).model == model
    with pytest.raises(ModelError):
        Grounder.from_pretrained(tmp_path, device="cpu")


@pytest.mark.parametrize("value", ["", "m" * 501, "a\x1b[31mb", "\u202eevil", 7, None])
def test_acs_json_cannot_smuggle_a_name(tmp_path, value):
    (tmp_path / "acs.json").write_text(json.dumps({"schema_version": 1, "model": value}))
    with pytest.raises(ModelError, match="must be a name"):
        built_for(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_image_tokens", v) for v in (0, 3.0, True, "9" * 10**4)] + [("coordinate_frame", v) for v in (None, "", "x")],
)
def test_options_for_pictures_of_acs_json_are_checked(tmp_path, name, value):
    (tmp_path / "acs.json").write_text(json.dumps({"schema_version": 1, "model": "a/b", name: value}))
    with pytest.raises(ModelError, match=rf"acs\.json: {name} must be"):
        built_for(tmp_path)


@pytest.mark.parametrize(
    "device", ["meta", "mps", "cuda:-1", "cuda:99999999999999999999", "cpu:\n", "xla", "c" * 10**5]
)
def test_devices_that_cannot_answer_are_refused(device):
    with pytest.raises(ModelError) as caught:
        load_lvlm(ASSETS / "tiny-internvl", device=device)
    assert len(str(caught.value)) < 500
