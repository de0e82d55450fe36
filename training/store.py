"""Where collected candidates live: a folder of parts, each a zarr 3 group of some pairs, written whole or not at all,
so that a collection that was stopped goes on where it was.

Boxes and entropies are few and are read into memory; maps are many and stay on disk (:mod:`training.maps`).
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from acs_core.geometry import Box
from training.errors import DataError
from training.manifest import MANIFEST, NOT_COMPARED, complete, read_manifest
from training.maps import StoredMaps

ANSWERS = "answers.json"
COLUMNS = ("iou", "x1", "y1", "x2", "y2", "pair", "image", "response", "order", "width", "height", "grid_h", "grid_w")
TOKENS = ("token_x1", "token_y1", "token_x2", "token_y2")
CHUNK_BYTES = 1 << 18  # of codes that are compressed together: what one read of a candidate unpacks
SHARD_BYTES = 1 << 27


@dataclass(frozen=True)
class Part:
    """What is written for a few pairs. M distinct ``codes`` (M, L, K, h, w) uint8 with ``unit`` (M, L, K) float32;
    ``place`` (C, 4) says which of them a candidate's coordinate has. ``entropy`` (C, 4, L, K) float32 in nats;
    ``rows`` (C, 17) the ``COLUMNS`` and ``TOKENS``. ``pairs`` are the indices of the pairs that were asked,
    ``skipped`` maps the others to the reason. ``answers``: one JSON object a response."""

    codes: np.ndarray
    unit: np.ndarray
    place: np.ndarray
    entropy: np.ndarray
    rows: np.ndarray
    pairs: tuple[int, ...]
    skipped: dict[int, str]
    answers: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Collection:
    """C candidates of many pairs. ``maps[index]`` gives attention (len(index), 4, L, K, h, w) float32, read from disk;
    ``entropy`` (C, 4, L, K) float32 nats, ``iou`` (C,) float32 with the nearest true box, ``box`` (C, 4) pixels,
    ``pair`` (C,) indices into the manifest's list of pairs, ``image`` (C,) image ids, ``response``, ``order`` and
    ``tokens`` (C, 4) as in :class:`acs_core.types.Candidate`.

    ``pairs`` are the indices of all collected pairs, those without any candidate too; ``image_size`` (C, 2) is
    (width, height) and ``grid`` the native (Hv, Wv) of the attention maps behind ``entropy``, (C, 2).
    """

    maps: StoredMaps
    entropy: np.ndarray
    iou: np.ndarray
    box: np.ndarray
    pair: np.ndarray
    image: np.ndarray
    response: np.ndarray
    order: np.ndarray
    tokens: np.ndarray
    image_size: np.ndarray
    grid: np.ndarray
    pairs: np.ndarray
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def kinds(self) -> np.ndarray:
        """(C,) what kind of pair each candidate belongs to ("small", ...), as :class:`training.coco.Pair` says."""
        kinds = self.manifest.get("kinds") or [""] * (1 + int(self.pair.max(initial=-1)))
        return np.array(kinds)[self.pair] if len(self.pair) else np.zeros(0, str)

    def truth(self, pair: int) -> tuple[Box, ...]:
        """The true boxes of pair ``pair``, in pixels.

        Raises:
            DataError: the collection was made before true boxes were kept.
        """
        kept = self.manifest.get("truth")
        if kept is None:
            raise DataError("the collection holds no true boxes, an older version of acs made it: collect again")
        return tuple(Box(*(float(v) for v in box)) for box in kept[pair])


def open_store(folder: Path, manifest: dict[str, Any]) -> None:
    """Starts a store, or makes sure that the one in ``folder`` was begun with the same ``manifest``. What a killed run
    left half written is removed.

    Raises:
        DataError: the store in ``folder`` was made with another model, data or settings.
    """
    manifest = complete(manifest)
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.partial*"):
        shutil.rmtree(left, ignore_errors=True)
    file = folder / MANIFEST
    if not file.exists():
        partial = folder / f"{MANIFEST}.new"
        partial.write_text(json.dumps(manifest, indent=1) + "\n")
        partial.replace(file)
        return
    found = read_manifest(folder)
    keys = {*found, *manifest} - set(NOT_COMPARED)
    differing = sorted((k for k in keys if found.get(k) != manifest.get(k)), key=lambda k: (k == "pairs", k))
    if differing:
        k = differing[0]
        raise DataError(
            f"{folder} holds a collection with {k} {_short(found.get(k))}, not {_short(manifest.get(k))}: "
            "choose another folder for it, or delete that one"
        )


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keeps a second run from writing into ``folder`` at the same time.

    Raises:
        DataError: another run does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except BlockingIOError as error:
            raise DataError(
                f"another run is collecting into {folder}: wait for it, or choose another folder"
            ) from error
        yield


def part_folder(folder: Path, number: int) -> Path:
    """Where part ``number`` is."""
    return folder / f"part_{number:05d}"


def write_part(folder: Path, number: int, part: Part) -> None:
    """Writes one part: under another name first, so that a folder with the right name is always whole. A part that is
    there already stays.

    Raises:
        DataError: the disk is full. What was written before is kept.
    """
    target = part_folder(folder, number)
    if target.exists():
        return
    partial = folder / f"{target.name}.partial-{os.getpid()}"
    try:
        _write(partial, part)
        for file in partial.rglob("*"):
            if file.is_file():
                with file.open("rb") as written:
                    os.fsync(written.fileno())
        partial.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(
            f"the disk is full: part {number} of {folder} could not be written. All parts before it are kept; free "
            "some space and run the same command again"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(place: Path, part: Part) -> None:
    group = zarr.open_group(place, mode="w", zarr_format=3)
    group.attrs.update({"pairs": list(part.pairs), "skipped": {str(k): v for k, v in part.skipped.items()}})
    codes = part.codes
    if len(codes):
        each = max(1, codes[0].size)
        chunk = max(1, min(len(codes), CHUNK_BYTES // each))
        shard = chunk * max(1, min(-(-len(codes) // chunk), SHARD_BYTES // (chunk * each)))
        group.create_array(
            "codes",
            data=codes,
            chunks=(chunk, *codes.shape[1:]),
            shards=(shard, *codes.shape[1:]),
            compressors=ZstdCodec(level=6),
        )
    for name in ("unit", "place", "entropy", "rows"):
        array = getattr(part, name)
        group.create_array(
            name, data=array, chunks=tuple(max(1, n) for n in array.shape), compressors=ZstdCodec(level=3)
        )
    (place / ANSWERS).write_text(json.dumps(list(part.answers)))


def part_files(folder: Path) -> list[Path]:
    """The parts that are there, in order."""
    return sorted(folder.glob("part_[0-9][0-9][0-9][0-9][0-9]"))


def read_store(folder: Path, may_be_empty: bool = False) -> Collection:
    """What ``folder`` holds; the maps stay on disk until they are asked for.

    Raises:
        DataError: no store, no part, a damaged one, or not one candidate (unless it ``may_be_empty``).
    """
    manifest = read_manifest(folder)
    rows, entropy, places, files, asked = [], [], [], [], []
    for file in _parts(folder):
        try:
            group = zarr.open_group(file, mode="r")
            attributes: Any = dict(group.attrs)
            asked += [int(i) for i in attributes["pairs"]]
            table, part_entropy, place = (np.asarray(group[name][:]) for name in ("rows", "entropy", "place"))  # type: ignore[index]
            if len(table) and "codes" not in group:
                raise ValueError("its maps are missing")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(_damaged(file, error)) from error
        if len(table):
            files.append(file)
            rows.append(table)
            entropy.append(part_entropy)
            places.append(place)
    if not rows and not may_be_empty:
        raise DataError(f"{folder} holds {len(asked)} collected pairs and not one box: the model answers with none")
    table = np.concatenate(rows) if rows else np.zeros((0, len(COLUMNS) + len(TOKENS)))
    column = {name: table[:, i] for i, name in enumerate((*COLUMNS, *TOKENS))}

    def whole(*names: str) -> np.ndarray:
        return np.stack([column[n].astype(np.int64) for n in names], axis=1)

    return Collection(
        maps=StoredMaps(tuple(files), tuple(places)),
        entropy=np.concatenate(entropy) if rows else np.zeros((0, 4, 1, 1), np.float32),
        iou=column["iou"].astype(np.float32),
        box=np.stack([column[c] for c in ("x1", "y1", "x2", "y2")], axis=1),
        **{name: column[name].astype(np.int64) for name in ("pair", "image", "response", "order")},
        tokens=whole(*TOKENS),
        image_size=whole("width", "height"),
        grid=whole("grid_h", "grid_w"),
        pairs=np.array(sorted(asked), dtype=np.int64),
        manifest=manifest,
    )


def read_responses(folder: Path) -> list[dict[str, Any]]:
    """Every response of the store as it was written: "pair", "response", the fields of
    :class:`acs_core.types.Response`, and "token_entropy", the entropy in nats at each of its tokens.

    Raises:
        DataError: no store, no part, or a damaged one.
    """
    found: list[dict[str, Any]] = []
    for file in _parts(folder):
        try:
            found += json.loads((file / ANSWERS).read_text())
        except (OSError, ValueError) as error:
            raise DataError(_damaged(file, error)) from error
    return found


def read_skipped(folder: Path) -> dict[int, str]:
    """The pairs that could not be asked, by index, with the reason.

    Raises:
        DataError: a part is damaged.
    """
    found: dict[int, str] = {}
    for file in part_files(folder):
        try:
            attrs = zarr.open_group(file, mode="r").attrs
            found |= {int(k): str(v) for k, v in attrs["skipped"].items()}  # type: ignore[union-attr]
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise DataError(_damaged(file, error)) from error
    return found


def _parts(folder: Path) -> list[Path]:
    files = part_files(folder)
    if not files:
        read_manifest(folder)
        raise DataError(f"{folder} holds no collected candidates yet: run `acs-train collect` to the end")
    return files


def _damaged(file: Path, error: Exception) -> str:
    return f"{file} is damaged ({type(error).__name__} {error}): delete it and run `acs-train collect` again"


def _short(value: Any) -> str:
    text = repr(value)
    return (
        text if len(text) <= 120 else f"{text[:80]} ... ({len(value) if isinstance(value, list) else 'other'} in all)"
    )
