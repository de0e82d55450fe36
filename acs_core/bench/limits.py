"""Costs compared with the limits of the hardware.

A decode step is compared with reading the weights once and with its matrix products, and ten samples with one. The
selector is measured by itself on the attention of a call, for models of several sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from acs_core.attention import AttentionRecord
from acs_core.bench.measure import Measurement, measure, size_mb
from acs_core.bench.methods import Ours, Work, ours
from acs_core.bench.subject import Subject, map_shape
from acs_core.geometry import Box
from acs_core.lvlm.base import LVLM
from acs_core.selection.acs_learned import AcsLearned
from acs_core.selection.regressor import AttentionIoURegressor
from acs_core.types import Candidate

COPIED_BYTES = 2**28  # larger than any cache; four times as many on a GPU
SHORT_TOKENS = 12
SELECTOR_SHAPES = ("small", "7b", "8b")  # the paper's two models, and one for a CPU
PAPER_S_PER_CASE = 0.15  # appendix A.4, on a GPU


@dataclass(frozen=True)
class LimitsReport:
    """Costs of calls with ACS-Learned.

    Attributes:
        samples: number of samples N.
        step_ms: time of one decode step of N rows in milliseconds.
        floor_ms: time to read the language model's weights once at ``bandwidth_gb_s``, in milliseconds.
        bandwidth_gb_s: bandwidth of a plain copy.
        linear_ms: time of the matrix products of one step of N rows with the weights of the language model, and of
            nothing else, in milliseconds.
        one_s: time of a whole call with one sample in seconds.
        many_s: time of a whole call with N samples in seconds.
        looking_share: share of attention and selection in ``many_s``.
        peak_mb: peak memory of the call with N samples in MB, in addition to the model's own; None if unknown.
        weights_mb: size of the model's weights in MB.
    """

    samples: int
    step_ms: float
    floor_ms: float
    bandwidth_gb_s: float
    linear_ms: float
    one_s: float
    many_s: float
    looking_share: float
    peak_mb: float | None
    weights_mb: float

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values, with the ratios."""
        return {
            **vars(self),
            "step / floor": self.step_ms / self.floor_ms,
            "step / linear layers": self.step_ms / self.linear_ms,
            "N samples / one": self.many_s / self.one_s,
        }


def measure_limits(subject: Subject, samples: int, new_tokens: int, repeats: int = 3) -> LimitsReport:
    """Measure calls with ACS-Learned and all maps; the time of a step follows from the difference of a long and a short
    call."""
    device = subject.lvlm.device
    learned = subject.learned()

    def timed(n: int, tokens: int) -> Measurement[Ours]:
        work = Work.of(subject.lvlm, subject.prompts[0], subject.words, n, tokens)
        ours(work, learned)
        return measure(lambda: ours(work, learned), device, repeats)

    short, one, many = timed(samples, SHORT_TOKENS), timed(1, new_tokens), timed(samples, new_tokens)
    stages = many.value.stages_ms
    step_ms = (stages["sampling"] - short.value.stages_ms["sampling"]) / (new_tokens - SHORT_TOKENS)
    bandwidth = _bandwidth(device, repeats)
    read = sum(p.numel() * p.element_size() for p in subject.lvlm.text_model.layers.parameters())
    head = subject.lvlm.hf_model.get_output_embeddings().weight
    read += head.numel() * head.element_size()
    return LimitsReport(
        samples,
        step_ms,
        read / bandwidth * 1e3,
        bandwidth / 1e9,
        linear_layers_s(subject.lvlm, samples, repeats) * 1e3,
        one.seconds,
        many.seconds,
        (stages["attention"] + stages["selection"]) / sum(stages.values()),
        many.added_mb,
        size_mb(subject.lvlm.hf_model),
    )


def linear_layers_s(lvlm: LVLM, rows: int, repeats: int) -> float:
    """Return the seconds of the products of ``rows`` rows with every linear layer of the language model and with its
    output layer, one after the other, without what stands between them."""
    layers = [m for m in lvlm.text_model.layers.modules() if isinstance(m, torch.nn.Linear)]
    layers.append(lvlm.hf_model.get_output_embeddings())
    dtype = next(lvlm.hf_model.parameters()).dtype
    made = {m.in_features: torch.randn(rows, 1, m.in_features, device=lvlm.device, dtype=dtype) for m in layers}

    def multiply() -> None:
        with torch.inference_mode():
            for layer in layers:
                layer(made[layer.in_features])

    multiply()
    return measure(multiply, lvlm.device, max(repeats, 3)).seconds


def _bandwidth(device: torch.device, repeats: int) -> float:
    """Return the bytes per second that a copy reads and writes."""
    count = COPIED_BYTES * (4 if device.type == "cuda" else 1)
    source = torch.zeros(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy: Callable[[], Any] = lambda: target.copy_(source)  # noqa: E731
    copy()
    return 2 * count / measure(copy, device, max(repeats, 3)).seconds


@dataclass(frozen=True)
class SelectorRow:
    """Cost of ACS-Learned on one model's maps.

    Attributes:
        model: name of the model.
        candidates: number of candidates of a case.
        case_ms: time of a case in milliseconds.
        candidate_ms: time per candidate in milliseconds.
        paper_over_ours: time in the paper divided by ours.
    """

    model: str
    candidates: int
    case_ms: float
    candidate_ms: float
    paper_over_ours: float

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return vars(self)


def selector_costs(candidates: int, device: torch.device, repeats: int = 3) -> list[SelectorRow]:
    """Score ``candidates`` with random maps, in host memory as after capture, with regressors of random weights."""
    rows = []
    for model in SELECTOR_SHAPES:
        layers, heads, h, w = map_shape(model)
        selector = AcsLearned(AttentionIoURegressor(layers, heads).to(device), (h, w))
        rng = np.random.default_rng(0)
        maps = rng.random((candidates, 4, layers, heads, h, w), dtype=np.float32) / (h * w)
        record = AttentionRecord(np.zeros((candidates, 4, layers, heads), np.float32), maps, (h, w))
        boxes = [Candidate(Box(0.0, 0.0, 10.0, 10.0), "", i, 0, (0, 0, 0, 0)) for i in range(candidates)]
        selector.qualities(boxes, record, (640, 480))
        seconds = measure(lambda: selector.qualities(boxes, record, (640, 480)), device, repeats).seconds  # noqa: B023
        case_ms = seconds * 1e3
        rows.append(SelectorRow(model, candidates, case_ms, case_ms / candidates, PAPER_S_PER_CASE / seconds))
    return rows
