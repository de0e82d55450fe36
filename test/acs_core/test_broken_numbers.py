"""Numbers that are none, wherever they come in: an error that names them, and never a score."""

import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from grounder_parts import ANSWERS, IMAGE
from safetensors.torch import load_file, save_file

from acs_core.attention import AttentionNeeds, AttentionRecord, capture
from acs_core.errors import ModelError, NonFiniteError
from acs_core.generation.candidates import find_candidates
from acs_core.generation.decoding import EagerDecoder
from acs_core.generation.generate import generate
from acs_core.generation.prefill import prefill
from acs_core.generation.sample import greedy_response, sample_each, sample_responses
from acs_core.generation.token_sampler import GreedySampler, TeacherForcing, TopPSampler
from acs_core.geometry import Box
from acs_core.grounder import Grounder
from acs_core.lvlm import load_lvlm
from acs_core.lvlm.checks import check_pixel_scale, check_weights
from acs_core.selection.scorer import Scorer
from acs_core.types import BROKEN, Candidate, Outcome, Response, SamplingConfig

SELECTORS = ("acs-free", "acs-learned", "acs-fusion", "greedy", "token-entropy", "majority-vote", "smallest")


@pytest.fixture
def spoiled():
    """Sets a value of a tensor, and puts back what was there."""
    kept = []

    def spoil(tensor, value, place=0):
        kept.append((tensor, tensor.detach().clone()))
        with torch.no_grad():
            tensor.view(-1)[place] = value

    yield spoil
    for tensor, before in kept:
        with torch.no_grad():
            tensor.copy_(before)


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_weight_of_the_model_is_named(grounders, spoiled, selector, value):
    grounder = grounders(selector)
    spoiled(grounder.lvlm.text_model.norm.weight, value)
    for auto in (False, True):
        sampling = SamplingConfig(seed=1, max_new_tokens=8, auto=auto)
        for result in grounder.ground_many(IMAGE, ["key", "cup"], sampling=sampling, deadline_ms=1e6 if auto else None):
            drawn = len(result.responses)
            whose = "the response" if drawn == 1 else f"all {drawn} responses"
            assert result.reason == f"no box in {whose}: {BROKEN}"
            assert (result.detections, result.candidates) == ((), ())
            assert {r.problem for r in result.responses} == {BROKEN}
            assert result.skipped == (f"sampling ended early: {BROKEN}",)


def test_what_draws_without_a_schedule_raises(state, spoiled):
    lvlm, read = state
    spoiled(lvlm.text_model.norm.weight, float("nan"))
    prompt, config = read.prompts[0], SamplingConfig(num_samples=2, max_new_tokens=4, seed=1)
    for call in (
        lambda: sample_responses(lvlm, prompt, config),
        lambda: sample_responses(lvlm, prompt, config, forced=[[5], [6]]),
        lambda: greedy_response(lvlm, prompt, 4),
        lambda: sample_each(lvlm, [prefill(lvlm, [prompt])], config, [1]),
    ):
        with pytest.raises(NonFiniteError, match=f"{BROKEN}; try float32"):
            call()


def test_a_wave_that_breaks_takes_the_earlier_ones_along(state):
    lvlm, read = state
    good = generate(lvlm, read, TeacherForcing([lvlm.tokenizer(ANSWERS[0])["input_ids"]], lvlm.eos_ids[0]), 1, 80)[0]
    prompt = read.prompts[0]
    assert find_candidates(lvlm, prompt, good)[0]
    for both in (good.extended(replace(good, broken=True)), replace(good, broken=True).extended(good)):
        candidates, responses = find_candidates(lvlm, prompt, both)
        assert candidates == () and [(r.num_boxes, r.problem) for r in responses] == [(0, BROKEN)] * 2


def test_a_second_look_that_breaks_leaves_no_score(grounders):
    scorer = Scorer(grounders("acs-free").selector, None)
    seen = [Candidate(Box(0, 0, 9, 9), "", 0, 0, (0, 1, 2, 3), score=0.9, outcome=Outcome.SELECTED)]
    record = AttentionRecord(np.ones((1, 4, 3, 4), np.float32), None, (3, 3))
    responses = [Response("[]", 1, True), Response("", 0, False, BROKEN)]
    decision = scorer.decide(seen, responses, record, (20, 20), looked_again=True)
    assert decision.detections == () and decision.reason == BROKEN
    assert [(c.outcome, c.reason) for c in decision.candidates] == [(Outcome.OUTRANKED, BROKEN)]


