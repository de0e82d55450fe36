"""Both architectures against transformers' own processors and acs's own adapters."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hub_parts import add_to_cache, use_cache
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tiny_parts import ARCHES, NAMES, SQUARE, WIDE, small_arch, small_model, turns_of
from transformers import AutoModelForImageTextToText, AutoProcessor

from acs_core.artifacts.registry import ASSETS
from acs_core.lvlm import load_lvlm
from training.errors import DataError
from training.tiny.arch import load_weights, save
from training.tiny.arches import make_arch
from training.tiny.questions import QuestionMaker

VIDEO_PROCESSORS = {"internvl": "InternVLVideoProcessor", "qwen2_5_vl": "Qwen2VLVideoProcessor"}
LEVEL = 1.01 / 255 / 0.224  # a grey level, once normalised: what resizing may round otherwise


def save_small(arch, folder):
    save(arch, *small_model(arch), folder)


def noise(size, count=1):
    return np.random.default_rng(0).integers(0, 256, (count, size[1], size[0], 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ARCHES)
@pytest.mark.parametrize("size", [SQUARE, WIDE, (250, 131)])
def test_training_sees_what_a_grounding_call_sees(name, size, tmp_path):
    """Token ids, rope positions and pixels of a question are those that acs_core makes from the saved folder."""
    arch = small_arch(name)
    model, processor = small_model(arch)
    save(arch, model, processor, tmp_path)
    lvlm = load_lvlm(tmp_path, device="cpu")
    picture = cv2.GaussianBlur(noise(size)[0], (0, 0), 2)[None]  # clipping within a resize has nothing to clip
    prompt = lvlm.prepare(picture[0], "teddy bear")
    maker = QuestionMaker(arch, model, processor, NAMES, size)
    turns = turns_of(maker, [()], [["teddy bear"]])
    assert turns.ids[0, : prompt.length].tolist() == prompt.input_ids[0].tolist()
    assert torch.equal(turns.positions[..., : prompt.length], prompt.position_ids)
    assert turns.image == prompt.map_slice and arch.grid(*size) == prompt.grid
    assert tuple(arch.frame(*size)) == tuple(prompt.frame_size)
    for key, made in arch.vision_inputs(torch.from_numpy(picture)).items():
        torch.testing.assert_close(made.float(), prompt.vision[key].float(), atol=LEVEL, rtol=0)


@pytest.mark.parametrize("name", ARCHES)
def test_image_tokens_come_in_the_order_of_the_pictures(name):
    arch = small_arch(name)
    model, _ = small_model(arch)
    pictures = noise(SQUARE, 3)
    together = arch.image_tokens(model, torch.from_numpy(pictures))
    rows, columns = arch.grid(*SQUARE)
    assert together.shape == (3, rows * columns, arch.size.width)
    alone = torch.cat([arch.image_tokens(model, torch.from_numpy(p[None])) for p in pictures])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ARCHES)
def test_shipped_sizes_stay_below_eight_megabytes(name):
    arch = make_arch(name)
    model, _ = small_model(arch)
    assert sum(p.numel() for p in model.parameters()) * 2 < 7.95e6  # half precision, and the header
    assert arch.grid(360, 360) == {"internvl": (12, 12), "qwen2_5_vl": (10, 10)}[name]
    assert arch.grid(480, 270) == {"internvl": (12, 12), "qwen2_5_vl": (7, 13)}[name]


def test_a_model_that_cannot_be_written_is_an_error_of_the_system(tmp_path, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full)
    with pytest.raises(OSError, match="No space left on device") as refused:
        save_small(small_arch("internvl"), tmp_path)
    assert refused.value.filename == str(tmp_path / "model.safetensors")


def test_whoever_may_read_the_configuration_may_read_the_weights(tmp_path):
    before = os.umask(0o022)
    try:
        save_small(small_arch("internvl"), tmp_path)
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o644}


@pytest.mark.parametrize("name", ARCHES)
def test_a_saved_folder_loads_with_transformers(name, tmp_path):
    arch = small_arch(name)
    model, processor = small_model(arch)
    save(arch, model, processor, tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype="float32")
    for key, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ARCHES)
@pytest.mark.parametrize("size", [(640, 480), (333, 127), (90, 400), (224, 224)])
def test_a_box_in_a_picture_of_any_size_comes_back(name, size, tmp_path):
    """What a right answer would state in the model's frame is the box in the picture, to the rounding."""
    save_small(small_arch(name, image_size=360), tmp_path)
    lvlm = load_lvlm(tmp_path, device="cpu")
    prompt = lvlm.prepare(noise(size)[0], "key")
    tokens = prompt.map_slice[1] - prompt.map_slice[0]
    assert prompt.grid[0] * prompt.grid[1] == tokens <= 144 and prompt.image_size == size
    x, y = size[0] * 0.3, size[1] * 0.6
    scale = (prompt.frame_size[0] / size[0], prompt.frame_size[1] / size[1]) * 2
    stated = tuple(round(v * s) for v, s in zip((x, y, x + 20, y + 10), scale, strict=True))
    back = lvlm.to_pixels(prompt, stated)
    slack = max(0.51 / s for s in scale)
    assert np.abs(np.array(back.as_tuple()) - (x, y, x + 20, y + 10)).max() <= slack


