"""Windows of one size at once give what one window after the other gives."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from acs_core.generation.prefill import prefill
from acs_core.generation.vision_windows import WindowSizes, batched_windows

# Merged tokens: whole windows only, a narrow last column, and smaller ones at both edges.
SIZES = [(112, 112), (112, 140), (84, 140)]


def features(lvlm, prompt):
    """What the vision tower makes of a picture, one tensor per output."""
    with torch.inference_mode():
        out = lvlm.hf_model.model.get_image_features(**prompt.vision)
    found = [out.pooler_output] if isinstance(out.pooler_output, torch.Tensor) else list(out.pooler_output)
    return [*found, *(getattr(out, "deepstack_features", None) or [])]


@pytest.mark.parametrize("size", SIZES)
def test_features_are_those_of_single_windows(lvlm, size, monkeypatch):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    prompt = lvlm.prepare(picture, "key")
    calls = []
    real = functional.scaled_dot_product_attention
    monkeypatch.setattr(
        functional, "scaled_dot_product_attention", lambda *args, **kw: calls.append(len(args[0])) or real(*args, **kw)
    )
    plain = features(lvlm, prompt)
    single = len(calls)
    calls.clear()
    with batched_windows(lvlm):
        batched = features(lvlm, prompt)
    for a, b in zip(plain, batched, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    assert lvlm.hf_model.config.vision_config._attn_implementation == "sdpa"
    if lvlm.family == "qwen2_5_vl":  # one layer of windows, one that attends to everything
        rows, columns = prompt.grid
        windows = -(-rows // 2) * -(-columns // 2)
        sizes = {min(2, rows - i) * min(2, columns - j) for i in range(0, rows, 2) for j in range(0, columns, 2)}
        assert single == windows + 1 and len(calls) == len(sizes) + 1 < single and sum(calls) == windows + 1
    else:
        assert len(calls) == single


def test_a_forward_uses_them_and_leaves_the_model_as_it_was(lvlm, picture, monkeypatch):
    if lvlm.family != "qwen2_5_vl":
        pytest.skip("no windows")
    asked = []
    real = WindowSizes.batches
    monkeypatch.setattr(WindowSizes, "batches", lambda self, edges: asked.append(1) or real(self, edges))
    prefill(lvlm, [lvlm.prepare(picture, "key")])
    assert len(asked) == lvlm.hf_model.config.vision_config.depth
    monkeypatch.setattr(WindowSizes, "batches", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prefill(lvlm, [lvlm.prepare(picture, "key")])
    config = lvlm.hf_model.model.visual.config
    assert config._attn_implementation == "sdpa" and not hasattr(config, "acs_windows")


def test_sizes_are_read_once_per_forward():
    edges = torch.tensor([0, 4, 8, 10, 14, 16])
    sizes = WindowSizes()
    four, two = sizes.batches(edges)
    assert four.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [10, 11, 12, 13]] and two.tolist() == [[8, 9], [14, 15]]
    assert sizes.batches(edges)[0] is four
    assert sizes.batches(torch.tensor([0, 16])) == [None]
