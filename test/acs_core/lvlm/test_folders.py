"""Folders as people have them load like new ones, or are refused with what to do."""

import importlib.util
import json
import shutil

import numpy as np
import pytest
import torch
from recorded_answers import real_tokenizer, recorded_answers, save_vocabulary_files
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast

from acs_core.artifacts.calibration import Calibration
from acs_core.artifacts.heads import HeadFile
from acs_core.attention import AttentionNeeds, capture
from acs_core.errors import AcsError, ModelError
from acs_core.generation.sample import sample_responses
from acs_core.geometry import Box
from acs_core.lvlm import FAMILIES, load_lvlm
from acs_core.lvlm.checks import check_config, check_folder
from acs_core.lvlm.folders import QUANTIZED_BY, quantization_method
from acs_core.lvlm.processors import load_processor
from acs_core.lvlm.prompt import PromptBuilder, localization_prompt
from acs_core.selection.regressor import load_regressor
from acs_core.types import Candidate, SamplingConfig

LFS = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 3945441440\n"


@pytest.fixture
def folder(model_folders, tmp_path):
    return shutil.copytree(model_folders["qwen2_5_vl"], tmp_path / "model")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def name_image_processor(folder, name, own_file):
    """Write the image processor under another name, in a file of its own or in processor_config.json."""
    file = folder / "processor_config.json"
    processor = json.loads(file.read_text())
    image = processor.pop("image_processor") | {"image_processor_type": name}
    if own_file:
        (folder / "preprocessor_config.json").write_text(json.dumps(image))
    file.write_text(json.dumps(processor if own_file else processor | {"image_processor": image}))


@pytest.mark.parametrize("own_file", [True, False], ids=["preprocessor_config.json", "processor_config.json"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("qwen2_5_vl", "Qwen2_5_VLImageProcessor"),
        ("qwen2_5_vl", "Qwen2_5_VLImageProcessorFast"),
        ("qwen2_5_vl", "Qwen2VLImageProcessor"),
        ("qwen2_vl", "Qwen2VLImageProcessorFast"),
        ("qwen3_vl", "Qwen3VLImageProcessor"),
        ("internvl", "GotOcr2ImageProcessor"),
        ("internvl", "InternVLImageProcessor"),
    ],
)
def test_stale_names_of_image_processors(model_folders, tmp_path, picture, kind, name, own_file):
    stale = shutil.copytree(model_folders[kind], tmp_path / "model")
    name_image_processor(stale, name, own_file)
    read = [load_processor(f, FAMILIES[kind]) for f in (stale, model_folders[kind])]
    assert type(read[0].image_processor) is type(read[1].image_processor) is FAMILIES[kind].image_processor_class
    assert read[0].image_processor.to_dict() == read[1].image_processor.to_dict()
    older, newer = (p(images=[picture], text=p.image_token, return_tensors="pt") for p in read)
    assert older.keys() == newer.keys() and all(torch.equal(older[key], newer[key]) for key in newer)


def test_limits_of_older_files_count(folder):
    name_image_processor(folder, "Qwen2_5_VLImageProcessor", own_file=True)
    file = folder / "preprocessor_config.json"
    image = json.loads(file.read_text())
    image.pop("size")
    file.write_text(json.dumps(image | {"min_pixels": 28 * 28 * 4, "max_pixels": 28 * 28 * 9}))
    read = load_processor(folder, FAMILIES["qwen2_5_vl"])
    prepared = read.image_processor(images=[np.zeros((280, 280, 3), np.uint8)], return_tensors="pt")
    assert prepared["image_grid_thw"].tolist() == [[1, 6, 6]]  # 9 tokens of 2 x 2 patches


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("qwen2_5_vl", "CLIPImageProcessor"),
        ("qwen2_5_vl", "GotOcr2ImageProcessorFast"),
        ("qwen2_5_vl", "Qwen3VLImageProcessor"),
        ("qwen2_vl", "Qwen2_5_VLImageProcessor"),
        ("qwen3_vl", "InternVLImageProcessor"),
        ("internvl", "Qwen2VLImageProcessor"),
        ("internvl", "Qwen2_5_VLImageProcessorFast"),
    ],
)
def test_an_image_processor_of_another_family_is_refused(model_folders, tmp_path, kind, name):
    other = shutil.copytree(model_folders[kind], tmp_path / "model")
    name_image_processor(other, name, own_file=True)
    with pytest.raises(ModelError, match=rf"'{name}', but models of the family {kind} have "):
        load_processor(other, FAMILIES[kind])


