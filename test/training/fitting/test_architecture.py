"""Tables 7 to 10 of the paper, as counted on the module."""

import pytest

from acs_core.selection.regressor import AttentionIoURegressor
from training.fitting.architecture import PAPER, architecture_tables

PRINTED = {  # in the paper's tables 8 and 10
    "Qwen2.5-VL-7B": ("3,582,721", "3,582,721", "0", "1,125.94", "7.23", "4.14", "14.33", "25.69"),
    "InternVL-3.5-8B": ("4,430,593", "4,430,593", "0", "717.64", "4.72", "1.84", "17.72", "24.29"),
}
FIRST = {"Qwen2.5-VL-7B": ("[1, 64, 24, 24]", 451_648), "InternVL-3.5-8B": ("[1, 64, 16, 16]", 663_616)}


@pytest.mark.parametrize("name", list(PAPER))
def test_the_numbers_are_those_of_the_paper(name):
    layers, heads, side = PAPER[name]
    model = AttentionIoURegressor(layers, heads).train()
    shown, memory = architecture_tables(model, (side, side), name)
    assert tuple(row.cells[1].value for row in memory.rows) == PRINTED[name]
    cells = {row.cells[0].value: tuple(cell.value for cell in row.cells[1:]) for row in shown.rows}
    assert cells["Conv2d: 1-1"] == FIRST[name] and cells["Linear: 2-1"] == ("[1, 256]", 131_328)
    assert cells["ReLU: 1-3"] == (FIRST[name][0], None)
    branch = sum(n or 0 for layer, (_, n) in cells.items() if ": 1-" in layer)
    fusion = sum(n or 0 for layer, (_, n) in cells.items() if ": 2-" in layer)
    assert f"{4 * branch + fusion:,.0f}" == PRINTED[name][0]
    assert model.training  # left as it was
