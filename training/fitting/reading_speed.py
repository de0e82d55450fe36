"""Speed of reading against that of fitting, and what a collection of a 7B model takes, from measured parts."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from acs_core.arguments import instance, set_fields, text, whole
from training.collection.maps import StoredMaps
from training.collection.part_arrays import encode
from training.collection.store import CollectionPart, part_folder, write_part
from training.collection.store_check import SHAPE_7B, fit_seconds, made_up_maps
from training.fitting.read_ahead import ReadAhead, default_workers, host_array

RESPONSES = 10  # to each pair, each with one box
SECONDS = 0.5  # of reading that is measured at least
Numbers = dict[str, float | int | str]


@dataclass(frozen=True)
class SpeedConfig:
    """Settings of :func:`measure_speed`.

    Attributes:
        pairs: number of pairs of the collection that is planned.
        epochs: number of epochs of its fit.
        batch: candidates of a fitting step.
        workers: number of threads that read ahead; None for as many as the CPUs allow.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        TypeError: a value is of another type.
        ValueError: a value is out of its range.
    """

    pairs: int = 5000
    epochs: int = 100
    batch: int = 64
    workers: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        checked: dict[str, object] = {name: whole(name, getattr(self, name), 1) for name in ("pairs", "epochs")}
        checked["batch"] = whole("batch", self.batch, 2, 4096)
        checked["workers"] = None if self.workers is None else whole("workers", self.workers, 0, 1024)
        checked["device"] = text("device", self.device)
        set_fields(self, checked)


@dataclass(frozen=True)
class MeasuredParts:
    """Measured parts of a collection and a fit, each per candidate of the 7B shape.

    Attributes:
        stored: bytes on disk, if ten responses share the map of x1.
        kept: bytes in memory, likewise.
        encode: CPU seconds of quantising.
        write: CPU seconds of compressing and writing.
        unpack: CPU seconds of reading from disk.
        read: seconds of reading from disk, with all threads.
        taken: seconds of reading from memory, with all threads.
        fit: seconds of a fitting step.
    """

    stored: float
    kept: float
    encode: float
    write: float
    unpack: float
    read: float
    taken: float
    fit: float


class _Again:
    """The same batch, again and again."""

    def __init__(self, index: np.ndarray, count: int) -> None:
        self._index, self._count = index, count

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter([self._index] * self._count)

    def __len__(self) -> int:
        return self._count

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: all epochs are the same."""


def measure_speed(
    config: SpeedConfig, progress: Callable[[int, int], None] = lambda done, total: None
) -> MeasuredParts:
    """Measure all parts with ten candidates of made-up maps, of which none is shared."""
    workers = default_workers() if config.workers is None else config.workers
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if config.device != "auto":
        device = torch.device(config.device)
    rng = np.random.default_rng(0)
    layers, heads, h, w = SHAPE_7B
    count = 4 * RESPONSES
    raw = np.stack([made_up_maps(rng, layers * heads, h, w) for _ in range(count)]).reshape(count, *SHAPE_7B)
    progress(1, 5)
    started = time.process_time()
    codes, unit = encode(raw)
    encode_seconds = (time.process_time() - started) / RESPONSES
    place = np.arange(count, dtype=np.int32).reshape(RESPONSES, 4)
    entropy = rng.uniform(0, 6, (RESPONSES, 4, layers, heads)).astype(np.float32)
    part = CollectionPart(codes, unit, place, entropy, np.zeros((RESPONSES, 17)), (0,), {}, ())
    shared = (3 + 1 / RESPONSES) / 4  # of the maps, if ten responses share that of x1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.process_time()
        write_part(folder, 0, part)
        write_seconds = (time.process_time() - started) / RESPONSES
        progress(2, 5)
        files = {file: file.stat().st_size for file in part_folder(folder, 0).rglob("*") if file.is_file()}
        of_codes = sum(size for file, size in files.items() if "codes" in file.parts)
        maps = StoredMaps((part_folder(folder, 0),), (place,), memory=0)
        read, unpack = _read_seconds(maps, workers)
        progress(3, 5)
        maps.keep(maps.nbytes)
        taken, _ = _read_seconds(maps, workers)
        progress(4, 5)
        index = np.arange(config.batch) % RESPONSES
        first, second = (torch.from_numpy(array) for array in maps.coded(index))
        fit = fit_seconds(device, first, second, 20 if device.type == "cuda" else 2) / config.batch
        progress(5, 5)
        return MeasuredParts(
            stored=(of_codes * shared + sum(files.values()) - of_codes) / RESPONSES,
            kept=maps.nbytes * shared / RESPONSES,
            encode=encode_seconds * shared,
            write=write_seconds * shared,
            unpack=unpack,
            read=read,
            taken=taken,
            fit=fit,
        )


def speed_rows(config: SpeedConfig, parts: MeasuredParts) -> Numbers:
    """Return what :func:`measure_speed` has found, by name, with the plan of a collection of a 7B model."""
    instance("parts", parts, MeasuredParts, "the result of measure_speed")
    candidates = config.pairs * RESPONSES
    hours = candidates / 3600
    return {
        "candidates read a second, from disk": round(1 / parts.read, 1),
        "candidates read a second, from memory": round(1 / parts.taken, 1),
        "candidates fitted a second": round(1 / parts.fit, 1),
        "reading from disk against fitting": round(parts.fit / parts.read, 2),
        "reading from memory against fitting": round(parts.fit / parts.taken, 2),
        "MB a candidate, stored": round(parts.stored / 1e6, 3),
        "MB a candidate, in memory": round(parts.kept / 1e6, 3),
        f"{config.pairs} pairs: candidates": candidates,
        f"{config.pairs} pairs: GB on disk": round(candidates * parts.stored / 1e9, 1),
        f"{config.pairs} pairs: GB to keep all maps in memory": round(candidates * parts.kept / 1e9, 1),
        f"{config.pairs} pairs: CPU hours to quantise, compress and write, beside the model's work": round(
            hours * (parts.encode + parts.write), 2
        ),
        f"{config.pairs} pairs: CPU hours to read, {config.epochs} epochs from disk": round(
            hours * config.epochs * parts.unpack, 2
        ),
        f"{config.pairs} pairs: hours of fitting steps, {config.epochs} epochs on this device": round(
            hours * config.epochs * parts.fit, 2
        ),
        f"{config.pairs} pairs: hours of the model's own work": "not measured here",
    }


def _read_seconds(maps: StoredMaps, workers: int) -> tuple[float, float]:
    """Return the seconds that ``workers`` threads need for a candidate of ``maps``, and the CPU seconds of all threads;
    a first batch is not counted."""
    index = np.arange(len(maps))

    def read(batch: np.ndarray) -> int:
        return len(maps.coded(batch, host_array)[0])

    read(index)
    count = 2 * max(1, workers)
    while True:
        started, busy = time.perf_counter(), time.process_time()
        candidates = sum(ReadAhead(read, _Again(index, count), workers))
        seconds, busy = time.perf_counter() - started, time.process_time() - busy
        if seconds >= SECONDS:
            return seconds / candidates, busy / candidates
        count *= 2
