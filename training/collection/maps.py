"""Attention maps of a collection: stored on disk, unpacked on access, kept in memory as codes if all of them fit."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.collection.part_arrays import decode
from training.collection.part_reading import PartMaps
from training.errors import DataError

MEMORY_BYTES = 2 << 30  # largest size of the maps for them to be kept in memory at the first access
UNIT_BYTES = 256 << 20  # of the units of opened parts that are kept; those of other parts are read again

Empty = Callable[[tuple[int, ...], Any], np.ndarray]


@dataclass(frozen=True)
class KeptMaps:
    """All distinct maps in memory.

    Attributes:
        codes: (M, L, K, h, w) uint8.
        unit: (M, L, K) float32.
        first: (P,) index of the first map of each part.
    """

    codes: np.ndarray
    unit: np.ndarray
    first: np.ndarray


class StoredMaps:
    """Attention maps of C candidates: ``maps[index]`` with candidate indices (B,) gives (B, 4, L, K, h, w) float32.

    Several threads and processes may read at the same time; each process opens the files itself.

    Args:
        files: parts of the store that hold candidates.
        places: for each part, (C_i, 4) indices of the distinct map of each candidate's coordinates.
        memory: largest size in bytes of the maps for them to be kept in memory at the first access. :meth:`keep` sets
            another limit.
    """

    def __init__(self, files: tuple[Path, ...], places: tuple[np.ndarray, ...], memory: int = MEMORY_BYTES) -> None:
        self.files = files
        self._place = np.concatenate(places) if files else np.zeros((0, 4), np.int64)  # (C, 4) row within the part
        self.part = np.repeat(np.arange(len(files)), [len(p) for p in places])  # (C,)
        self._memory = memory
        self._kept: KeptMaps | None = None
        self._announced: frozenset[int] = frozenset()
        self._begin()
        shapes = [self._maps(number).shape for number in range(len(files))]
        self._map_shape = shapes[0][1:] if files else (1, 1, 1, 1)
        self._counts = [shape[0] for shape in shapes]  # distinct maps of each part
        for file, shape in zip(files, shapes, strict=True):
            if shape[1:] != self._map_shape:
                raise DataError(f"{file} holds maps of another shape than {files[0]}: it belongs to another collection")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (C, 4, L, K, h, w)."""
        return (len(self._place), 4, *self._map_shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all distinct maps in memory: their codes and units."""
        each = math.prod(self._map_shape) + 4 * math.prod(self._map_shape[:2])
        return self.distinct() * each

    @property
    def in_memory(self) -> bool:
        """Whether all maps are in memory."""
        return self._kept is not None

    def __len__(self) -> int:
        return len(self._place)

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        return decode(*self.coded(index))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None, "_opened": None, "_lock": None}  # each process opens for itself

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def coded(self, index: np.ndarray | Sequence[int], empty: Empty = np.empty) -> tuple[np.ndarray, np.ndarray]:
        """Return codes (B, 4, L, K, h, w) uint8 and units (B, 4, L, K) float32: see
        :mod:`training.collection.part_arrays`.

        Args:
            index: indices of candidates.
            empty: makes the arrays that are filled and returned, from shape and dtype.

        Raises:
            DataError: a part is damaged.
        """
        index = np.asarray(index, dtype=np.int64)
        codes = empty((len(index), 4, *self._map_shape), np.uint8)
        unit = empty((len(index), 4, *self._map_shape[:2]), np.float32)
        flat = codes.reshape(-1, *self._map_shape)
        flat_unit = unit.reshape(-1, *self._map_shape[:2])
        part, place = np.repeat(self.part[index], 4), self._place[index].reshape(-1)  # (4 * B,)
        if self._kept is None and self.nbytes <= self._memory:
            self.keep(self._memory)
        if self._kept is not None:
            rows = self._kept.first[part] + place
            # A mode other than the default one fills ``out`` without a copy, and lets other threads run.
            np.take(self._kept.codes, rows, axis=0, out=flat, mode="clip")
            np.take(self._kept.unit, rows, axis=0, out=flat_unit, mode="clip")
            return codes, unit
        for number in np.unique(part):
            here = np.flatnonzero(part == number)
            self._maps(int(number)).read_into(place[here], flat, flat_unit, here)
        return codes, unit

    def keep(self, limit: int, workers: int = 0) -> bool:
        """Read all maps into memory, unless they take more than ``limit`` bytes; with ``workers`` threads.

        Returns:
            Whether they are in memory now.

        Raises:
            DataError: a part is damaged.
        """
        with self._lock:
            self._memory = limit  # a later read must not keep what does not fit
            if self._kept is None and self.nbytes <= limit:
                self._kept = self._read_all(workers)
            return self._kept is not None

    def announce(self, index: np.ndarray) -> None:
        """Tell the system that the parts with the candidates ``index`` will be read soon, unless they were among those
        of the last call."""
        if self._kept is not None:
            return
        parts = frozenset(np.unique(self.part[index]).tolist())
        for number in sorted(parts - self._announced):
            self._maps(number).read_ahead()
        self._announced = parts

    def distinct(self) -> int:
        """Return the number of distinct coordinate maps of all candidates."""
        return sum(self._counts)

    def _begin(self) -> None:
        self._opened: OrderedDict[int, PartMaps] = OrderedDict()  # the last used part is the last
        self._lock = threading.RLock()

    def _maps(self, number: int) -> PartMaps:
        """Return an open part. The units of those that were not used for the longest time are given back."""
        with self._lock:
            if number not in self._opened:
                self._opened[number] = PartMaps(self.files[number])
            self._opened.move_to_end(number)
            most = max(1, UNIT_BYTES // (4 * max(1, math.prod(self._opened[number].shape[:3]))))
            if len(self._opened) > most:
                self._opened[[*self._opened][-most - 1]].release()
            return self._opened[number]

    def _read_all(self, workers: int) -> KeptMaps:
        first = np.cumsum([0, *self._counts])[:-1].astype(np.int64)
        codes = np.empty((self.distinct(), *self._map_shape), np.uint8)
        unit = np.empty((self.distinct(), *self._map_shape[:2]), np.float32)

        def read(number: int) -> None:
            rows = np.arange(self._counts[number])
            self._part_for(number).read_into(rows, codes, unit, first[number] + rows)

        pool = ThreadPoolExecutor(max(1, workers))
        try:
            for _ in pool.map(read, range(len(self.files))):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
        return KeptMaps(codes, unit, first)

    def _part_for(self, number: int) -> PartMaps:
        """Return a part without taking the lock, which the thread that waits for this one holds."""
        return self._opened.get(number) or PartMaps(self.files[number])
