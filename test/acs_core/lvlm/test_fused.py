"""Fused projections compute what the layers compute, with weights that are stored once."""

import numpy as np
import pytest
import torch
from torch import nn

from acs_core.generation.cuda_graph import static_decoder
from acs_core.generation.decoding import CudaGraphDecoder
from acs_core.generation.generate import generate
from acs_core.generation.prefill import prefill
from acs_core.generation.token_sampler import TopPSampler
from acs_core.lvlm import load_lvlm
from acs_core.lvlm.fused import FusedPart, fuse_projections
from acs_core.types import SamplingConfig

KINDS = ["internvl", "internvl-tiles", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"]
CONFIG = SamplingConfig(num_samples=3, max_new_tokens=20, temperature=1.2)


@pytest.fixture(params=KINDS)
def own(request, model_folders):
    """A model of its own, since it is changed."""
    return load_lvlm(model_folders[request.param], device="cpu")


def storages(model):
    """Bytes of the memory behind the parameters, each counted once."""
    return sum({p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}.values())


def test_responses_are_those_of_the_plain_layers(own, picture, monkeypatch):
    """As before a recording: the option of the step fuses, and what is read and written stays."""

    def ask():
        state = prefill(own, [own.prepare(picture, "key")])
        sampler = TopPSampler.of(CONFIG, [4], range(3))
        return state.logits[0], generate(own, state, sampler, 3, 20, token_statistics=True)[0]

    def steps(lvlm, state, n, limit):
        return CudaGraphDecoder(static_decoder(lvlm, state, n, limit), state)

    monkeypatch.setattr("acs_core.generation.generate.make_decoder", steps)
    names, stored = {name: p.clone() for name, p in own.hf_model.state_dict().items()}, storages(own.hf_model)
    logits, plain = ask()
    assert not any(isinstance(m, FusedPart) for m in own.hf_model.modules())
    own.graphs.kept.clear()
    own.graphs.fused = True
    ask()
    fused_logits, fused = ask()
    assert sum(isinstance(m, FusedPart) for m in own.hf_model.modules()) == 5 * own.num_layers
    torch.testing.assert_close(fused_logits, logits, atol=1e-5, rtol=1e-4)
    assert (fused.response_ids, fused.finished) == (plain.response_ids, plain.finished)
    for a, b in zip(fused.token_logprob, plain.token_logprob, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    now = own.hf_model.state_dict()
    assert now.keys() == names.keys() and all(torch.equal(now[name], value) for name, value in names.items())
    assert storages(own.hf_model) == stored
    assert fuse_projections(own.text_model) == 0  # nothing is left


class Quantised(nn.Linear):
    """Stands in for a layer whose weights are packed."""


def block(**changed):
    made = nn.Module()
    for name in ("q_proj", "k_proj", "v_proj"):
        setattr(made, name, changed.get(name, nn.Linear(4, 6 if name == "q_proj" else 2)))
    return made


@pytest.mark.parametrize(
    "layer", [Quantised(4, 2), nn.Linear(4, 2, bias=False), nn.Linear(4, 2, dtype=torch.float64), nn.Identity(), "hook"]
)
def test_other_layers_stay_as_they_are(layer):
    if layer == "hook":
        layer = nn.Linear(4, 2)
        layer.register_forward_hook(lambda *_: None)
    made = block(k_proj=layer)
    assert fuse_projections(made) == 0 and made.k_proj is layer and type(made.q_proj) is nn.Linear


def test_a_part_that_gets_another_input_computes_its_own():
    made = block()
    x, y = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    with torch.inference_mode():
        expected = [made.q_proj(x), made.k_proj(y), made.v_proj(x), made.k_proj(x)]
        assert fuse_projections(made) == 1
        found = [made.q_proj(x), made.k_proj(y), made.v_proj(x), made.k_proj(x)]
        again = made.k_proj(x)  # taken already
    for a, b in zip([*found, again], [*expected, expected[-1]], strict=True):
        torch.testing.assert_close(a, b)
    assert made.q_proj._together._input is None
