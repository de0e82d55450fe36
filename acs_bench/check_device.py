"""Whether a model answers on a device as it does on a CPU, and whether recorded decode steps write what others do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from acs_bench.errors import BenchError
from acs_bench.measure import measure
from acs_bench.methods import look_at, maps_of
from acs_core.assets import resolve_model
from acs_core.attention import AttentionNeeds
from acs_core.lvlm import load_lvlm
from acs_core.lvlm.base import LVLM, Prompt
from acs_core.lvlm.loading import pick_device
from acs_core.sampling import greedy, sample
from acs_core.types import SamplingConfig

Response = tuple[int, ...]
Responses = tuple[Response, ...]


@dataclass(frozen=True)
class Expected:
    """What the CPU says in float32 about one phrase: its greedy response, ``responses`` drawn with a seed, and their
    maps (C, 4, L, K, R, S) in [0, 1]."""

    greedy: Response
    responses: Responses
    maps: np.ndarray


@dataclass(frozen=True)
class DeviceReport:
    """The device against a CPU in float32, and its recorded steps against its growing ones (None where it records
    none). ``greedy_alike`` of ``phrases`` greedy responses are the CPU's, token for token; ``map_gap`` is the largest
    difference of two attention weights of the same response and candidate. ``responses_alike`` of ``responses`` drawn
    with the same seeds are the same with both kinds of steps. Times are those of drawing a phrase's responses, the
    median of all phrases."""

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
        """For a JSON file."""
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
    """Asks ``model`` for each of ``phrases`` in ``image`` (H, W, 3): on the CPU in float32, then on ``device`` in each
    of ``dtypes``. The device looks at the CPU's responses, so that the same is compared.

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
    drawn = sample(lvlm, prompt, _config(samples)).response_ids
    return Expected(greedy(lvlm, prompt).response_ids[0], drawn, _maps(lvlm, prompt, drawn))


def _report(
    lvlm: LVLM, prompts: Sequence[Prompt], expected: Sequence[Expected], samples: int, dtype: str
) -> DeviceReport:
    gaps = [
        np.abs(_maps(lvlm, p, e.responses) - e.maps).max()
        for p, e in zip(prompts, expected, strict=True)
        if e.maps.size
    ]
    alike = sum(greedy(lvlm, p).response_ids[0] == e.greedy for p, e in zip(prompts, expected, strict=True))
    with _growing(lvlm):
        growing, growing_ms = _draw_all(lvlm, prompts, samples)
    recorded, recorded_ms = _draw_all(lvlm, prompts, samples)
    # Where nothing could be recorded, the second round was made of growing rows too.
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
    """All phrases' responses, and the median time of a phrase in milliseconds; a first round, which pays for what is
    set up once, is not timed."""
    for prompt in prompts:
        sample(lvlm, prompt, _config(samples))
    rounds = [measure(partial(sample, lvlm, prompt, _config(samples)), lvlm.device) for prompt in prompts]
    drawn = tuple(ids for r in rounds for ids in r.value.response_ids)
    return drawn, float(np.median([r.seconds for r in rounds])) * 1e3


def _maps(lvlm: LVLM, prompt: Prompt, responses: Responses) -> np.ndarray:
    """Maps (C, 4, L, K, R, S) float32 of all boxes in ``responses``."""
    return maps_of(look_at(lvlm, prompt, responses, AttentionNeeds(maps=True)))


def _config(samples: int) -> SamplingConfig:
    return SamplingConfig(num_samples=samples, seed=0)


@contextmanager
def _growing(lvlm: LVLM) -> Iterator[None]:
    """Within, no step is recorded."""
    before, lvlm.graphs.usable = lvlm.graphs.usable, False
    try:
        yield
    finally:
        lvlm.graphs.usable = before
