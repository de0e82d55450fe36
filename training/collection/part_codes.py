"""Unpacking of codes: reads the zstd frames of a part where they lie, into memory that the caller provides.

zarr reads a chunk in about ten times the time that unpacking takes. Reading a file and unpacking a frame release
Python's global lock, so that several threads read in parallel.
"""

from __future__ import annotations

import math
import os
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numcodecs.zstd import Zstd

from training.collection.part_arrays import ABSENT, LEVELS, CodeFrames


def unpack(frames: CodeFrames, rows: np.ndarray, out: np.ndarray, at: np.ndarray) -> None:
    """Write the codes of the maps ``rows`` (n,), in any order and also several times, to ``out[at]``.

    Args:
        frames: places of the frames of a part.
        rows: indices of maps, below M.
        out: (N, L, K, h, w) uint8, contiguous.
        at: (n,) indices in ``out``.

    Raises:
        ValueError: a code is above ``LEVELS``, or a file is shorter than before.
        OSError: a file cannot be read.
        RuntimeError: a frame is damaged.
    """
    frame = rows // frames.maps
    order = np.argsort(frame, kind="stable")
    borders = np.flatnonzero(np.diff(frame[order])) + 1
    each = math.prod(out.shape[1:])
    per_file = len(frames.places) // max(1, len(frames.files))
    alone = frames.maps == 1  # then a frame is unpacked at its place
    room = np.empty(0 if alone else frames.maps * each, np.uint8)
    flat = out.reshape(len(out), each)
    with ExitStack() as opened:
        files: dict[int, int] = {}
        for together in np.split(order, borders) if len(order) else ():
            number = int(frame[together[0]])
            start, length = (int(value) for value in frames.places[number])
            target = flat[at[together[0]]] if alone else room
            if start == length == ABSENT:
                target[:] = 0
            else:
                file = number // per_file
                if file not in files:
                    files[file] = os.open(frames.files[file], os.O_RDONLY)
                    opened.callback(os.close, files[file])
                packed = os.pread(files[file], length, start)
                if len(packed) < length:
                    raise ValueError("a shard of codes is shorter than before")
                Zstd().decode(packed, target)
                if int(target.max(initial=0)) > LEVELS:
                    raise ValueError(f"a code is above {LEVELS}")
            if alone:
                flat[at[together[1:]]] = target
            else:
                flat[at[together]] = target.reshape(frames.maps, each)[rows[together] % frames.maps]


def read_ahead(files: tuple[Path, ...]) -> None:
    """Tell the system that all of ``files`` will be read soon, so that it reads each from its beginning to its end."""
    if not hasattr(os, "posix_fadvise"):
        return
    for file in files:
        try:
            number = os.open(file, os.O_RDONLY)
        except OSError:  # a frame of it will be missed when it is needed
            continue
        try:
            os.posix_fadvise(number, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(number)
