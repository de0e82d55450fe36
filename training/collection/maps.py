"""Attention maps of a collection: stored on disk, decoded on access, cached in memory if all of them fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.collection.part_arrays import decode
from training.collection.part_reading import PartMaps
from training.errors import DataError

MEMORY_BYTES = 2 << 30  # largest size of the codes for them to be cached in memory


class StoredMaps:
    """Attention maps of C candidates: ``maps[index]`` with candidate indices (B,) gives (B, 4, L, K, h, w) float32.

    Several processes may read at the same time; each opens the files itself.

    Args:
        files: parts of the store that hold candidates.
        places: for each part, (C_i, 4) indices of the distinct map of each candidate's coordinates.
    """

    def __init__(self, files: tuple[Path, ...], places: tuple[np.ndarray, ...], memory: int = MEMORY_BYTES) -> None:
        self.files = files
        self._place = np.concatenate(places) if files else np.zeros((0, 4), np.int64)  # (C, 4) row within the part
        self._part = np.repeat(np.arange(len(files)), [len(p) for p in places])  # (C,)
        self._memory = memory
        self._opened: dict[int, PartMaps] = {}
        self._map_shape = self._maps(0).shape[1:] if files else (1, 1, 1, 1)
        for number, file in enumerate(files):
            if self._maps(number).shape[1:] != self._map_shape:
                raise DataError(f"{file} holds maps of another shape than {files[0]}: it belongs to another collection")
        self._kept: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None  # codes, units, first row of each part

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (C, 4, L, K, h, w)."""
        return (len(self._place), 4, *self._map_shape)

    def __len__(self) -> int:
        return len(self._place)

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        return decode(*self.coded(index))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None, "_opened": {}}  # each process opens and caches for itself

    def coded(self, index: np.ndarray | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return codes (B, 4, L, K, h, w) uint8 and units (B, 4, L, K) float32: see
        :mod:`training.collection.part_arrays`.

        Raises:
            DataError: a part is damaged.
        """
        index = np.asarray(index, dtype=np.int64)
        if self._kept is None and self.distinct() * int(np.prod(self._map_shape)) <= self._memory:
            self._kept = self._read_all()
        part, place = self._part[index], self._place[index]  # (B,), (B, 4)
        if self._kept is not None:
            codes, unit, start = self._kept
            rows = start[part][:, None] + place
            return codes[rows], unit[rows]
        layers, heads = self._map_shape[:2]
        out = np.empty((len(index), 4, *self._map_shape), np.uint8)
        units = np.empty((len(index), 4, layers, heads), np.float32)
        for number in np.unique(part):
            here = part == number
            rows, back = np.unique(place[here], return_inverse=True)
            read, unit = self._maps(int(number)).read(rows)
            out[here], units[here] = read[back.reshape(-1, 4)], unit[back.reshape(-1, 4)]
        return out, units

    def distinct(self) -> int:
        """Return the number of distinct coordinate maps of all candidates."""
        return sum(self._maps(number).shape[0] for number in range(len(self.files)))

    def _maps(self, number: int) -> PartMaps:
        if number not in self._opened:
            self._opened[number] = PartMaps(self.files[number])
        return self._opened[number]

    def _read_all(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        parts = [self._maps(number) for number in range(len(self.files))]
        read = [part.read(np.arange(part.shape[0])) for part in parts]
        start = np.cumsum([0, *(len(codes) for codes, _ in read)])[:-1]
        return np.concatenate([c for c, _ in read]), np.concatenate([s for _, s in read]), start
