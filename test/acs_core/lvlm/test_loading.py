"""Every reason why a model cannot be loaded is said, with what to do."""

import json
import shutil
import sys
from logging import getLogger

import numpy as np
import pytest
import torch
from transformers.utils import logging

from acs_core.artifacts.registry import resolve_model
from acs_core.attention import AttentionNeeds, capture
from acs_core.errors import ModelError
from acs_core.generation.sample import sample_responses
from acs_core.geometry import Box
from acs_core.lvlm import FAMILIES, load_lvlm
from acs_core.lvlm.loading import QUANTISER_NOISE, _Without, load_processor
from acs_core.types import Candidate, SamplingConfig


@pytest.fixture(params=["internvl", "qwen2_5_vl"])
def folder(request, model_folders, tmp_path):
    """A copy of a good folder, to be broken."""
    return shutil.copytree(model_folders[request.param], tmp_path / "model")


def edit(path, **changes):
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | changes))


def no_config(folder):
    (folder / "config.json").unlink()


def config_not_json(folder):
    (folder / "config.json").write_text("{oops")


def config_not_object(folder):
    (folder / "config.json").write_text("[1, 2]")


def bert(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 8}))


def no_type(folder):
    (folder / "config.json").write_text("{}")


def remote_code(folder):
    edit(folder / "config.json", auto_map={"AutoModel": "modeling_evil.Evil"})


def only_pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def corrupt_weights(folder):
    (folder / "model.safetensors").write_bytes(b"\x10" * 200)


def cut_weights(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def other_sizes(folder):
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edit(folder / "config.json", text_config=text | {"intermediate_size": 40})


def more_layers(folder):
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edit(folder / "config.json", text_config=text | {"num_hidden_layers": 5, "layer_types": ["full_attention"] * 5})


def sliding(folder):
    text = json.loads((folder / "config.json").read_text())["text_config"]
    layers = ["full_attention", "sliding_attention", "full_attention"]
    edit(
        folder / "config.json",
        text_config=text | {"use_sliding_window": True, "sliding_window": 8, "layer_types": layers},
    )


def no_tokenizer(folder):
    (folder / "tokenizer.json").unlink()


def broken_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{}")


def no_processor(folder):
    (folder / "processor_config.json").unlink()


def no_template(folder):
    (folder / "chat_template.jinja").unlink()


def template_without_text(folder):
    (folder / "chat_template.jinja").write_text("hello")


def broken_template(folder):
    (folder / "chat_template.jinja").write_text("{% for %}")


BROKEN = [
    (no_config, "no config.json"),
    (config_not_json, "config.json cannot be used"),
    (config_not_object, "JSON object"),
    (bert, "'bert' is not supported: use one of internvl, qwen2_5_vl, qwen2_vl, qwen3_vl; a new one takes a file"),
    (no_type, "not supported"),
    (remote_code, "auto_map.*-HF"),
    (only_pickle, "pickled weights.*save_pretrained"),
    (no_weights, "no weights"),
    (corrupt_weights, "could not be loaded"),
    (cut_weights, "could not be loaded"),
    (other_sizes, "could not be loaded"),
    (more_layers, "weights lack"),
    (sliding, "sliding_attention"),
    (no_tokenizer, "no tokenizer in the folder: get tokenizer.json"),
    (broken_tokenizer, "could not be loaded"),
    (no_processor, "no image processor in the folder"),
    (no_template, "chat template"),
    (template_without_text, "chat template does not place"),
    (broken_template, "could not be loaded"),
]


@pytest.mark.parametrize(("breaks", "message"), BROKEN, ids=[b.__name__ for b, _ in BROKEN])
def test_broken_folders_are_named(folder, breaks, message):
    breaks(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_lvlm(folder, device="cpu")
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "nothing", "a/b/c", "~/x/y"])
def test_missing_folders_are_named(name):
    with pytest.raises(ModelError, match="no such model folder"):
        load_lvlm(name)


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "weights").write_text("x")
    with pytest.raises(ModelError, match="no such model folder"):
        load_lvlm(tmp_path / "weights")


def test_tokens_per_tile_must_agree(model_folders, tmp_path):
    folder = shutil.copytree(model_folders["internvl"], tmp_path / "model")
    edit(folder / "processor_config.json", image_seq_length=16)
    with pytest.raises(ModelError, match=r"config\.json says 9, processor_config\.json says 16"):
        load_lvlm(folder)


def test_patches_of_an_image_token_must_agree(model_folders, tmp_path):
    folder = shutil.copytree(model_folders["qwen2_5_vl"], tmp_path / "model")
    file = folder / "processor_config.json"
    image = json.loads(file.read_text())["image_processor"]
    edit(file, image_processor=image | {"merge_size": 1})
    with pytest.raises(ModelError, match=r"config\.json says 14 and 2, the image processor's file says 14 and 1"):
        load_lvlm(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "toaster"}, "unknown device"),
        ({"dtype": "int3"}, "unknown dtype"),
        ({"device": "cuda:99"}, "not there"),
    ],
)
def test_options_are_checked(model_folders, options, message):
    with pytest.raises(ModelError, match=message):
        load_lvlm(model_folders["internvl"], **options)