def test_vocabulary_and_merges_without_tokenizer_json(folder):
    (folder / "tokenizer.json").unlink()
    save_vocabulary_files(folder, "qwen2_5_vl")
    read = load_processor(folder, FAMILIES["qwen2_5_vl"])
    known = real_tokenizer("qwen2_5_vl")
    assert isinstance(read.tokenizer, PreTrainedTokenizerFast)
    answers = [answer for answer in recorded_answers() if answer.family == "qwen2_5_vl"]
    for answer in answers:
        assert tuple(read.tokenizer(answer.text, add_special_tokens=False)["input_ids"]) == answer.ids
    ids = PromptBuilder.create(read).build(localization_prompt("key"), [read.tokenizer.convert_tokens_to_ids("a")])
    assert ids[0] == known.convert_tokens_to_ids("<|im_start|>") == 151644
    text = known(localization_prompt("key"), add_special_tokens=False)["input_ids"]
    assert str(text)[1:-1] in str(ids)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer.json", "config.json", "processor_config.json", "chat_template.jinja"]
)
def test_pointers_of_git_lfs(folder, name):
    (folder / name).write_text(LFS)
    with pytest.raises(ModelError, match=rf"{name} is a git-lfs pointer, not the file itself: run git lfs pull"):
        load_lvlm(folder, device="cpu")


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (["tokenizer.json"], "no tokenizer in the folder: get tokenizer.json, or vocab.json and merges.txt"),
        (["processor_config.json", "preprocessor_config.json"], "no image processor in the folder: get preproc"),
    ],
)
def test_missing_files_of_the_processor_are_named(folder, missing, words):
    for name in missing:
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(ModelError, match=words):
        load_lvlm(folder, device="cpu")


OWN_FILES = {"heads.json": HeadFile.load, "calibration.json": Calibration.load, "r.safetensors": load_regressor}


@pytest.mark.parametrize(("name", "load"), OWN_FILES.items())
def test_pointers_in_place_of_files_of_acs(tmp_path, name, load):
    (tmp_path / name).write_text(LFS)
    with pytest.raises(AcsError, match="it is a git-lfs pointer, not the file itself: run git lfs pull"):
        load(tmp_path / name)


def test_many_pointers_are_counted(folder):
    for i in range(5):
        (folder / f"model-0000{i}-of-00005.safetensors").write_text(LFS)
    with pytest.raises(ModelError, match=r"model-00000.* and 2 more are git-lfs pointers, not the files"):
        check_folder(folder)


METHODS = [
    ({"quantization_config": {"quant_method": "awq"}}, "awq"),
    ({"quantization_config": {"quant_method": "GPTQ"}}, "gptq"),
    ({"quantization_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
    ({"quantization_config": {"config_groups": {}}}, "compressed-tensors"),
    ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
    ({"text_config": {"quantization_config": {"quant_method": "awq"}}}, "awq"),
    ({"quantization_config": {"load_in_4bit": True}}, "bitsandbytes"),
    ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
    ({"quantization_config": {}}, None),
    ({"quantization_config": None, "text_config": None}, None),
    ({}, None),
]


@pytest.mark.parametrize(("config", "method"), METHODS)
def test_the_method_of_quantisation(config, method):
    assert quantization_method(config) == method


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("awq", "quantised by awq: pip install gptqmodel$"),
        ("gptq", "quantised by gptq: pip install gptqmodel optimum$"),
        ("compressed-tensors", "quantised by compressed-tensors: pip install compressed-tensors$"),
        ("auto-round", "quantised by auto-round: pip install auto-round$"),
        ("marlin", "quantised by 'marlin', which acs does not read: .*awq, gptq"),
    ],
)
def test_quantised_weights_name_the_package(folder, monkeypatch, method, message):
    edit(folder / "config.json", quantization_config={"quant_method": method})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=message):
        load_lvlm(folder, device="cpu")


