import numpy as np
import pytest
import torch
from tensor_parts import IDENTITY, FakeModel, maps, rewrite

from acs_core.errors import RegressorError
from acs_core.selection.box_regressor import (
    BINS,
    BoxRegressor,
    bin_weights,
    frame_edges,
    load_box_regressor,
    save_box_regressor,
)

BOXES = torch.tensor([[0.1, 0.2, 0.4, 0.5], [0.0, 0.0, 1.0, 1.0], [0.97, 0.98, 0.99, 1.0]])


def trained(transform="cells"):
    """A box regressor whose normalisation statistics are not the initial ones."""
    torch.manual_seed(0)
    model = BoxRegressor(2, 3, input_transform=transform)
    model.train()
    for seed in range(3):
        model(maps(3, seed=seed), BOXES)
    return model.eval()


@pytest.fixture
def path(tmp_path):
    save_box_regressor(tmp_path / "b.safetensors", trained(), IDENTITY, (8, 8), "by a test")
    return tmp_path / "b.safetensors"


@pytest.mark.parametrize(
    ("layers", "heads", "total"), [(28, 28, 835_233), (36, 32, 976_545), (80, 64, 2_500_257), (5, 6, 545_697)]
)
def test_parameters_are_below_four_millions(layers, heads, total):
    with torch.device("meta"):
        model = BoxRegressor(layers, heads)
    assert sum(p.numel() for p in model.parameters()) == total < 4_000_000


@pytest.mark.parametrize("cells", [1, 2, 12])
def test_bins_average_the_row_between_its_cells(cells):
    """As many points do, taken from the row interpolated between the centres of its cells."""
    edges = torch.tensor([[-2.5], [0.2], [cells - 0.7]]) + torch.arange(5) * torch.tensor([[0.1], [0.5], [3.0]])
    found = bin_weights(edges.double(), cells)
    row = np.random.default_rng(0).random(cells)
    for weights, at in zip(found, edges.numpy(), strict=True):
        for k in range(4):
            points = np.interp(np.linspace(at[k], at[k + 1], 10_001), np.arange(cells) + 0.5, row)
            assert float(weights[k].numpy() @ row) == pytest.approx(points.mean(), abs=1e-4)
    assert found.sum(dim=-1).numpy() == pytest.approx(1.0)


def test_the_box_is_the_middle_third_of_its_frame():
    edges = frame_edges(torch.tensor([0.25, 0.5]), torch.tensor([0.5, 0.501]), 16)
    assert edges.shape == (2, BINS + 1)
    assert edges[0, [0, 3, 6, 9]].tolist() == pytest.approx([0.0, 4.0, 8.0, 12.0])
    low, high = edges[1, 3], edges[1, 6]
    assert float(high - low) == pytest.approx(1.0, abs=1e-5), "a smaller box is read as one cell"
    assert float(high + low) / 2 == pytest.approx(16 * 0.5005)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (5, 5), (12, 12), (24, 24)])
def test_any_grid_gives_values_in_range(size):
    with torch.no_grad():
        predicted = trained()(maps(3, h=size[0], w=size[1]), BOXES)
    assert predicted.shape == (3,) and ((predicted >= 0) & (predicted <= 1)).all()


@pytest.mark.parametrize("transform", ["raw", "cells", "log_cells"])
@pytest.mark.parametrize("weight", [0.0, 1 / 64])
def test_without_attention_all_boxes_are_alike(transform, weight):
    """The network cannot know which boxes are usually right."""
    with torch.no_grad():
        predicted = trained(transform)(torch.full((3, 4, 2, 3, 8, 8), weight), BOXES)
    assert np.ptp(predicted.numpy()) < 1e-6


