"""Layers and parameters of the attention-IoU regressor, counted on the module itself (paper tables 7 to 10)."""

from __future__ import annotations

import math

import torch
from torch import nn

from acs_core.evaluation.table import Cell, Column, Table, TableRow
from acs_core.selection.regressor import AttentionIoURegressor

PAPER = {"Qwen2.5-VL-7B": (28, 28, 24), "InternVL-3.5-8B": (36, 32, 16)}  # layers, heads, side of the maps
BYTES = 4  # of a float32 value


def architecture_tables(regressor: AttentionIoURegressor, map_size: tuple[int, int], title: str) -> tuple[Table, Table]:
    """Return the table of the layers with output shapes and parameters (tables 7 and 9), and that of parameters,
    multiply-adds and memory for one candidate (tables 8 and 10).

    The module is run once on maps of zeros; shapes and counts are those of its layers. A megabyte is 10^6 bytes.

    Args:
        regressor: the regressor.
        map_size: (h, w) of the attention maps.
        title: the model that the regressor is for.
    """
    shapes = _output_shapes(regressor, map_size)
    rows = [_row("Attention-IoU regressor", "[1, 1]", None)]
    rows.append(_row("Coordinate branch, four times", None, None))
    rows += [_layer(f"1-{k}", layer, shapes[layer]) for k, layer in enumerate(_layers(regressor.branches[0]), 1)]
    rows.append(_row("Fusion", None, None))
    rows += [_layer(f"2-{k}", layer, shapes[layer]) for k, layer in enumerate(_layers(regressor.fusion), 1)]
    columns = Column("Layer"), Column("Output shape"), Column("Parameters", "count")
    note = "Counted on the module. The branch stands once; its parameters count four times in the total."
    layers = Table("architecture-layers", f"Layers of the regressor: {title}", columns, tuple(rows), (note,))
    return layers, _memory_table(regressor, map_size, shapes, title)


def _memory_table(
    regressor: AttentionIoURegressor, map_size: tuple[int, int], shapes: dict[nn.Module, tuple[int, ...]], title: str
) -> Table:
    total = sum(p.numel() for p in regressor.parameters())
    trainable = sum(p.numel() for p in regressor.parameters() if p.requires_grad)
    adds = sum(_multiply_adds(layer, shape) for layer, shape in shapes.items())
    maps = BYTES * 4 * regressor.num_layers * regressor.num_heads * math.prod(map_size) / 1e6
    # Outputs of the layers with parameters are kept for the backward pass, and have a gradient of the same size.
    passes = 2 * BYTES * sum(math.prod(s) for layer, s in shapes.items() if list(layer.parameters())) / 1e6
    weights = BYTES * total / 1e6
    counts = {"Total parameters": total, "Trainable parameters": trainable, "Other parameters": total - trainable}
    megabytes = {
        "Multiply-adds (millions)": adds / 1e6,
        "Input (MB)": maps,
        "Forward and backward pass (MB)": passes,
        "Parameters (MB)": weights,
        "Together (MB)": maps + passes + weights,
    }
    rows = [TableRow((Cell(name), Cell(f"{value:,}"))) for name, value in counts.items()]
    rows += [TableRow((Cell(name), Cell(f"{value:,.2f}"))) for name, value in megabytes.items()]
    columns = Column("Quantity"), Column("Value")
    notes = ("For one candidate, in float32.",)
    return Table("architecture-memory", f"Parameters and memory of the regressor: {title}", columns, tuple(rows), notes)


def _output_shapes(regressor: AttentionIoURegressor, map_size: tuple[int, int]) -> dict[nn.Module, tuple[int, ...]]:
    """Return the shape of each layer's output for one candidate."""
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note(layer: nn.Module, _: object, out: torch.Tensor) -> None:
        shapes[layer] = tuple(out.shape)

    layers = [layer for part in (*regressor.branches, regressor.fusion) for layer in _layers(part)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    was = regressor.training
    try:
        with torch.inference_mode():  # in eval mode: batch normalisation needs more than one candidate to train
            regressor.eval()(torch.zeros(1, 4, regressor.num_layers, regressor.num_heads, *map_size))
    finally:
        regressor.train(was)
        for hook in hooks:
            hook.remove()
    return shapes


def _layers(part: nn.Module) -> list[nn.Module]:
    return list(part.children())


def _multiply_adds(layer: nn.Module, shape: tuple[int, ...]) -> int:
    """Return the number of multiply-adds for one candidate: each weight of a convolution is used once per output
    position, all other weights once."""
    weights = sum(p.numel() for p in layer.parameters())
    return weights * math.prod(shape[2:]) if isinstance(layer, nn.Conv2d) else weights


def _layer(number: str, layer: nn.Module, shape: tuple[int, ...]) -> TableRow:
    count = sum(p.numel() for p in layer.parameters())
    return _row(f"{type(layer).__name__}: {number}", str(list(shape)), count or None)


def _row(name: str, shape: str | None, count: int | None) -> TableRow:
    return TableRow((Cell(name), Cell(shape), Cell(None if count is None else float(count))))
