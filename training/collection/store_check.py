"""Costs and benefits of the store's quantisation: size, entropy ranks, regressor scores and reading speed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr

from acs_core.artifacts.registry import asset_for
from acs_core.lvlm.base import LVLM
from acs_core.selection.acs_free import DECIMALS
from acs_core.selection.regressor import AttentionIoURegressor, load_regressor
from training.collection.collect import ask
from training.collection.job import CollectConfig, Job, with_map_size
from training.collection.maps import StoredMaps
from training.collection.part import make_part
from training.collection.part_arrays import LEVELS, decode, decode_on_device, encode
from training.collection.store import CollectionPart, part_folder, write_part
from training.data.pairs import Pair

SHAPE_7B = (28, 28, 24, 24)  # layers, heads and the regressor's grid of Qwen2.5-VL-7B
Numbers = dict[str, float | int | str]


def check_on_model(
    lvlm: LVLM,
    pairs: Sequence[Pair],
    map_size: tuple[int, int] | None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Numbers:
    """Measure the quantisation on maps of ``lvlm``.

    Samples ``pairs`` twice: once one by one, for unquantised maps that are compared with their quantised form, and once
    as a collection does (in batches, which may change responses), for the stored size. Regressor scores are those of
    the model's own regressor, if it has one for this map size.
    """
    config = with_map_size(CollectConfig(map_size=map_size), lvlm)
    job = Job(tuple(pairs), config)
    raw = []
    for i, pair in enumerate(pairs):
        _, _, record, _ = ask(lvlm, pair.read(), pair.category, config, config.seed + i)
        raw.append(record.maps)
        progress(i + 1, 2 * len(pairs))
    maps = np.concatenate([m for m in raw if m is not None])
    back = decode(*encode(maps))
    with tempfile.TemporaryDirectory() as name:
        folder, files, places = Path(name), [], []
        for number in range(job.parts):
            part = make_part(lvlm, job, number)
            write_part(folder, number, part)
            if len(part.rows):
                files.append(part_folder(folder, number))
                places.append(part.place)
            progress(len(pairs) + min(len(pairs), job.pairs_of(number).stop), 2 * len(pairs))
        stored = StoredMaps(tuple(files), tuple(places))
        size = sum(f.stat().st_size for part in files for f in (part / "codes").rglob("*") if f.is_file())
    values = int(np.prod(maps.shape[1:]))
    found: Numbers = {
        "candidates": len(maps),
        "levels": LEVELS + 1,
        "distinct maps": round(stored.distinct() / (4 * len(stored)), 3),
        "KB a candidate, raw float32": round(4 * values / 1e3, 1),
        "KB a candidate, stored": round(size / len(stored) / 1e3, 2),
        "bits a value": round(8 * size / len(stored) / values, 2),
        "MB a candidate of the 7B shape at this rate": round(
            size / len(stored) / values * 4 * float(np.prod(SHAPE_7B)) / 1e6, 3
        ),
        **_ranks(maps, back),
    }
    file = asset_for(lvlm, "regressor.safetensors")
    if file is not None:
        regressor, info = load_regressor(file)
        if info.map_size == maps.shape[-2:]:
            with torch.inference_mode():
                scores = [regressor(torch.from_numpy(m)).numpy() for m in (maps, back)]
            off = np.abs(scores[1] - scores[0])
            found |= {
                "regressor score, mean difference": round(float(off.mean()), 5),
                "regressor score, 99 % point": round(float(np.percentile(off, 99)), 5),
                "regressor score, largest difference": round(float(off.max()), 5),
            }
    return found


def check_shape(progress: Callable[[int, int], None] = lambda done, total: None, count: int = 24) -> Numbers:
    """Measure size and speed with ``count`` synthetic candidates of the 7B shape.

    The maps have diffuse to sharp heads and attention sinks; as with ten responses to one question, all candidates
    share the map of the first coordinate. The training speed is that of one step of the regressor of appendix A on this
    machine's ``torch`` device.
    """
    rng = np.random.default_rng(0)
    layers, heads, h, w = SHAPE_7B
    distinct = [made_up_maps(rng, layers * heads, h, w) for _ in range(1 + 3 * 4)]  # four different answers
    place = np.stack([[0, *(1 + 3 * (i % 4) + np.arange(3))] for i in range(count)]).astype(np.int32)
    alone = 4  # the first candidates share only the map of x1; only they are timed
    codes, unit = encode(np.stack(distinct).reshape(-1, *SHAPE_7B))
    entropy = np.zeros((count, 4, layers, heads), np.float32)
    part = CollectionPart(codes, unit, place, entropy, np.zeros((count, 17)), (0,), {}, ())
    with tempfile.TemporaryDirectory() as name:
        write_part(Path(name), 0, part)
        file = part_folder(Path(name), 0)
        size = sum(f.stat().st_size for f in (file / "codes").rglob("*") if f.is_file()) / len(codes)
        progress(1, 3)
        maps = StoredMaps((file,), (place,), memory=0)
        started = time.perf_counter()
        read = maps.coded(np.arange(alone))
        read_seconds = (time.perf_counter() - started) / alone
    progress(2, 3)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train_seconds = fit_seconds(device, torch.from_numpy(read[0]), torch.from_numpy(read[1])) / alone
    progress(3, 3)
    return {
        "MB a candidate, raw float32": round(4 * 4 * codes[0].size / 1e6, 2),
        "MB a candidate, no map shared": round(4 * size / 1e6, 3),
        "MB a candidate, x1 shared by ten answers": round(3.1 * size / 1e6, 3),
        **_ranks(np.stack(distinct).reshape(-1, 1, *SHAPE_7B), decode(codes, unit)[:, None], across_heads=True),
        "candidates read a second, one process": round(1 / read_seconds, 1),
        f"candidates trained a second on {device.type}": round(1 / train_seconds, 1),
    }


def _ranks(maps: np.ndarray, back: np.ndarray, across_heads: bool = False) -> Numbers:
    """Return Spearman's rank correlation of the entropies before and after quantisation: of each head over the
    candidates, or ``across_heads`` of each candidate over the heads, if there are few candidates."""
    before, after = (_entropy(m).reshape(len(m), -1) for m in (maps, back))
    if not across_heads:
        before, after = before.T, after.T
    agreement = [spearmanr(a, b)[0] for a, b in zip(before, after, strict=True) if np.ptp(a) > 0 and np.ptp(b) > 0]
    return {
        "entropy ranks, mean agreement": round(float(np.mean(agreement)), 4),
        "entropy ranks, median agreement": round(float(np.median(agreement)), 4),
        "entropy ranks, least agreement": round(float(np.min(agreement)), 4),
    }


def _entropy(maps: np.ndarray) -> np.ndarray:
    """Compute equation 3, rounded as ACS-Free does, so that rounding errors count as ties."""
    share = maps.astype(np.float64) / maps.sum(axis=(-2, -1), keepdims=True)
    return np.round(-(share * np.log(np.maximum(share, 1e-300))).sum(axis=(-2, -1)), DECIMALS)


def made_up_maps(rng: np.random.Generator, count: int, h: int, w: int) -> np.ndarray:
    """Return synthetic attention (count, h, w): smooth fields with noise, heads from diffuse to sharp, and three shared
    sinks."""
    sharp = rng.uniform(0.5, 3.0, (count, 1, 1))
    coarse = rng.normal(size=(count, 1, 6, 6)).astype(np.float32)
    smooth = F.interpolate(torch.from_numpy(coarse), (h, w), mode="bicubic", align_corners=False)[:, 0].numpy()
    scores = 0.7 * sharp * (smooth + rng.normal(size=(count, h, w)))
    scores[:, rng.integers(h, size=3), rng.integers(w, size=3)] += rng.uniform(2, 6)
    weights = np.exp(scores - scores.max(axis=(1, 2), keepdims=True))
    shown = rng.uniform(0.02, 0.6, (count, 1, 1))  # share of each head's attention that falls on the image
    return (shown * weights / weights.sum(axis=(1, 2), keepdims=True)).astype(np.float32)


def fit_seconds(device: torch.device, codes: torch.Tensor, unit: torch.Tensor, steps: int = 2) -> float:
    """Return the seconds of one training step of the regressor of appendix A, the mean of ``steps`` after a first one,
    with these candidates of the 7B shape."""
    regressor = AttentionIoURegressor(*SHAPE_7B[:2]).to(device)
    optimiser = torch.optim.Adam(regressor.parameters(), lr=3e-4)
    truth = torch.rand(len(codes), device=device)
    started = 0.0
    for step in range(1 + steps):
        if step == 1:
            _wait(device)
            started = time.perf_counter()
        loss = F.mse_loss(regressor(decode_on_device(codes.to(device), unit.to(device))), truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    _wait(device)
    return (time.perf_counter() - started) / steps


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
