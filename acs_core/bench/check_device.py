"""Comparison of a device's answers with those of a CPU, and of recorded decode steps (CUDA graphs) with eager ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from acs_core.artifacts.registry import resolve_model
from acs_core.attention import AttentionNeeds
from acs_core.bench.measure import measure
from acs_core.bench.methods import look_at, maps_of
from acs_core.errors import BenchError
from acs_core.generation.sample import greedy_response, sample_responses
from acs_core.lvlm import load_lvlm
from acs_core.lvlm.base import LVLM, Prompt
from acs_core.lvlm.loading import pick_device
from acs_core.types import SamplingConfig

Response = tuple[int, ...]
Responses = tuple[Response, ...]


@dataclass(frozen=True)
class Expected:
    """Reference answers of the CPU in float32 to one phrase.

    Attributes:
        greedy: the greedy response.
        responses: responses drawn with a seed.
        maps: (C, 4, L, K, R, S) attention maps of their boxes, in [0, 1].
    """

    greedy: Response
    responses: Responses
    maps: np.ndarray


@dataclass(frozen=True)
class DeviceReport:
    """Comparison of a device with a CPU in float32, and of its recorded decode steps with eager ones.

    Attributes:
        device: the device.
        dtype: dtype of the model on the device.
        phrases: number of phrases.
        greedy_alike: number of greedy responses with exactly the CPU's tokens.
        map_gap: largest difference of two attention weights of the same response and candidate.
        responses: number of responses drawn with the same seeds.
        responses_alike: number of responses that are the same with both kinds of steps; None if the device records
            none.
        growing_ms: median time of drawing a phrase's responses with eager steps, in milliseconds.
        recorded_ms: the same with recorded steps; None if the device records none.
    """

    device: str
    dtype: str
    phrases: int
    greedy_alike: int
    map_gap: float
    responses: int
    responses_alike: int | None
    growing_ms: float
    recorded_ms: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return vars(self)


def check_device(
    model: str,
    image: np.ndarray,
    phrases: Sequence[str],
    samples: int,
    device: str,
    dtypes: Sequence[str],
    say: Callable[[str], None] = lambda _: None,
) -> list[DeviceReport]:
    """Answer each of ``phrases`` about ``image`` (H, W, 3) on the CPU in float32, then on ``device`` in each of
    ``dtypes``, and compare. The device captures the attention of the CPU's responses, so that the maps are comparable.

    Raises:
        BenchError: no response of the CPU holds a box.
        ModelError: the model cannot be loaded there.
    """
    say("cpu, float32")
    reference = load_lvlm(resolve_model(model), device="cpu", dtype="float32")
    expected = [_expected(reference, reference.prepare(image, phrase), samples) for phrase in phrases]
    if not any(e.maps.size for e in expected):
        raise BenchError("no response holds a box: ask for something in the picture")
    reports = []
    for dtype in dtypes:
        say(f"{pick_device(device)}, {dtype}")
        lvlm = load_lvlm(resolve_model(model), device=device, dtype=dtype)
        reports.append(_report(lvlm, [lvlm.prepare(image, phrase) for phrase in phrases], expected, samples, dtype))
    return reports


def _expected(lvlm: LVLM, prompt: Prompt, samples: int) -> Expected:
    drawn = sample_responses(lvlm, prompt, _config(samples)).response_ids
    return Expected(greedy_response(lvlm, prompt).response_ids[0], drawn, _maps(lvlm, prompt, drawn))


def _report(
    lvlm: LVLM, prompts: Sequence[Prompt], expected: Sequence[Expected], samples: int, dtype: str
) -> DeviceReport:
    gaps = [
        np.abs(_maps(lvlm, p, e.responses) - e.maps).max()
        for p, e in zip(prompts, expected, strict=True)
        if e.maps.size
    ]
    alike = sum(greedy_response(lvlm, p).response_ids[0] == e.greedy for p, e in zip(prompts, expected, strict=True))
    with _growing(lvlm):
        growing, growing_ms = _draw_all(lvlm, prompts, samples)
    recorded, recorded_ms = _draw_all(lvlm, prompts, samples)
    # If the device records no steps, the second round was eager, too.
    records = bool(lvlm.graphs.kept)
    return DeviceReport(
        str(lvlm.device),
        dtype,
        len(prompts),
        alike,
        float(max(gaps)),
        len(growing),
        sum(a == b for a, b in zip(growing, recorded, strict=True)) if records else None,
        growing_ms,
        recorded_ms if records else None,
    )


def _draw_all(lvlm: LVLM, prompts: Sequence[Prompt], samples: int) -> tuple[Responses, float]:
    """Draw the responses to all phrases. Returns them and the median time of a phrase in milliseconds; a first round,
    which includes one-time set-up, is not timed."""
    for prompt in prompts:
        sample_responses(lvlm, prompt, _config(samples))
    rounds = [measure(partial(sample_responses, lvlm, prompt, _config(samples)), lvlm.device) for prompt in prompts]
    drawn = tuple(ids for r in rounds for ids in r.value.response_ids)
    return drawn, float(np.median([r.seconds for r in rounds])) * 1e3


def _maps(lvlm: LVLM, prompt: Prompt, responses: Responses) -> np.ndarray:
    """Return the maps (C, 4, L, K, R, S) float32 of all boxes in ``responses``."""
    return maps_of(look_at(lvlm, prompt, responses, AttentionNeeds(maps=True)))


def _config(samples: int) -> SamplingConfig:
    return SamplingConfig(num_samples=samples, seed=0)


@contextmanager
def _growing(lvlm: LVLM) -> Iterator[None]:
    """Disable the recording of decode steps in the block."""
    before, lvlm.graphs.usable = lvlm.graphs.usable, False
    try:
        yield
    finally:
        lvlm.graphs.usable = before
