"""What quantised weights do to the attention that selection rests on: the same responses, looked at with each."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from acs_bench.errors import BenchError
from acs_bench.measure import Measured, measure, size_mb
from acs_bench.methods import look_at, maps_of
from acs_core.assets import resolve_model
from acs_core.attention import AttentionNeeds, Evidence
from acs_core.lvlm import load_lvlm
from acs_core.lvlm.base import LVLM
from acs_core.lvlm.loading import QUANTIZATIONS
from acs_core.sampling import sample
from acs_core.selection.acs_free import DECIMALS, average_ranks
from acs_core.types import SamplingConfig

LOWEST = 5  # percent
Forced = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class QuantizationRow:
    """One kind of weights against unquantised ones. ``map_correlation`` is the median Pearson correlation of two maps
    of the same candidate, coordinate, layer and head, ``map_correlation_low`` its 5th percentile, ``entropy_gap`` the
    mean difference of their entropies in nats, ``rank_correlation`` the mean rank correlation of a head's entropies
    over the candidates (1 keeps every order that ACS-Free goes by)."""

    quantization: str
    weights_mb: float
    seconds: float
    map_correlation: float
    map_correlation_low: float
    entropy_gap: float
    rank_correlation: float

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return vars(self)


def compare_quantizations(
    model: str,
    image: np.ndarray,
    phrase: str,
    samples: int,
    device: str = "auto",
    dtype: str = "auto",
    say: Callable[[str], None] = lambda _: None,
) -> list[QuantizationRow]:
    """Draws ``samples`` responses about ``image`` (H, W, 3) with unquantised weights, and has each kind of weights
    write them again.

    What does not work on this device is said and left out.

    Raises:
        BenchError: the responses hold fewer than two boxes.
        ModelError: the model cannot be loaded, or bitsandbytes is missing.
    """
    rows: list[QuantizationRow] = []
    forced: Forced = ()
    plain: Evidence | None = None
    for kind in QUANTIZATIONS:
        say(f"{kind} weights")
        try:
            forced, weights, measured = _ask(model, image, phrase, samples, forced, (device, dtype, kind))
        except RuntimeError as error:  # bitsandbytes on a CPU wants layers whose widths are multiples of 64
            if plain is None:
                raise BenchError(f"{model} does not work here: {error}") from error
            say(f"{kind} weights do not work with this model here: {error}")
            continue
        plain = plain or measured.value
        rows.append(_row(kind, weights, measured.seconds, plain, measured.value))
        gc.collect()  # two large models would not fit
    return rows


def _ask(
    model: str, image: np.ndarray, phrase: str, samples: int, forced: Forced, how: tuple[str, str, str]
) -> tuple[Forced, float, Measured[Evidence]]:
    """Responses (drawn unless given), megabytes of weights, and the attention, with the model loaded as ``how`` says:
    (device, dtype, quantization)."""
    device, dtype, kind = how
    lvlm = load_lvlm(resolve_model(model), device=device, dtype=dtype, quantization=kind)
    if not forced:
        prompt = lvlm.prepare(image, phrase)
        forced = sample(lvlm, prompt, SamplingConfig(num_samples=samples, seed=0)).response_ids
    measured = measure(lambda: _look(lvlm, image, phrase, forced), lvlm.device, repeats=2)
    return forced, size_mb(lvlm.hf_model), measured


def _look(lvlm: LVLM, image: np.ndarray, phrase: str, forced: Forced) -> Evidence:
    seen = look_at(lvlm, lvlm.prepare(image, phrase), forced, AttentionNeeds(maps=True, all_entropies=True))
    boxes = len(seen.entropy)
    if boxes < 2:
        raise BenchError(f"the responses hold {boxes} boxes and 2 are needed: ask for something in the picture")
    return seen


def _row(kind: str, weights_mb: float, seconds: float, plain: Evidence, other: Evidence) -> QuantizationRow:
    cells = np.prod(plain.grid)
    correlation = _correlation(maps_of(plain).reshape(-1, cells), maps_of(other).reshape(-1, cells))
    # Answers that begin alike look alike there: these ties must not be broken by the last bits of a number.
    entropies = (np.round(e.reshape(len(e), -1), DECIMALS) for e in (plain.entropy, other.entropy))  # (C, 4 * L * K)
    ranks = [np.apply_along_axis(average_ranks, 0, e).T for e in entropies]
    return QuantizationRow(
        kind,
        weights_mb,
        seconds,
        float(np.median(correlation)),
        float(np.percentile(correlation, LOWEST)),
        float(np.abs(plain.entropy - other.entropy).mean()),
        float(_correlation(*ranks).mean()),
    )


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation of the rows of (M, D) and (M, D): (M,); rows without variance count as 1 where alike."""
    a = a.astype(np.float64) - a.mean(axis=1, keepdims=True)
    b = b.astype(np.float64) - b.mean(axis=1, keepdims=True)
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    alike = np.abs(a - b).max(axis=1) < 1e-12
    return np.where(scale > 0, (a * b).sum(axis=1) / np.where(scale > 0, scale, 1.0), alike.astype(np.float64))