@pytest.mark.parametrize("selector", ["acs-free", "acs-learned", "acs-fusion"])
def test_attention_that_is_no_number_is_named(grounders, answers, monkeypatch, selector):
    """The logits are good: the keys alone were lost."""
    answers(*ANSWERS)
    grounder = grounders(selector)
    monkeypatch.setattr("acs_core.attention.across", lambda query, keys: query @ keys * float("nan"))
    with pytest.raises(NonFiniteError, match="the model gave NaN attention: its weights or the dtype are broken"):
        grounder.ground(IMAGE, "key", sampling=SamplingConfig(seed=1))


@pytest.fixture
def state(grounders):
    lvlm = grounders().lvlm
    return lvlm, prefill(lvlm, [lvlm.prepare(IMAGE, "key")])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e31])
@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("sampler", ["greedy", "top-p", "forced"])
def test_one_broken_logit_is_enough(state, value, place, sampler):
    lvlm, read = state
    logits = read.logits[0].clone()
    logits[place] = value
    read = replace(read, logits=(logits,))
    config = SamplingConfig(num_samples=2, max_new_tokens=4, seed=1)
    chosen = {
        "greedy": GreedySampler(),
        "top-p": TopPSampler.of(config, [1], range(2)),
        "forced": TeacherForcing([[5, 6], [5, 6]], lvlm.eos_ids[0]),
    }[sampler]
    (written,) = generate(lvlm, read, chosen, 2, 4)
    assert written.broken and written.response_ids == ((), ())


def test_all_logits_of_minus_infinity_are_broken_and_one_is_not(state):
    lvlm, read = state
    for broken in (True, False):
        logits = read.logits[0].clone()
        logits[slice(None) if broken else 0] = -torch.inf
        given = replace(read, logits=(logits,))
        assert generate(lvlm, given, GreedySampler(), 1, 2)[0].broken == broken


def test_only_logits_that_a_response_needs_are_judged(state, monkeypatch):
    """Those after a draft that was refused, and those of a response that has ended, are not."""
    lvlm, read = state

    class Drafts:
        def draft(self, ids, phrase, most):
            return [7, 8][:most] if len(ids) == 1 else []

        def learn(self, *_):
            pass

    class Steps(EagerDecoder):
        def advance(self, tokens):
            logits = super().advance(tokens)
            assert 0 not in tokens  # the first row ended at once
            logits[1:] = float("nan")
            return logits

    monkeypatch.setattr("acs_core.generation.generate.make_decoder", lambda lvlm, state, n, _: Steps(lvlm, state, n))
    for second, broken in ((6, False), (7, True)):
        draw = TeacherForcing([[], [5, second]], lvlm.eos_ids[0])
        (written,) = generate(lvlm, read, draw, 2, 3, drafts=Drafts())
        assert written.broken == broken
        assert written.response_ids == ((), (5,) if broken else (5, 6))


def test_a_coordinate_that_reads_broken_keys_is_named(state):
    lvlm, _ = state
    written = sample_responses(
        lvlm, lvlm.prepare(IMAGE, "key"), SamplingConfig(num_samples=1, max_new_tokens=6, seed=2)
    )
    prefix = written.state.prefix
    with torch.inference_mode():
        prefix.keys[1][0, 3] = float("nan")
    candidate = Candidate(Box(0, 0, 9, 9), "", 0, 0, (0, 1, 2, 3))
    for needs in (AttentionNeeds(maps=True), AttentionNeeds(all_entropies=True)):
        with pytest.raises(NonFiniteError, match="NaN attention"):
            capture(lvlm, written.state.prompts[0], written, [candidate], needs)


@pytest.fixture(params=["internvl", "qwen2_5_vl"])
def copied(request, model_folders, tmp_path):
    return shutil.copytree(model_folders[request.param], tmp_path / "model")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (float("nan"), "holds NaN or infinite values: get the files again"),
        (float("-inf"), "holds NaN or infinite values"),
        (3e38, r"holds values up to 3e\+38: get the files again"),
    ],
)
def test_broken_weights_are_refused_when_the_model_is_loaded(copied, value, says):
    file = copied / "model.safetensors"
    tensors = load_file(file)
    name = sorted(n for n in tensors if "mlp" in n)[0]
    tensors[name].view(-1)[-1] = value
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=says) as caught:
        load_lvlm(copied, device="cpu")
    assert re.search(r"the weight \S+mlp\S+ holds", str(caught.value))