def test_what_a_loaded_model_says(lvlm, model_folders):
    assert lvlm.name in map(str, model_folders.values())
    assert (lvlm.num_layers, lvlm.num_heads, lvlm.revision) == (3, 4, None)
    assert lvlm.device.type == "cpu"
    assert lvlm.hf_model.dtype == torch.float32
    assert not lvlm.hf_model.training


def _set_progress_bars(shown):
    (logging.enable_progress_bar if shown else logging.disable_progress_bar)()


@pytest.mark.parametrize(
    ("wanted", "terminal", "shown"), [(True, False, False), (True, True, True), (False, True, False)]
)
def test_progress_bars_are_for_terminals(model_folders, capsys, monkeypatch, wanted, terminal, shown):
    """And what the program has set is not changed."""
    before = logging.is_progress_bar_enabled()
    _set_progress_bars(wanted)
    try:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
        load_lvlm(model_folders["internvl"], device="cpu")
        assert logging.is_progress_bar_enabled() == wanted
    finally:
        _set_progress_bars(before)
    assert ("Loading weights" in capsys.readouterr().err) == shown


def test_checkpoint_settings_do_not_leak(lvlm):
    assert lvlm.hf_model.generation_config.repetition_penalty is None
    assert set(lvlm.eos_ids) == {lvlm.tokenizer.eos_token_id}
    assert lvlm.pad_id == lvlm.tokenizer.pad_token_id


def test_dtype_is_followed(model_folders):
    assert load_lvlm(model_folders["internvl"], device="cpu", dtype="bfloat16").hf_model.dtype == torch.bfloat16


def test_saved_processors_bear_the_real_names(model_folders):
    for kind in FAMILIES:
        name = {"internvl": "InternVL", "qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}[kind]
        saved = json.loads((model_folders[kind] / "processor_config.json").read_text())
        assert saved["processor_class"] == f"{name}Processor"
        assert not type(load_processor(model_folders[kind], FAMILIES[kind]).image_processor).__module__.endswith(
            "_fast"
        )


HUB_TYPES = {
    "internvl": "GotOcr2ImageProcessorFast",
    "qwen2_vl": "Qwen2VLImageProcessor",
    "qwen2_5_vl": "Qwen2VLImageProcessorFast",
    "qwen3_vl": "Qwen2VLImageProcessorFast",
}


@pytest.mark.parametrize("kind", HUB_TYPES)
def test_older_file_layouts_load_alike(model_folders, tmp_path, picture, kind):
    """As on the hub: the image processor in a file of its own, named after the torchvision class, template as JSON."""
    folder = shutil.copytree(model_folders[kind], tmp_path / "model")
    processor = json.loads((folder / "processor_config.json").read_text())
    image = processor.pop("image_processor") | {"image_processor_type": HUB_TYPES[kind], "crop_to_patches": False}
    (folder / "preprocessor_config.json").write_text(
        json.dumps(image | {"processor_class": processor["processor_class"]})
    )
    (folder / "processor_config.json").write_text(json.dumps(processor))
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    (folder / "chat_template.jinja").unlink()
    older, newer = (load_lvlm(f, device="cpu").prepare(picture, "key") for f in (folder, model_folders[kind]))
    assert torch.equal(older.input_ids, newer.input_ids)
    assert all(torch.equal(older.vision[name], value) for name, value in newer.vision.items())


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_quantised_weights_answer_and_show_their_attention(picture, quantization, caplog):
    pytest.importorskip("bitsandbytes")
    caplog.clear()  # bitsandbytes was imported by the test, before the messages are filtered
    lvlm = load_lvlm(resolve_model("tiny-internvl"), device="cpu", quantization=quantization)
    layers = {type(module).__name__ for module in lvlm.text_model.layers.modules()}
    assert layers & {"Linear8bitLt", "Linear4bit"}
    prompt = lvlm.prepare(picture, "key")
    samples = sample_responses(lvlm, prompt, SamplingConfig(num_samples=2, max_new_tokens=6))
    candidates = [Candidate(Box(0, 0, 1, 1), "", 0, 0, (0, 0, 0, 0))]
    maps = capture(lvlm, prompt, samples, candidates, AttentionNeeds(maps=True)).maps
    assert np.isfinite(maps).all() and maps.sum() > 0
    (said,) = [record.message for record in caplog.records]  # and not one by each layer in each forward pass
    assert said.endswith("quantised weights need less memory, but a CPU takes longer with them")


def test_of_the_messages_of_quantised_layers_only_those_that_help_nobody_are_dropped(caplog):
    for name, noise in QUANTISER_NOISE.items():
        logger = getLogger(name)
        for _ in range(2):
            logger.addFilter(_Without(noise))
        assert logger.filters.count(_Without(noise)) == 1
    logger = getLogger("bitsandbytes.autograd._functions")
    logger.warning("MatMul8bitLt: inputs will be cast from %s to float16 during quantization", "float32")
    logger.warning("something else")
    assert [record.message for record in caplog.records] == ["something else"]


def test_unknown_quantisation_is_named(model_folders):
    with pytest.raises(ModelError, match=r"unknown quantization '2bit'.*none, 8bit, 4bit"):
        load_lvlm(model_folders["internvl"], quantization="2bit")


def test_quantisation_without_its_library_is_explained(model_folders, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install bitsandbytes"):
        load_lvlm(model_folders["internvl"], quantization="8bit")