@pytest.mark.parametrize("name", ARCHES)
@pytest.mark.parametrize("cell", [(0, 3), (2, 1)])
def test_an_image_token_shows_its_own_part_of_the_picture(name, cell):
    """Rows are rows: pixels of token (row, column) change that token most."""
    arch = small_arch(name)
    model, _ = small_model(arch)
    plain = np.full((1, 120, 120, 3), 128, np.uint8)
    marked = plain.copy()
    r, c = cell
    marked[:, 30 * r : 30 * r + 30, 30 * c : 30 * c + 30] = noise((30, 30))
    tokens = [arch.image_tokens(model, torch.from_numpy(p))[0] for p in (plain, marked)]
    moved = (tokens[1] - tokens[0]).norm(dim=-1)
    assert int(moved.argmax()) == 4 * r + c


@pytest.mark.parametrize("name", ARCHES)
def test_auto_processor_loads_a_saved_folder(name, tmp_path):
    pytest.importorskip("torchvision", reason="AutoProcessor needs torchvision", exc_type=Exception)
    save_small(small_arch(name), tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    made = loaded(images=[noise(SQUARE)[0]], text=loaded.image_token, return_tensors="pt")
    assert int((made["input_ids"] == loaded.image_token_id).sum()) == 16


@pytest.mark.parametrize("name", ARCHES)
def test_a_saved_folder_describes_the_video_half_that_auto_processor_asks_for(name, tmp_path):
    save_small(small_arch(name), tmp_path)
    described = json.loads((tmp_path / "video_preprocessor_config.json").read_text())
    pictures = json.loads((tmp_path / "processor_config.json").read_text())["image_processor"]
    assert described["video_processor_type"] == VIDEO_PROCESSORS[name] and described["size"] == pictures["size"]


def test_the_shipped_weights_are_small():
    sizes = [file.stat().st_size for file in ASSETS.glob("*/*.safetensors")]
    assert sizes and max(sizes) <= 8_000_000


def test_an_unknown_architecture_names_the_known():
    with pytest.raises(ValueError, match="internvl, qwen2_5_vl"):
        make_arch("llava")


def pickled(folder):
    """Weights as a pickle, which runs code when it is read."""
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()


def drop_a_tensor(folder):
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in weights if "mlp" in name))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def set_nan(folder):
    weights = load_file(folder / "model.safetensors")
    next(iter(weights.values())).flatten()[0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def ask_for_code(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "own.Model"}}))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    arch = small_arch("internvl")
    save_small(arch, folder)
    return arch, folder


def write_vocabulary(folder, vocabulary):
    (folder / "tokenizer.json").write_text(f'{{"model": {{"vocab": {vocabulary}}}}}')


def build_tokenizer_of(arch, names=NAMES):
    return arch.build_processor(names).tokenizer


def test_a_run_starts_from_the_weights_of_a_folder(saved):
    arch, folder = saved
    model, _ = small_model(arch)
    for weight in model.parameters():
        weight.data.zero_()
    load_weights(model, build_tokenizer_of(arch), folder)
    wanted = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).state_dict()
    assert all(torch.equal(weight, wanted[name]) for name, weight in model.state_dict().items())


def test_words_that_the_first_model_lacks_get_rows_of_their_own(saved):
    """All other words keep theirs, wherever they stand in the new vocabulary."""
    arch, folder = saved
    names = ["anchor", *NAMES]
    model, processor = small_model(arch, names)
    load_weights(model, processor.tokenizer, folder)
    before = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).get_input_embeddings().weight
    after, old = model.get_input_embeddings().weight, build_tokenizer_of(arch).get_vocab()
    assert model.lm_head.weight is after and len(after) == model.config.text_config.vocab_size
    new = processor.tokenizer.get_vocab()
    assert all(torch.equal(after[new[token]], before[row]) for token, row in old.items())
    (anchor,) = (after[row] for token, row in new.items() if token not in old)
    assert not (anchor == before).all(dim=1).any()
    assert ((anchor - before.mean(dim=0)).abs() < 6 * before.std(dim=0)).all()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (pickled, "safetensors"),
        (drop_a_tensor, "lack 1 tensors, such as .*mlp"),
        (set_nan, "is no model to start from"),
        (ask_for_code, "Python code of its own"),
        (lambda folder: (folder / "config.json").unlink(), "is no model to start from"),
        (lambda folder: write_vocabulary(folder, "[3]"), "tokenizer.json holds no vocabulary"),
        (lambda folder: write_vocabulary(folder, '{"a": 999}'), "vocabulary is larger than the embedding"),
        (shutil.rmtree, "is no folder"),
    ],
)
def test_unsafe_and_incomplete_weights_are_not_read(saved, damage, message, tmp_path):
    arch, folder = saved
    damage(shutil.copytree(folder, tmp_path / "copy"))
    model, _ = small_model(arch)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises(DataError, match=message):
        load_weights(model, build_tokenizer_of(arch), tmp_path / "copy")
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_hub_id_is_no_folder_to_start_from(saved, tmp_path, monkeypatch):
    """Also of a model that is in the local cache of the hub."""
    arch, folder = saved
    add_to_cache(use_cache(monkeypatch, tmp_path), "somebody/model", folder)
    with pytest.raises(DataError, match="somebody/model is no folder"):
        load_weights(small_model(arch)[0], build_tokenizer_of(arch), Path("somebody/model"))
