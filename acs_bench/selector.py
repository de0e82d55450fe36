"""What a selector costs by itself, on the attention of a call's candidates, for models of several sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from acs_bench.measure import measure
from acs_core.attention import Evidence
from acs_core.geometry import Box
from acs_core.regressor import AttentionIoURegressor
from acs_core.selection.acs_learned import AcsLearned
from acs_core.types import Candidate

PAPER_S_PER_CASE = 0.15  # appendix A.4, on a GPU
MODELS = {  # layers, heads, map side
    "small": (12, 8, 24),
    "7b": (28, 28, 24),
    "8b": (36, 32, 16),
}


@dataclass(frozen=True)
class SelectorRow:
    """ACS-Learned on one model's maps: milliseconds for a case of ``candidates``, and for each of them."""

    model: str
    candidates: int
    case_ms: float
    candidate_ms: float
    paper_over_ours: float

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return vars(self)


def selector_costs(candidates: int, device: torch.device, repeats: int = 3) -> list[SelectorRow]:
    """Scores ``candidates`` random maps, in host memory as capture leaves them, with regressors of random weights."""
    rows = []
    for model, (layers, heads, side) in MODELS.items():
        selector = AcsLearned(AttentionIoURegressor(layers, heads).to(device), (side, side))
        rng = np.random.default_rng(0)
        maps = rng.random((candidates, 4, layers, heads, side, side), dtype=np.float32) / side**2
        evidence = Evidence(np.zeros((candidates, 4, layers, heads), np.float32), maps, (side, side))
        boxes = [Candidate(Box(0.0, 0.0, 10.0, 10.0), "", i, 0, (0, 0, 0, 0)) for i in range(candidates)]
        selector.qualities(boxes, evidence, (640, 480))
        seconds = measure(lambda: selector.qualities(boxes, evidence, (640, 480)), device, repeats).seconds  # noqa: B023
        case_ms = seconds * 1e3
        rows.append(SelectorRow(model, candidates, case_ms, case_ms / candidates, PAPER_S_PER_CASE / seconds))
    return rows
