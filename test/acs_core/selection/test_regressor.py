import numpy as np
import pytest
import torch
from tensor_parts import IDENTITY, FakeModel, maps, rewrite, trained

from acs_core.artifacts.identity import ModelIdentity
from acs_core.errors import RegressorError
from acs_core.selection.regressor import AttentionIoURegressor, load_regressor, save_regressor


@pytest.fixture
def path(tmp_path):
    target = tmp_path / "regressor.safetensors"
    save_regressor(target, trained(), IDENTITY, (8, 8), "by a test")
    return target


@pytest.mark.parametrize(
    ("layers", "heads", "total", "first"), [(28, 28, 3_582_721, 451_648), (36, 32, 4_430_593, 663_616)]
)
def test_parameters_of_tables_7_to_10(layers, heads, total, first):
    with torch.device("meta"):
        model = AttentionIoURegressor(layers, heads)
    assert sum(p.numel() for p in model.parameters()) == total
    branch = [sum(p.numel() for p in m.parameters(recurse=False)) for m in model.branches[0]]
    assert [n for n in branch if n] == [first, 128, 73_856, 256, 295_168, 512, 32_896]
    assert [n for m in model.fusion if (n := sum(p.numel() for p in m.parameters()))] == [131_328, 512, 32_896, 129]


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (5, 5), (8, 8), (16, 16), (24, 24)])
def test_any_grid_gives_values_in_range(size):
    model = trained()
    with torch.no_grad():
        predicted = model(maps(3, h=size[0], w=size[1]))
    assert predicted.shape == (3,)
    assert ((predicted >= 0) & (predicted <= 1)).all()


@pytest.mark.parametrize(("size", "last"), [((24, 24), (6, 6)), ((16, 16), (4, 4)), ((5, 7), (2, 2)), ((1, 1), (1, 1))])
def test_pooling_halves_twice_and_never_to_nothing(size, last):
    with torch.no_grad():
        features = trained().branches[0][:12](maps(2, h=size[0], w=size[1])[:, 0].flatten(1, 2))
    assert tuple(features.shape) == (2, 256, *last)


def test_each_coordinate_layer_and_head_matters():
    model = trained()
    base = maps(1)
    with torch.no_grad():
        reference = model(base)
        for c in range(4):
            for layer in range(2):
                for head in range(3):
                    changed = base.clone()
                    changed[0, c, layer, head] = changed[0, c, layer, head].flip(0, 1) * 3
                    assert not torch.equal(model(changed), reference), (c, layer, head)


