"""Effect of quantised weights on attention, measured on the same responses with each kind of weights."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from acs_core.artifacts.registry import resolve_model
from acs_core.attention import AttentionNeeds, AttentionRecord
from acs_core.bench.measure import Measurement, measure, size_mb
from acs_core.bench.methods import look_at, maps_of
from acs_core.errors import BenchError
from acs_core.generation.sample import sample_responses
from acs_core.lvlm import load_lvlm
from acs_core.lvlm.base import LVLM
from acs_core.lvlm.loading import QUANTIZATIONS
from acs_core.selection.acs_free import DECIMALS, average_ranks
from acs_core.types import SamplingConfig

LOWEST = 5  # percent
Forced = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class QuantizationRow:
    """Comparison of one kind of weights with unquantised ones.

    Attributes:
        quantization: the kind of weights.
        weights_mb: size of the weights in MB.
        seconds: time of the capture.
        map_correlation: median Pearson correlation of two maps of the same candidate, coordinate, layer and head.
        map_correlation_low: 5th percentile of these correlations.
        entropy_gap: mean difference of their entropies in nats.
        rank_correlation: mean rank correlation of a head's entropies over the candidates; 1 if every ranking of
            ACS-Free is preserved.
    """

    quantization: str
    weights_mb: float
    seconds: float
    map_correlation: float
    map_correlation_low: float
    entropy_gap: float
    rank_correlation: float

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values."""
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
    """Draw ``samples`` responses about ``image`` (H, W, 3) with unquantised weights, force each kind of weights to
    write them again, and compare.

    Kinds that do not work on this device are reported with ``say`` and left out.

    Raises:
        BenchError: the responses hold fewer than two boxes.
        ModelError: the model cannot be loaded, or bitsandbytes is missing.
    """
    rows: list[QuantizationRow] = []
    forced: Forced = ()
    plain: AttentionRecord | None = None
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
        gc.collect()  # two large models would not fit into memory
    return rows


def _ask(
    model: str, image: np.ndarray, phrase: str, samples: int, forced: Forced, how: tuple[str, str, str]
) -> tuple[Forced, float, Measurement[AttentionRecord]]:
    """Load the model with ``how`` = (device, dtype, quantization). Returns its responses (drawn unless given), the size
    of its weights in MB, and its attention."""
    device, dtype, kind = how
    lvlm = load_lvlm(resolve_model(model), device=device, dtype=dtype, quantization=kind)
    if not forced:
        prompt = lvlm.prepare(image, phrase)
        forced = sample_responses(lvlm, prompt, SamplingConfig(num_samples=samples, seed=0)).response_ids
    measured = measure(lambda: _look(lvlm, image, phrase, forced), lvlm.device, repeats=2)
    return forced, size_mb(lvlm.hf_model), measured


def _look(lvlm: LVLM, image: np.ndarray, phrase: str, forced: Forced) -> AttentionRecord:
    seen = look_at(lvlm, lvlm.prepare(image, phrase), forced, AttentionNeeds(maps=True, all_entropies=True))
    boxes = len(seen.entropy)
    if boxes < 2:
        raise BenchError(f"the responses hold {boxes} boxes and 2 are needed: ask for something in the picture")
    return seen


def _row(
    kind: str, weights_mb: float, seconds: float, plain: AttentionRecord, other: AttentionRecord
) -> QuantizationRow:
    cells = np.prod(plain.grid)
    correlation = _correlation(maps_of(plain).reshape(-1, cells), maps_of(other).reshape(-1, cells))
    # Responses with the same beginning have the same attention there; rounding errors must not break these ties.
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
    """Return the Pearson correlation (M,) of the rows of ``a`` and ``b`` (M, D); rows without variance count as 1 if
    they are equal."""
    a = a.astype(np.float64) - a.mean(axis=1, keepdims=True)
    b = b.astype(np.float64) - b.mean(axis=1, keepdims=True)
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    alike = np.abs(a - b).max(axis=1) < 1e-12
    return np.where(scale > 0, (a * b).sum(axis=1) / np.where(scale > 0, scale, 1.0), alike.astype(np.float64))