def test_weights_that_overflow_in_the_wanted_dtype_are_refused(copied):
    file = copied / "model.safetensors"
    tensors = load_file(file)
    name = sorted(n for n in tensors if "mlp" in n)[0]
    tensors[name].view(-1)[0] = 1e5
    save_file(tensors, file, metadata={"format": "pt"})
    load_lvlm(copied, device="cpu", dtype="float32")
    with pytest.raises(ModelError, match="or, if they are right, use another dtype"):
        load_lvlm(copied, device="cpu", dtype="float16")


def test_quantised_and_empty_weights_are_not_judged():
    weights = {"a": torch.tensor([255], dtype=torch.uint8), "b": torch.zeros(0), "c": torch.ones(2, device="meta")}
    check_weights(SimpleNamespace(named_parameters=weights.items))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_every_dtype_are_judged(dtype):
    weights = {"a": torch.tensor([0.5, float("nan")], dtype=dtype)}
    with pytest.raises(ModelError, match="the weight a holds NaN"):
        check_weights(SimpleNamespace(named_parameters=weights.items))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_std", [0.5, 0.0, 0.5]),
        ("image_std", [0.5, -0.5, 0.5]),
        ("image_std", [0.5, float("nan"), 0.5]),
        ("image_mean", [0.5, float("inf"), 0.5]),
        ("image_mean", [1e300, 0.5, 0.5]),
        ("image_mean", ["a", "b", "c"]),
        ("rescale_factor", 0),
        ("rescale_factor", float("nan")),
    ],
)
def test_pixels_that_would_be_no_numbers_are_refused(field, value):
    good = SimpleNamespace(image_mean=[0.5] * 3, image_std=(0.5,) * 3, rescale_factor=1 / 255)
    check_pixel_scale(good)
    setattr(good, field, value)
    with pytest.raises(ModelError, match=f'field "{field}" must hold numbers'):
        check_pixel_scale(good)


def test_a_processor_that_divides_by_zero_is_refused_when_the_model_is_loaded(copied):
    for file in copied.glob("*processor*config.json"):
        data = json.loads(file.read_text())
        for section in (data, data.get("image_processor", {})):
            if "image_std" in section:
                section["image_std"] = [0.0, 0.0, 0.0]
        file.write_text(json.dumps(data))
    with pytest.raises(ModelError, match='field "image_std" must hold numbers above 0'):
        load_lvlm(copied, device="cpu")


@pytest.mark.parametrize("name", ["config.json", "heads.json", "calibration-acs-free.json"])
def test_a_key_that_stands_twice_is_refused_in_every_file_of_a_model(folder, tmp_path, name):
    copy = shutil.copytree(folder, tmp_path / "model")
    text = (copy / name).read_text().lstrip()
    first = next(iter(json.loads(text)))
    (copy / name).write_text(f"{{{json.dumps(first)}: 0, {text[1:]}")
    with pytest.raises(Exception, match=f"the key '{first}' stands twice in one object") as caught:
        Grounder.from_pretrained(copy, device="cpu")
    assert name in str(caught.value)


def test_no_score_comes_out_of_a_selector_that_gives_none(grounders, answers):
    answers(*ANSWERS)
    good = grounders("acs-free", calibration=False)

    class Wild:
        """A selector of somebody else."""

        name, needs, score_kind, feature = "wild", good.selector.needs, good.selector.score_kind, ""
        greedy_decoding = False

        def __init__(self, value):
            self.value = value

        def qualities(self, candidates, record, image_size):
            return np.full(len(candidates), self.value)

        def confidences(self, candidates, record, image_size, qualities):
            return None

    for value, error in ((np.inf, NonFiniteError), (7.0, ValueError)):
        with pytest.raises(error, match="selector wild gave a quality"):
            Grounder(good.lvlm, Wild(value)).ground(IMAGE, "key", sampling=SamplingConfig(seed=1))
