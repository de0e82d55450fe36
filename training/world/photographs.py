"""Photographs of the user as backgrounds of the rendered world, divided between the splits by their names."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np

from training.data.pictures import read_picture
from training.errors import DataError
from training.world.textures import SIDE

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
# Of ten photographs, the first seven by the digest of their names are for training.
SHARES = {"train": range(7), "val": range(7, 8), "test": range(8, 10), "shifted": range(8, 10)}


def photographs_of(folder: Path, split: str) -> tuple[Path, ...]:
    """Return the photographs in ``folder``, without its subfolders, that belong to ``split``, in the order of their
    names. The division depends on the name of each file alone; test and shifted share theirs.

    Raises:
        DataError: there is none for this split.
    """
    found = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    mine = tuple(p for p in found if _place(p) in SHARES[split])
    if not mine:
        raise DataError(
            f"{folder} holds {len(found)} photographs ({', '.join(SUFFIXES)}) and none for the split {split}: each "
            "split takes a share of them by their names, so about thirty are needed"
        )
    return mine


def fingerprint(folder: Path) -> str:
    """Return eight hexadecimal digits that stand for the names and contents of the photographs in ``folder``."""
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES and p.is_file()):
        digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:8]


def read_source(file: Path) -> np.ndarray:
    """Read a photograph as a background source, (SIDE, SIDE, 3) uint8 RGB: the middle of it, its shorter side scaled to
    SIDE pixels.

    Raises:
        DataError: it is not a readable picture.
    """
    image = read_picture(file)
    scale = SIDE / min(image.shape[:2])
    width, height = (max(SIDE, round(scale * side)) for side in (image.shape[1], image.shape[0]))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    sized = cv2.resize(image, (width, height), interpolation=method)
    x, y = (width - SIDE) // 2, (height - SIDE) // 2
    return np.ascontiguousarray(sized[y : y + SIDE, x : x + SIDE])


def _place(file: Path) -> int:
    return hashlib.sha256(file.name.encode()).digest()[0] % 10