def test_what_is_moved_with_its_box_is_read_alike():
    x = torch.zeros(2, 4, 2, 3, 12, 12)
    x[0, ..., 2:5, 1:4], x[1, ..., 7:10, 6:9] = 0.05, 0.05
    boxes = torch.tensor([[1, 2, 4, 5], [6, 7, 9, 10]]) / 12
    seen = []
    model = trained()
    model.near.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        model(x, boxes)
        near = seen[0]
        assert torch.allclose(near[0, :, :, 3:], near[1, :, :, 3:], atol=1e-5)  # at the left, the image ends in one
        assert near[0, 0, 4, 4] == pytest.approx(0.05 * 144) and near[0, 0, 4, 8] == pytest.approx(0.0, abs=1e-6)
        model(x, boxes.flip(0))
    assert not torch.allclose(seen[1], near, atol=0.1)


def test_each_coordinate_layer_and_head_matters_near_and_far():
    model, base = trained(), maps(3)
    with torch.no_grad():
        reference = model(base, BOXES)
        for c in range(4):
            for layer in range(2):
                for head in range(3):
                    changed = base.clone()
                    changed[:, c, layer, head] = changed[:, c, layer, head].flip(1, 2) * 3
                    assert not torch.equal(model(changed, BOXES), reference), (c, layer, head)
        for part in (model.near, model.far):
            kept = part[0].weight.clone()
            part[0].weight.zero_()
            assert not torch.equal(model(base, BOXES), reference)
            part[0].weight.copy_(kept)


def test_wrong_shapes_are_said():
    model = BoxRegressor(2, 3).eval()
    with pytest.raises(RegressorError, match=r"expected maps \(B, 4, 2, 3, h, w\)"):
        model(torch.zeros(2, 4, 3, 3, 8, 8), BOXES[:2])
    with pytest.raises(RegressorError, match=r"expected boxes \(2, 4\), got \(3, 4\)"):
        model(maps(2), BOXES)


@pytest.mark.parametrize("transform", ["cells", "log_cells", "raw"])
def test_round_trip(tmp_path, transform):
    model = trained(transform)
    save_box_regressor(tmp_path / "b.safetensors", model, IDENTITY, (8, 6), "by a test")
    loaded, info = load_box_regressor(tmp_path / "b.safetensors", lvlm=FakeModel())
    assert (info.identity, info.map_size, info.input_transform) == (IDENTITY, (8, 6), transform)
    assert not loaded.training and {p.dtype for p in loaded.parameters()} == {torch.float32}
    with torch.no_grad():
        assert np.allclose(loaded(maps(3), BOXES), model(maps(3), BOXES), atol=2e-3, rtol=0)


def test_saving_refuses_what_diverged(tmp_path):
    broken = trained()
    with torch.no_grad():
        broken.near[0].weight[0, 0] = float("nan")
    with pytest.raises(RegressorError, match=r"near.0.weight is not finite: the training diverged"):
        save_box_regressor(tmp_path / "b", broken, IDENTITY, (8, 8))
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("change", "edit", "says"),
    [
        ({"num_layers": 3}, None, "near.0.weight has shape"),
        ({"input_transform": "sqrt"}, None, '"input_transform"'),
        ({}, lambda t: t.pop("far.0.weight"), "far.0.weight is missing"),
        ({}, lambda t: t.update(more=np.zeros(1)), "unknown weight 'more'"),
        ({}, lambda t: t["fusion.0.bias"].fill(np.inf), "fusion.0.bias holds values that are not finite"),
        ({}, lambda t: t["near.1.running_var"].fill(-0.1), "variance near.1.running_var lies from -0.1"),
        ({}, lambda t: t["far.0.bias"].fill(3e38), r"far.0.bias holds values up to 3e\+38"),
    ],
)
def test_wrong_metadata_and_weights_are_named(path, change, edit, says):
    rewrite(path, change, edit)
    with pytest.raises(RegressorError, match=says) as caught:
        load_box_regressor(path)
    assert str(caught.value).startswith(f"box regressor {path}") and len(str(caught.value)) < 1000
