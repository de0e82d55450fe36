from types import SimpleNamespace

import pytest
import torch
from torch import nn

from acs_core.generation.patch_projection import PatchProjection, patches_by_products
from acs_core.lvlm import load_lvlm

KERNEL = (2, 3, 5)


def convolution(**options):
    torch.manual_seed(0)
    return nn.Conv3d(3, 7, KERNEL, **{"stride": KERNEL, **options})


def model_with(layer):
    tower = SimpleNamespace(patch_embed=SimpleNamespace(proj=layer))
    return SimpleNamespace(hf_model=SimpleNamespace(model=SimpleNamespace(visual=tower))), tower.patch_embed


@pytest.mark.parametrize("bias", [True, False])
def test_patches_are_projected_as_by_the_convolution(bias):
    layer = convolution(bias=bias)
    lvlm, embedding = model_with(layer)
    patches = torch.randn(4, 3, *KERNEL)
    with patches_by_products(lvlm):
        assert isinstance(embedding.proj, PatchProjection)
        torch.testing.assert_close(embedding.proj(patches), layer(patches))
    assert embedding.proj is layer


@pytest.mark.parametrize(
    "layer",
    [
        convolution(stride=1),
        convolution(padding=1),
        convolution(dilation=2),
        convolution(stride=(2, 3, 4)),
        nn.Linear(2, 2),
        None,
    ],
)
def test_another_layer_stays(layer):
    lvlm, embedding = model_with(layer)
    with patches_by_products(lvlm):
        assert embedding.proj is layer


def hooked_by_accelerate(layer):
    accelerate = pytest.importorskip("accelerate")
    accelerate.hooks.add_hook_to_module(layer, accelerate.hooks.ModelHook())


@pytest.mark.parametrize(
    "hook",
    [
        lambda layer: layer.register_forward_hook(lambda *_: None),
        lambda layer: layer.register_forward_pre_hook(lambda *_: None),
        lambda layer: setattr(layer, "forward", lambda x: x),
        hooked_by_accelerate,
    ],
)
def test_a_hooked_layer_stays(hook):
    layer = convolution()
    hook(layer)
    lvlm, embedding = model_with(layer)
    with patches_by_products(lvlm):
        assert embedding.proj is layer


def test_a_model_without_such_a_tower_stays():
    model = SimpleNamespace()
    with patches_by_products(SimpleNamespace(hf_model=SimpleNamespace(model=model))):
        assert vars(model) == {}


def test_a_patch_of_another_size_is_refused():
    with pytest.raises(ValueError, match="does not fit a kernel"):
        PatchProjection(convolution())(torch.randn(4, 3, 2, 3, 10))


def test_the_tower_of_the_embedded_qwen_gives_the_same_tokens():
    lvlm = load_lvlm("tiny-qwen2.5-vl")
    embedding = lvlm.hf_model.model.visual.patch_embed
    patches = torch.randn(8, embedding.proj.weight[0].numel())
    with torch.inference_mode():
        wanted = embedding(patches)
        with patches_by_products(lvlm):
            assert isinstance(embedding.proj, PatchProjection)
            torch.testing.assert_close(embedding(patches), wanted)