def test_a_uniform_map_reads_one_on_every_grid():
    seen = []
    model = AttentionIoURegressor(2, 3).eval()
    model.branches[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    for side in (4, 16):
        model(torch.full((1, 4, 2, 3, side, side), 1 / side**2))
    assert all(torch.allclose(x, torch.ones_like(x)) for x in seen)


@pytest.mark.parametrize(("transform", "factor"), [("raw", lambda x: x), ("log_cells", lambda x: torch.log1p(x * 64))])
def test_other_transforms(transform, factor):
    seen = []
    model = AttentionIoURegressor(2, 3, input_transform=transform).eval()
    model.branches[1].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    x = maps(1)
    model(x)
    assert torch.allclose(seen[0], factor(x[:, 1].flatten(1, 2)))


def test_gradients_reach_the_raw_maps():
    x = maps(2).requires_grad_()
    trained()(x).sum().backward()
    assert x.grad.shape == x.shape
    assert (x.grad.abs().amax(dim=(0, 4, 5)) > 0).all()


@pytest.mark.parametrize("shape", [(2, 4, 3, 3, 8, 8), (2, 4, 2, 4, 8, 8), (2, 3, 2, 3, 8, 8), (4, 2, 3, 8, 8)])
def test_wrong_shapes_are_said(shape):
    with pytest.raises(RegressorError, match=r"expected maps \(B, 4, 2, 3, h, w\)"):
        AttentionIoURegressor(2, 3)(torch.zeros(shape))


@pytest.mark.parametrize(("args", "options"), [((0, 3), {}), ((2, 0), {}), ((2, 3), {"input_transform": "sqrt"})])
def test_wrong_constructor_values(args, options):
    with pytest.raises(RegressorError):
        AttentionIoURegressor(*args, **options)


@pytest.mark.parametrize(("half", "tolerance"), [(False, 0.0), (True, 2e-3)])
@pytest.mark.parametrize("transform", ["cells", "log_cells", "raw"])
def test_round_trip(tmp_path, half, tolerance, transform):
    model = trained(transform)
    save_regressor(tmp_path / "r.safetensors", model, IDENTITY, (8, 6), "by a test", half=half)
    loaded, info = load_regressor(tmp_path / "r.safetensors", lvlm=FakeModel())
    assert (info.identity, info.map_size, info.input_transform, info.made_by) == (
        IDENTITY,
        (8, 6),
        transform,
        "by a test",
    )
    assert not loaded.training
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    with torch.no_grad():
        assert np.allclose(loaded(maps()), model(maps()), atol=tolerance, rtol=0)


def test_loading_leaves_the_random_generator_alone(path):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_regressor(path)
    assert torch.rand(1) == expected


def test_the_largest_file_of_a_28_x_28_model_stays_below_8_mb(tmp_path):
    save_regressor(
        tmp_path / "r.safetensors", AttentionIoURegressor(28, 28), ModelIdentity("m", "qwen2_5_vl", 28, 28), (24, 24)
    )
    assert (tmp_path / "r.safetensors").stat().st_size < 8e6


def test_saving_refuses_what_does_not_fit_or_diverged(tmp_path):
    with pytest.raises(RegressorError, match=r"2 x 3 heads, some/other has 4 x 3"):
        save_regressor(tmp_path / "r", trained(), ModelIdentity("some/other", "internvl", 4, 3), (8, 8))
    broken = trained()
    with torch.no_grad():
        broken.fusion[0].weight[0, 0] = float("nan")
    with pytest.raises(RegressorError, match=r"fusion.0.weight is not finite"):
        save_regressor(tmp_path / "r", broken, IDENTITY, (8, 8))
    broken = trained()
    broken.fusion[2].running_var[0] = -1.0
    with pytest.raises(RegressorError, match=r"variance fusion.2.running_var lies from -1 .*the training diverged"):
        save_regressor(tmp_path / "r", broken, IDENTITY, (8, 8))
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_layers": 3}, "has shape"),
        ({"input_transform": "sqrt"}, '"input_transform"'),
        ({"input_transform": ["cells"]}, '"input_transform"'),
    ],
)
def test_wrong_metadata_is_named(path, change, says):
    rewrite(path, change)
    with pytest.raises(RegressorError, match=says) as caught:
        load_regressor(path)
    assert str(path) in str(caught.value)


def setting(name, value, kind=None):
    """One value of a weight."""

    def edit(tensors):
        tensors[name] = tensors[name].astype(kind or tensors[name].dtype)
        tensors[name].flat[0] = value

    return edit


@pytest.mark.parametrize("place", ["branches.0.1", "fusion.2"])
def test_a_channel_that_never_fires_has_no_variance(path, place):
    rewrite(path, edit=setting(f"{place}.running_var", 0.0))
    model, _ = load_regressor(path)
    with torch.no_grad():
        assert model(maps()).isfinite().all()


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda t: t.pop("fusion.0.weight"), "fusion.0.weight is missing"),
        (lambda t: t.update(more=np.zeros(1)), "unknown weight 'more'"),
        (lambda t: t["fusion.0.bias"].fill(np.inf), "fusion.0.bias holds values that are not finite"),
        (
            lambda t: t["branches.0.0.weight"].fill(np.nan),
            "branches.0.0.weight holds values that are not finite",
        ),
        (
            lambda t: t["branches.1.1.running_var"].fill(-0.1),
            r"variance branches.1.1.running_var lies from -0.1 to -0.1",
        ),
        (setting("fusion.2.running_var", -1e-9), "none is below 0"),
        (setting("fusion.2.running_var", 3e38), r"lies from .* to 3e\+38, none is below 0 or above 1e\+12"),
        (setting("fusion.2.running_mean", -3e38), r"fusion.2.running_mean holds values up to 3e\+38"),
        (
            setting("fusion.7.weight", 3e38, np.float32),
            r"fusion.7.weight holds values up to 3e\+38, none is above 1e\+06",
        ),
        (setting("branches.0.0.weight", -2e6, np.float32), r"branches.0.0.weight holds values up to 2e\+06"),
        (setting("fusion.2.num_batches_tracked", -1), "count fusion.2.num_batches_tracked is -1"),
        (lambda t: t.update({"fusion.0.bias": t["fusion.0.bias"].astype(np.complex64)}), "is of type C64, not one of"),
        (lambda t: t.update({"k" * 10**5: np.zeros(1)}), "unknown weight 'kkk"),
    ],
)
def test_wrong_weights_are_named(path, edit, says):
    rewrite(path, edit=edit)
    with pytest.raises(RegressorError, match=says) as caught:
        load_regressor(path)
    assert len(str(caught.value)) < 1000
