"""The maps of a collection: on disk, unpacked when they are asked for, kept in memory where all of them fit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from training.errors import DataError
from training.quantise import decode

MEMORY_BYTES = 2 << 30  # of codes that may be kept in memory


class StoredMaps:
    """``maps[index]`` for candidate numbers ``index`` (B,): attention (B, 4, L, K, h, w) float32.

    ``files`` are the store's parts that hold candidates, ``places`` (C_i, 4) for each of them which of its distinct
    maps a candidate's coordinate has. Several processes may read; each opens the files for itself.
    """

    def __init__(self, files: tuple[Path, ...], places: tuple[np.ndarray, ...], memory: int = MEMORY_BYTES) -> None:
        self._files = files
        self._place = np.concatenate(places) if files else np.zeros((0, 4), np.int64)  # (C, 4) row within the part
        self._part = np.repeat(np.arange(len(files)), [len(p) for p in places])  # (C,)
        self._memory = memory
        self._map_shape = tuple(int(n) for n in _arrays(files[0])[0].shape[1:]) if files else (1, 1, 1, 1)
        for file in files:
            if tuple(_arrays(file)[0].shape[1:]) != self._map_shape:
                raise DataError(f"{file} holds maps of another shape than {files[0]}: it belongs to another collection")
        self._kept: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None  # codes, units, first row of each part

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, 4, L, K, h, w)."""
        return (len(self._place), 4, *self._map_shape)

    def __len__(self) -> int:
        return len(self._place)

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        return decode(*self.coded(index))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}  # a process that reads along reads for itself

    def coded(self, index: np.ndarray | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Codes (B, 4, L, K, h, w) uint8 and units (B, 4, L, K) float32: see :mod:`training.quantise`.

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
            read, unit = self._read(int(number), rows)
            out[here], units[here] = read[back.reshape(-1, 4)], unit[back.reshape(-1, 4)]
        return out, units

    def distinct(self) -> int:
        """How many different coordinate maps lie behind all candidates."""
        return sum(int(_arrays(file)[0].shape[0]) for file in self._files)

    def _read(self, number: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        codes, unit = _arrays(self._files[number])
        try:
            runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)  # slices are read many times faster than lists
            return np.concatenate([codes[r[0] : r[-1] + 1] for r in runs]), unit[:][rows]
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(
                f"{self._files[number]} is damaged ({error}): delete it and run `acs-train collect` again"
            ) from error

    def _read_all(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        read = [self._read(i, np.arange(_arrays(file)[0].shape[0])) for i, file in enumerate(self._files)]
        start = np.cumsum([0, *(len(codes) for codes, _ in read)])[:-1]
        return np.concatenate([c for c, _ in read]), np.concatenate([s for _, s in read]), start


@lru_cache(maxsize=4096)
def _arrays(file: Path) -> tuple[Any, Any]:
    """The arrays of codes and units of one part."""
    try:
        group = zarr.open_group(file, mode="r")
        return group["codes"], group["unit"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{file} is damaged ({error}): delete it and run `acs-train collect` again") from error
