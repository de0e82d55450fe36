"""How often a call waits for the device, whatever its size; and results that stay there until they are read."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_models
import torch
from host_reads import Watched, taken, watched, watched_embeddings

from acs_core.attention import AttentionNeeds, AttentionRecord, capture
from acs_core.device_array import held, upload
from acs_core.generation.candidates import find_candidates
from acs_core.generation.generate import generate
from acs_core.generation.prefill import prefill
from acs_core.generation.token_sampler import TeacherForcing
from acs_core.lvlm import load_lvlm
from acs_core.selection.acs_learned import AcsLearned
from acs_core.selection.regressor import AttentionIoURegressor

ANSWER = '[{{"bbox_2d": [1, 2, 30, 4{more}], "label": "key"}}]'


@pytest.fixture(scope="module", params=["internvl", "qwen2_5_vl"])
def deep(request, tmp_path_factory, model_folders):
    """A model, and one with twice as many layers."""
    folder = tiny_models.SAVERS[request.param](tmp_path_factory.mktemp("deep"), layers=6)
    return [load_lvlm(path, device="cpu") for path in (model_folders[request.param], folder)]


def waits(lvlm, picture, more="", rows=3):
    """Where the stages of a call wait for the device, and the number of selections of tokens."""
    prompt = watched(lvlm.prepare(picture, "key"))
    assert prompt.token_ids and prompt.next_position and taken() == []
    ids = lvlm.tokenizer(ANSWER.format(more=more), add_special_tokens=False)["input_ids"]
    forced = TeacherForcing([ids] * rows, lvlm.eos_ids[0])
    found = {}
    with watched_embeddings(lvlm):
        state = prefill(lvlm, [prompt])
        found["prefill"] = taken()
        (samples,) = generate(lvlm, state, forced, rows, len(ids) + 1, token_statistics=True)
        found["sampling"] = taken()
    candidates, _ = find_candidates(lvlm, prompt, samples)
    record = capture(lvlm, prompt, samples, candidates, AttentionNeeds(maps=True, all_entropies=True))
    found["attention"] = taken()
    assert len(record.entropy) == rows
    found["entropies"] = taken()
    assert isinstance(held(record, "maps"), Watched)  # nobody has read them
    selector = AcsLearned(AttentionIoURegressor(lvlm.num_layers, lvlm.num_heads), prompt.grid)
    assert len(selector.qualities(candidates, record, prompt.image_size)) == rows
    found["selection"] = taken()
    return found, len(ids) + 1


def test_waits_do_not_depend_on_the_size_of_the_answer(lvlm, picture):
    found, selections = waits(lvlm, picture)
    assert len(found["sampling"]) == selections  # each looks at its tokens once
    assert [len(found[stage]) for stage in ("attention", "entropies", "selection")] == [1, 1, 1]
    # Sizes of the windows and of the image, its tokens counted twice, and twice what the mask hides.
    assert len(found["prefill"]) <= (2 if lvlm.family == "internvl" else 8), found["prefill"]
    more, others = waits(lvlm, picture, more="567", rows=5)
    assert others > selections
    assert {s: len(r) for s, r in more.items() if s != "sampling"} == {
        s: len(r) for s, r in found.items() if s != "sampling"
    }


def test_waits_do_not_depend_on_the_number_of_layers(deep, picture):
    few, many = (waits(lvlm, picture)[0] for lvlm in deep)
    assert deep[1].num_layers == 2 * deep[0].num_layers
    assert {s: len(r) for s, r in few.items()} == {s: len(r) for s, r in many.items()}


def record_of(values, of=lambda array: array):
    entropy = np.arange(values * 8, dtype=np.float32).reshape(values, 4, 1, 2)
    maps = np.arange(values * 32, dtype=np.float32).reshape(values, 4, 1, 2, 2, 2)
    return AttentionRecord(of(entropy), of(maps), (2, 2), num_responses=values)


@pytest.mark.parametrize("index", [[2, 0], [], np.array([True, False, True]), np.array([1])])
def test_tensors_and_arrays_are_handled_alike(index):
    arrays, tensors = record_of(3), record_of(3, torch.from_numpy)
    more = record_of(2, torch.from_numpy)
    pairs = [(arrays, tensors), (arrays.only(index), tensors.only(index)), (arrays.of_responses(9),) * 2]
    joined = tensors.followed_by(more)
    assert isinstance(held(joined, "maps"), torch.Tensor) and isinstance(
        held(tensors.only(index), "maps"), torch.Tensor
    )
    pairs += [(arrays.followed_by(record_of(2)), joined), (arrays.followed_by(more), tensors.followed_by(record_of(2)))]
    for a, b in pairs:
        assert isinstance(b.entropy, np.ndarray) and a.num_responses == b.num_responses
        np.testing.assert_array_equal(a.entropy, b.entropy)
        np.testing.assert_array_equal(a.maps, b.maps)
    assert joined.num_responses == 5 and joined.on_host().maps is joined.maps


def test_a_record_is_an_ordinary_dataclass():
    record = record_of(1, torch.from_numpy)
    assert replace(record, maps=None).maps is None and record.maps.shape == (1, 4, 1, 2, 2, 2)
    assert record.maps is record.maps and record.device_bytes == 0
    with pytest.raises(AttributeError):
        record.entropy = np.zeros(1)


def test_upload_takes_numbers_and_tensors():
    assert upload([[1, 2], [3, 4]], torch.device("cpu")).tolist() == [[1, 2], [3, 4]]
    rows = torch.ones(2)
    assert upload(rows, torch.device("cpu")) is rows
