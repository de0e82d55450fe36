"""Samples an LVLM's answers about image-category pairs and keeps every valid box with its attention and its IoU
(paper appendix A: N = 10 responses at tau = 1.0 for each pair)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from acs_core.attention import AttentionNeeds, Evidence, capture
from acs_core.candidates import find_candidates
from acs_core.errors import ImageError, PhraseError
from acs_core.geometry import Box
from acs_core.identity import ModelIdentity, weights_fingerprint
from acs_core.lvlm.base import LVLM
from acs_core.sampling import greedy, sample
from acs_core.types import Candidate, Response, SamplingConfig
from training.coco import Pair
from training.errors import DataError
from training.store import open_store, shard_file, write_shard

PAIRS_PER_SHARD = 50
# Models whose map has the shape of the picture: the regressor wants one size for all (appendix A.3).
MAP_SIZES = {"qwen2_5_vl": (24, 24)}


@dataclass(frozen=True)
class CollectConfig:
    """``map_size`` (h, w): the maps' size in the store, the regressor's input (None: the family's in
    ``MAP_SIZES``, else the model's own grid).
    ``greedy`` collects the one greedy answer instead of samples, as the baseline of an evaluation."""

    samples: int = 10
    temperature: float = 1.0
    top_p: float = 0.9
    top_k: int = 100
    max_new_tokens: int = 256
    seed: int = 0
    map_size: tuple[int, int] | None = None
    greedy: bool = False


@dataclass(frozen=True)
class CollectReport:
    """What a run did: pairs collected now, pairs found done from before, and what was skipped, with the reason."""

    collected: int
    resumed: int
    skipped: tuple[str, ...]


def collect(
    lvlm: LVLM,
    pairs: Sequence[Pair],
    out: Path,
    config: CollectConfig | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    weights: str | None = None,
) -> CollectReport:
    """Collects all of ``pairs`` into the store ``out``; shards that are there already are not made again.

    Pair i is sampled with a seed of its own, so a resumed run gives what an unbroken one would have given. ``weights``
    is the model's fingerprint where the caller has it: computing it reads all weights from disk.

    Raises:
        DataError: ``out`` holds a collection of other pairs, of another model or with other settings; or none of a
            batch of pictures could be read.
    """
    config = with_map_size(config or CollectConfig(), lvlm)
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}
    model = {**ModelIdentity.of(lvlm).to_dict(), "weights": weights_fingerprint(lvlm) if weights is None else weights}
    manifest = {"model": model, **settings, "pairs": [p.key for p in pairs]}
    open_store(out, manifest)
    skipped: list[str] = []
    collected = resumed = 0
    for number in range(math.ceil(len(pairs) / PAIRS_PER_SHARD)):
        index = range(number * PAIRS_PER_SHARD, min(len(pairs), (number + 1) * PAIRS_PER_SHARD))
        if shard_file(out, number).exists():
            resumed += len(index)
            progress(index.stop, len(pairs))
            continue
        rows: list[dict[str, np.ndarray]] = []
        responses: list[dict[str, Any]] = []
        for i in index:
            try:
                image = pairs[i].read()
                candidates, answers, evidence = ask(lvlm, image, pairs[i].category, config, config.seed + i)
            except (DataError, ImageError, PhraseError) as error:
                skipped.append(f"{pairs[i].key}: {error}")
                continue
            rows.append(_row(i, pairs[i], candidates, evidence, image.shape[:2]))
            responses += [{"pair": i, "response": r, **asdict(a)} for r, a in enumerate(answers)]
            collected += 1
            progress(i + 1, len(pairs))
        write_shard(out, number, _stack(rows), responses)
    return CollectReport(collected, resumed, tuple(skipped))


def with_map_size(config: CollectConfig, lvlm: LVLM) -> CollectConfig:
    """``config`` with the map size that the model's family wants, where none is set."""
    return config if config.map_size else replace(config, map_size=MAP_SIZES.get(lvlm.family))


def ask(
    lvlm: LVLM, image: np.ndarray, phrase: str, config: CollectConfig, seed: int
) -> tuple[tuple[Candidate, ...], tuple[Response, ...], Evidence]:
    """One question: candidates, responses, and all attention of the candidates."""
    prompt = lvlm.prepare(image, phrase)
    if config.greedy:
        samples = greedy(lvlm, prompt, config.max_new_tokens)
    else:
        sampling = SamplingConfig(
            config.samples, config.temperature, config.top_p, config.top_k, config.max_new_tokens, seed
        )
        samples = sample(lvlm, prompt, sampling)
    candidates, responses = find_candidates(lvlm, prompt, samples)
    needs = AttentionNeeds(heads=None, maps=True, map_size=config.map_size, all_entropies=True)
    return candidates, responses, capture(lvlm, prompt, samples, candidates, needs)


def best_iou(box: Box, truth: Sequence[Box]) -> float:
    """IoU with the true box that fits best, 0 where there is none."""
    return max((box.iou(t) for t in truth), default=0.0)


def _row(
    i: int, pair: Pair, candidates: Sequence[Candidate], evidence: Evidence, shape: tuple[int, int]
) -> dict[str, np.ndarray]:
    count = len(candidates)
    if evidence.maps is None:
        raise ValueError("attention capture gave no maps although they were asked for")
    return {
        "maps": evidence.maps.astype(np.float16),
        "entropy": evidence.entropy.astype(np.float32),
        "iou": np.array([best_iou(c.box, pair.truth) for c in candidates], np.float32),
        "box": np.array([c.box.as_tuple() for c in candidates], np.float64).reshape(count, 4),
        "pair": np.full(count, i),
        "image": np.full(count, pair.image_id),
        "response": np.array([c.response for c in candidates], np.int64),
        "order": np.array([c.order for c in candidates], np.int64),
        "image_size": np.tile(np.array([shape[1], shape[0]]), (count, 1)),
        "grid": np.tile(np.array(evidence.grid), (count, 1)),
        "pairs": np.array([i]),
    }


def _stack(rows: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if not rows:
        raise DataError("none of a batch of pictures could be used: is the picture folder the right one?")
    return {k: np.concatenate([r[k] for r in rows if len(r[k])] or [rows[0][k]]) for k in rows[0]}