def test_nothing_is_said_where_the_packages_are(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    for method in QUANTIZED_BY:
        check_config({"quantization_config": {"quant_method": method}})


def test_weights_are_not_quantised_twice(folder):
    pytest.importorskip("bitsandbytes")
    edit(folder / "config.json", quantization_config={"quant_method": "fp8"})
    with pytest.raises(ModelError, match="quantised already, by fp8: leave the option quantization out"):
        load_lvlm(folder, device="cpu", quantization="8bit")


def test_weights_of_other_programs(folder):
    edit(folder / "config.json", quantization={"group_size": 64, "bits": 4})
    with pytest.raises(ModelError, match="quantised for MLX"):
        load_lvlm(folder, device="cpu")
    (folder / "model.safetensors").rename(folder / "model-Q4_K_M.gguf")
    with pytest.raises(ModelError, match=r"weights for llama\.cpp only"):
        check_folder(folder)


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("OpenGVLab/InternVL3_5-8B", "OpenGVLab/InternVL3_5-8B-HF$"),
        ("/models/InternVL3_5-8B/", "OpenGVLab/InternVL3_5-8B-HF$"),
        ("OpenGVLab/InternVL3-2B", "OpenGVLab/InternVL3-2B-hf$"),
        ("OpenGVLab/InternVL2_5-8B", "for InternVL one whose name ends in -hf or -HF$"),
        ("my/model", "for InternVL one whose name ends in -hf or -HF$"),
    ],
)
def test_repositories_with_remote_code_name_the_one_without(name, use):
    with pytest.raises(ModelError, match=rf"auto_map\), which is never done: .*{use}"):
        check_config({"model_type": "internvl_chat", "auto_map": {"AutoModel": "modeling.Model"}}, name)


def test_other_remote_code_is_refused_too(folder):
    edit(folder / "config.json", model_type="phi3_v", auto_map={"AutoModel": "modeling.Model"})
    with pytest.raises(ModelError, match=r"never done: use a repository in the format of transformers"):
        load_lvlm(folder, device="cpu")


def test_compressed_weights_answer_like_the_whole(model_folders, tmp_path, picture):
    """Eight bits for each weight of the language model, packed by compressed-tensors."""
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        apply_quantization_config,
    )
    from safetensors.torch import save_file

    weights = QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="channel")
    config = QuantizationConfig(
        config_groups={"group_0": QuantizationScheme(targets=["Linear"], weights=weights)},
        ignore=["re:.*visual.*", "lm_head"],
        quantization_status="frozen",
        format="pack-quantized",
    )
    hf_model = AutoModelForImageTextToText.from_pretrained(model_folders["qwen2_5_vl"])
    apply_quantization_config(hf_model, config)
    for module in hf_model.modules():
        if hasattr(module, "weight_scale"):
            module.weight_scale.data.copy_(module.weight.abs().amax(dim=1, keepdim=True) / 127)
    compressor = ModelCompressor(quantization_config=config)
    compressor.compress_model(hf_model)
    folder = shutil.copytree(model_folders["qwen2_5_vl"], tmp_path / "model")
    tensors = {name: tensor.contiguous() for name, tensor in hf_model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    compressor.update_config(folder)

    maps = []
    for place in (folder, model_folders["qwen2_5_vl"]):
        lvlm = load_lvlm(place, device="cpu")
        prompt = lvlm.prepare(picture, "key")
        samples = sample_responses(lvlm, prompt, SamplingConfig(num_samples=1, max_new_tokens=4, seed=1))
        box = [Candidate(Box(0, 0, 1, 1), "", 0, 0, (0, 0, 0, 0))]
        maps.append(capture(lvlm, prompt, samples, box, AttentionNeeds(maps=True)).maps)
    assert 0 < np.abs(maps[0] - maps[1]).max() < 0.02 < maps[1].max()
