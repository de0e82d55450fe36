"""How far from what the hardware allows: the decode step against reading the weights once, ten samples against one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from acs_bench.measure import Measured, measure, size_mb
from acs_bench.methods import Ours, Work, ours
from acs_bench.subject import Subject

COPIED_BYTES = 2**28  # larger than any cache; on a GPU four times as many
SHORT_TOKENS = 12


@dataclass(frozen=True)
class LimitsReport:
    """``step_ms`` is one decode step of N rows, ``floor_ms`` the time that reading the language model's weights once
    takes at the ``bandwidth_gb_s`` of a plain copy. ``one_s`` and ``many_s`` are whole calls with 1 and N samples,
    ``looking_share`` attention's and selection's share of the latter. ``peak_mb`` is what it added beyond the
    ``weights_mb`` of the model."""

    samples: int
    step_ms: float
    floor_ms: float
    bandwidth_gb_s: float
    one_s: float
    many_s: float
    looking_share: float
    peak_mb: float | None
    weights_mb: float

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file, with the ratios."""
        return {
            **vars(self),
            "step / floor": self.step_ms / self.floor_ms,
            "N samples / one": self.many_s / self.one_s,
        }


def measure_limits(subject: Subject, samples: int, new_tokens: int, repeats: int = 3) -> LimitsReport:
    """Calls with ACS-Learned and all maps; a step's time is the difference of a long and a short call."""
    device = subject.lvlm.device
    learned = subject.learned()

    def timed(n: int, tokens: int) -> Measured[Ours]:
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
        one.seconds,
        many.seconds,
        (stages["attention"] + stages["selection"]) / sum(stages.values()),
        many.added_mb,
        size_mb(subject.lvlm.hf_model),
    )


def _bandwidth(device: torch.device, repeats: int) -> float:
    """Bytes a second that a copy reads and writes."""
    count = COPIED_BYTES * (4 if device.type == "cuda" else 1)
    source = torch.zeros(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy: Callable[[], Any] = lambda: target.copy_(source)  # noqa: E731
    copy()
    return 2 * count / measure(copy, device, max(repeats, 3)).seconds
