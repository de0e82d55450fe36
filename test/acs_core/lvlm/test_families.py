"""Every published size of every family: a model with its numbers of layers, heads and key groups, and random weights,
gives the tokens, logits and attention maps of a full forward of the stock model."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from acs_core.attention import AttentionNeeds, capture, entropy
from acs_core.bench.subject import shapes
from acs_core.errors import ModelError
from acs_core.generation.prefill import prefill
from acs_core.generation.sample import greedy_response, sample_responses
from acs_core.geometry import Box
from acs_core.lvlm import FAMILIES, load_lvlm
from acs_core.lvlm.base import RELATIVE, RESIZED, LoadedLVLM, Prompt
from acs_core.lvlm.internvl import TEXT_MODELS
from acs_core.lvlm.internvl import _config as internvl_config
from acs_core.lvlm.shapes import BOS, EOS, FIRST_WORD, IMAGE, PAD, VISION_END, VISION_START
from acs_core.types import Candidate, SamplingConfig

WORDS = 60  # FIRST_WORD and above
TEXT, IMAGE_TOKENS = 12, 12
# Parameters in billions, as the model cards give them.
PUBLISHED = {
    "qwen2-vl-2b": 2.21,
    "qwen2-vl-7b": 8.29,
    "qwen2-vl-72b": 73.4,
    "7b": 8.29,
    "qwen3-vl-2b": 2.13,
    "qwen3-vl-4b": 4.44,
    "qwen3-vl-8b": 8.77,
    "qwen3-vl-32b": 33.4,
    "internvl3-1b": 0.94,
    "internvl3-2b": 2.09,
    "internvl3-8b": 7.94,
    "internvl3-14b": 15.1,
    "internvl3-38b": 38.4,
    "internvl3-78b": 78.4,
    "internvl3.5-1b": 1.06,
    "internvl3.5-2b": 2.35,
    "internvl3.5-4b": 4.73,
    "8b": 8.53,
    "internvl3.5-14b": 15.1,
    "internvl3.5-38b": 38.4,
}


def shrunk(config):
    """``config`` with narrow layers and a small vision tower; numbers of layers, heads and key groups stay."""
    text, vision = config.text_config, config.vision_config
    heads, kind = text.num_attention_heads, config.model_type
    text.vocab_size, text.intermediate_size = FIRST_WORD + WORDS, 16
    # Qwen2-VL's head size is its width through its heads; the others' may be larger.
    text.hidden_size = 8 * heads if kind in ("qwen2_vl", "qwen2_5_vl") else 32
    if kind == "internvl":
        text.head_dim = 8
        vision.hidden_size, vision.intermediate_size, vision.num_attention_heads = 16, 16, 2
        vision.num_hidden_layers, vision.image_size, config.image_seq_length = 1, [56, 56], 4
        return config
    text.head_dim = 8
    text.rope_parameters["mrope_section"] = [2, 1, 1]
    vision.depth, vision.num_heads, vision.intermediate_size = 3, 2, 16
    if kind == "qwen2_vl":
        vision.embed_dim, vision.hidden_size = 16, text.hidden_size
    else:
        vision.hidden_size, vision.out_hidden_size = 16, text.hidden_size
    if kind == "qwen3_vl":
        vision.deepstack_visual_indexes = [0, 1, 2]  # three, as in every size
        vision.num_position_embeddings = 64
    if kind == "qwen2_5_vl":
        vision.fullatt_block_indexes = [1]
    return config


def model_of(family, model_class, config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1:
                    # Attention is far from even, and eighty layers do not amplify rounding errors.
                    scale = 1.3 if "q_proj" in name or "k_proj" in name else 0.7
                    parameter.normal_(std=scale * parameter[0].numel() ** -0.5)
    model.set_attn_implementation("sdpa")
    return LoadedLVLM("random", None, family, model, None, None, (EOS,), PAD)


def prompt_of(lvlm):
    picture = lvlm.adapter.random_picture(lvlm.hf_model.config, IMAGE_TOKENS, torch.Generator().manual_seed(0))
    ids = [BOS, VISION_START, *[IMAGE] * picture.tokens, VISION_END, *range(FIRST_WORD, FIRST_WORD + TEXT)]
    input_ids = torch.tensor([ids])
    found = lvlm.adapter.layout(lvlm.hf_model, input_ids, picture.vision)
    return Prompt(
        phrase="key",
        input_ids=input_ids,
        position_ids=found.position_ids,
        vision=picture.vision,
        map_slice=found.map_slice,
        grid=found.grid,
        image_size=(64, 48),
        frame_size=found.frame_size,
    )


def forward(lvlm, prompt, answer):
    """Logits (T, V) and attention (L, K, T, S) of a full eager forward of the stock model."""
    answer = torch.tensor([answer], dtype=torch.long)
    ids = torch.cat([prompt.input_ids, answer], dim=1)
    is_image = (ids == IMAGE).int()
    own = {} if lvlm.family == "internvl" else {"mm_token_type_ids": is_image}
    lvlm.hf_model.set_attn_implementation("eager")
    try:
        with torch.no_grad():  # positions are the model's own
            out = lvlm.hf_model(input_ids=ids, output_attentions=True, **own, **prompt.vision)
    finally:
        lvlm.hf_model.set_attn_implementation("sdpa")
    return out.logits[0], torch.stack(out.attentions)[:, 0]


def check_against_the_stock_model(lvlm):
    prompt = prompt_of(lvlm)
    greedy = greedy_response(lvlm, prompt, max_new_tokens=6, speculation=False)
    (written,) = greedy.response_ids
    logits, _ = forward(lvlm, prompt, written)
    torch.testing.assert_close(prefill(lvlm, [prompt]).logits[0], logits[prompt.length - 1], atol=1e-4, rtol=1e-4)
    best = logits[prompt.length - 1 :].argmax(-1).tolist()
    assert list(written) == best[: len(written)] and len(written) >= 3
    assert len(written) == 6 or best[len(written)] == EOS

    forced = [[FIRST_WORD + k for k in (3, 1, 4, 1, 5, 9, 2)], [FIRST_WORD + k for k in (2, 7, 1, 8, 2)]]
    samples = sample_responses(lvlm, prompt, SamplingConfig(num_samples=2, speculation=False), forced=forced)
    candidates = [Candidate(Box(0, 0, 1, 1), "", r, 0, places) for r, places in enumerate([(0, 2, 5, 6), (0, 1, 3, 4)])]
    record = capture(lvlm, prompt, samples, candidates, AttentionNeeds(maps=True, all_entropies=True))
    for candidate, maps, found in zip(candidates, record.maps, record.entropy, strict=True):
        _, attention = forward(lvlm, prompt, forced[candidate.response])
        at = [prompt.length - 1 + token for token in candidate.coordinate_tokens]
        expected = attention[:, :, at, slice(*prompt.map_slice)].permute(2, 0, 1, 3).unflatten(-1, prompt.grid).numpy()
        assert maps.shape == (4, lvlm.num_layers, lvlm.num_heads, *prompt.grid)
        assert np.abs(maps - expected).max() < 1e-5
        assert np.abs(found - entropy(expected)).max() < 1e-4
        assert expected.max() > 2 * expected.mean()  # the weights compared are far from even


@pytest.mark.parametrize("name", [name for name in shapes() if name != "small"])
def test_a_model_of_the_size_is_read_as_the_stock_model_reads_it(name):
    family, shape = shapes()[name]
    published = shape.config().text_config
    config = shrunk(shape.config())
    lvlm = model_of(family, shape.model_class, config)
    assert (lvlm.num_layers, lvlm.num_heads) == (published.num_hidden_layers, published.num_attention_heads)
    layer = lvlm.text_model.layers[0].self_attn
    assert layer.num_key_value_groups == published.num_attention_heads // published.num_key_value_heads
    check_against_the_stock_model(lvlm)


def test_an_internvl_with_the_layout_of_llama():
    """InternVL3-9B and some of InternVL2.5."""
    family = FAMILIES["internvl"]
    config = shrunk(internvl_config("300m", "llama", 12, 32, 2, 4096, 10240))
    check_against_the_stock_model(model_of(family, shapes()["8b"][1].model_class, config))


@pytest.mark.parametrize(("name", "billions"), PUBLISHED.items())
def test_the_sizes_have_as_many_parameters_as_published(name, billions):
    shape = shapes()[name][1]
    config = shape.config()
    with torch.device("meta"):
        model = shape.model_class(config)
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(billions, rel=0.005)
    # The small sizes of Qwen share their output weights with the embeddings, which counts them once.
    shared = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert shared == (name in ("qwen2-vl-2b", "qwen3-vl-2b", "qwen3-vl-4b"))


def test_every_size_has_been_compared():
    assert set(PUBLISHED) == set(shapes()) - {"small"}


def test_deepstack_features_and_the_axes_of_the_rope_matter(monkeypatch):
    """The comparison above could not see what leaves the answer alone."""
    family, shape = shapes()["qwen3-vl-2b"]
    lvlm = model_of(family, shape.model_class, shrunk(shape.config()))
    prompt = prompt_of(lvlm)
    before = prefill(lvlm, [prompt]).logits[0]
    sides = replace(prompt, position_ids=prompt.position_ids[[0, 2, 1]])
    assert (prefill(lvlm, [sides]).logits[0] - before).abs().max() > 1e-2
    monkeypatch.setattr(type(lvlm.text_model), "_deepstack_process", lambda self, hidden, *_: hidden)
    assert (prefill(lvlm, [prompt]).logits[0] - before).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["gpt_oss", "qwen3_moe", "internlm3"])
def test_an_internvl_with_another_language_model_is_refused_before_its_weights(model_folders, tmp_path, kind):
    folder = tmp_path / "model"
    folder.mkdir()
    config = json.loads((model_folders["internvl"] / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"text_config": {"model_type": kind}}))
    message = f"language model '{kind}' is not supported: .* one of {', '.join(TEXT_MODELS)}, such as InternVL3_5-8B-HF"
    with pytest.raises(ModelError, match=message):
        load_lvlm(folder, device="cpu")


@pytest.mark.parametrize("kind", ["qwen3_vl_moe", "llava"])
def test_the_error_of_an_unknown_family_says_what_a_new_one_takes(tmp_path, kind):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(ModelError, match=f"'{kind}' is not supported: use one of internvl, .*CONTRIBUTING"):
        load_lvlm(tmp_path, device="cpu")


def test_the_flat_configuration_of_qwen2_vl_on_the_hub(model_folders, tmp_path, picture):
    """There the language model's fields are at the top, the rope is of type "mrope", and the image processor has a
    least and a largest number of pixels."""
    folder = shutil.copytree(model_folders["qwen2_vl"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    for key in ("model_type", "layer_types", "dtype"):
        text.pop(key, None)
    config |= text | {"rope_theta": rope["rope_theta"]}
    config["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    config["vision_config"] |= {"model_type": "qwen2_vl", "in_chans": 3, "spatial_patch_size": 14}
    (folder / "config.json").write_text(json.dumps(config))
    processor = json.loads((folder / "processor_config.json").read_text())
    image = processor.pop("image_processor")
    limits = image.pop("size")
    image |= {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor"}
    image |= {"min_pixels": limits["shortest_edge"], "max_pixels": limits["longest_edge"]}
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
    (folder / "processor_config.json").unlink()

    hub, own = (load_lvlm(f, device="cpu") for f in (folder, model_folders["qwen2_vl"]))
    assert (hub.num_layers, hub.num_heads) == (own.num_layers, own.num_heads) == (3, 4)
    prompts = [lvlm.prepare(picture, "key") for lvlm in (hub, own)]
    assert torch.equal(prompts[0].input_ids, prompts[1].input_ids) and prompts[0].grid == prompts[1].grid
    answers = [
        greedy_response(lvlm, p, max_new_tokens=12).response_ids for lvlm, p in zip((hub, own), prompts, strict=True)
    ]
    assert answers[0] == answers[1]


def test_every_family_says_where_its_frame_of_coordinates_is_published(repo):
    page = (repo / "docs" / "real_models.md").read_text()
    for name, family in FAMILIES.items():
        assert family.frame in (RELATIVE, RESIZED) and family.frame_source.startswith("https://")
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert f"]({family.frame_source})" in row
        assert ("0-1000" in row) == (family.frame == RELATIVE)


def test_the_page_names_every_size(repo):
    page = (repo / "docs" / "real_models.md").read_text()
    for name in PUBLISHED:
        assert re.search(rf"`{re.escape(name)}`", page), name
