"""Store of collected candidates: a folder of parts, each a zarr 3 group of some pairs. A part is written completely or
not at all, so that a stopped collection can be resumed.

Boxes and entropies are few and are read into memory; maps are many and stay on disk (:mod:`training.collection.maps`).
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from acs_core.geometry import Box
from acs_core.output import write_text
from training.collection.manifest import (
    MANIFEST,
    changed_pictures,
    compared,
    complete,
    fingerprint,
    manifest_text,
    read_manifest,
)
from training.collection.maps import StoredMaps
from training.collection.part_arrays import TYPES, check_size, write_arrays
from training.collection.part_digests import errors_as_data_errors, write_digests
from training.collection.part_reading import (
    ANSWERS,
    ANSWERS_LIMITS,
    NAMES,
    TOKENS,
    read_answers,
    read_skipped_pairs,
    read_table,
)
from training.errors import DataError

PAIRS = {"pairs", "kinds", "truth", "windows"}  # lists in a manifest with an entry for each pair
CHUNK_BYTES = 1 << 18  # size of the codes that are compressed together, and unpacked to read one candidate
SHARD_BYTES = 1 << 27
PARTIAL = re.compile(r"part_[0-9]{5}\.partial-[0-9]+")  # an unfinished part, with the id of the writing process


@dataclass(frozen=True)
class CollectionPart:
    """Content of one part.

    Attributes:
        codes: (M, L, K, h, w) uint8 codes of the distinct maps.
        unit: (M, L, K) float32 units of the distinct maps.
        place: (C, 4) indices of the distinct map of each candidate's coordinates.
        entropy: (C, 4, L, K) float32 in nats.
        rows: (C, 17) columns of :data:`training.collection.part_reading.NAMES`.
        pairs: indices of the sampled pairs.
        skipped: reason for each skipped pair, by pair index.
        answers: one JSON object per response.
    """

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
    """Collection of C candidates of many pairs.

    Attributes:
        maps: attention; ``maps[index]`` reads (len(index), 4, L, K, h, w) float32 from disk.
        entropy: (C, 4, L, K) float32 in nats.
        iou: (C,) float32 IoU with the nearest true box.
        box: (C, 4) boxes in pixels.
        pair: (C,) indices in the manifest's list of pairs.
        image: (C,) image ids.
        response: (C,) as in :class:`acs_core.types.Candidate`.
        order: (C,) as in :class:`acs_core.types.Candidate`.
        tokens: (C, 4) as in :class:`acs_core.types.Candidate`.
        image_size: (C, 2) width and height in pixels.
        grid: (C, 2) native (Hv, Wv) of the attention maps that ``entropy`` was computed from.
        pairs: indices of all collected pairs, including those without a candidate.
        manifest: the manifest.
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
        """Kind of pair of each candidate, (C,) ("small", ...), as in :class:`training.data.pairs.Pair`."""
        kinds = self.manifest.get("kinds") or [""] * (1 + int(self.pair.max(initial=-1)))
        return np.array(kinds)[self.pair] if len(self.pair) else np.zeros(0, str)

    def truth(self, pair: int) -> tuple[Box, ...]:
        """Return the true boxes of pair ``pair``, in pixels.

        Raises:
            DataError: the collection was made before true boxes were stored.
        """
        kept = self.manifest.get("truth")
        if kept is None:
            raise DataError("the collection holds no true boxes, an older version of acs made it: collect again")
        return tuple(Box(*(float(v) for v in box)) for box in kept[pair])


def open_store(folder: Path, manifest: dict[str, Any]) -> None:
    """Create a store in the output folder ``folder``, or check that the store there has the same ``manifest``.
    Unfinished parts of a killed run are removed.

    Raises:
        DataError: the store in ``folder`` was made with another model, data or settings.
    """
    manifest = complete(manifest)
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.iterdir():
        if PARTIAL.fullmatch(left.name) and left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
    file = folder / MANIFEST
    if not file.exists():
        write_text(file, manifest_text(manifest))
        return
    found = read_manifest(folder)
    check_pictures(folder, manifest, found)
    mine, theirs = compared(manifest), compared(found)
    keys = {*theirs, *mine}
    differing = sorted((k for k in keys if theirs.get(k) != mine.get(k)), key=lambda k: (k == "pairs", k))
    if "pairs" in differing and set(differing) <= PAIRS:
        raise DataError(
            f"{folder} holds a collection of {len(found['pairs'])} pairs, and other {len(manifest['pairs'])} are to be "
            "asked now (other annotations, sizes or limits): choose another folder for it, or delete that one"
        )
    if differing:
        k = differing[0]
        raise DataError(
            f"{folder} holds a collection with {k} {_short(found.get(k))}, not {_short(manifest.get(k))}: "
            "choose another folder for it, or delete that one"
        )


def check_pictures(folder: Path, manifest: dict[str, Any], found: dict[str, Any]) -> None:
    """Raise DataError if pictures of ``manifest`` are other files than in ``found``, the manifest of the store in
    ``folder``."""
    if manifest.get("pairs") == found.get("pairs") and (changed := changed_pictures(manifest, found)):
        raise DataError(
            f"{folder} was collected from other pictures: {changed} of {len(found['pairs'])} pairs have changed files. "
            "Choose another folder, or delete that one"
        )


def holds_store(folder: Path) -> bool:
    """Whether ``folder`` holds a store."""
    try:
        read_manifest(folder)
    except DataError:
        return False
    return True


def part_folder(folder: Path, number: int) -> Path:
    """Return the folder of part ``number``."""
    return folder / f"part_{number:05d}"


def write_part(folder: Path, number: int, part: CollectionPart) -> None:
    """Write one part, under a temporary name first, so that a folder with the final name is always complete. An
    existing part is kept.

    Raises:
        DataError: the disk is full, or the part is larger than what can be read again. Parts written before are kept.
    """
    target = part_folder(folder, number)
    if target.exists():
        return
    check_size({name: getattr(part, name).shape for name in TYPES})
    answers = json.dumps(list(part.answers)).encode()
    try:
        ANSWERS_LIMITS.check(answers)
    except ValueError as error:
        raise DataError(f"the answers of part {number} cannot be kept: {error}. Collect fewer responses") from error
    partial = folder / f"{target.name}.partial-{os.getpid()}"
    try:
        _write(partial, part, answers)
        write_digests(partial, number, _collection(folder))
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


def _write(place: Path, part: CollectionPart, answers: bytes) -> None:
    group = zarr.open_group(place, mode="w", zarr_format=3)
    group.attrs.update({"pairs": list(part.pairs), "skipped": {str(k): v for k, v in part.skipped.items()}})
    write_arrays(group, {name: getattr(part, name) for name in TYPES})
    (place / ANSWERS).write_bytes(answers)


def part_files(folder: Path) -> list[Path]:
    """Return the folders of the existing parts, in order."""
    return sorted(folder.glob("part_[0-9][0-9][0-9][0-9][0-9]"))


def read_store(folder: Path, may_be_empty: bool = False) -> Collection:
    """Read the collection in ``folder``; its maps stay on disk.

    Raises:
        DataError: there is no store or no part, a part is damaged (named), or there is no candidate (unless
            ``may_be_empty``).
    """
    manifest = read_manifest(folder)
    collection = fingerprint(manifest)
    rows, entropy, places, files = [], [], [], []
    asked: set[int] = set()
    for file in _parts(folder):
        read = read_table(file, collection, manifest)
        with errors_as_data_errors(file):
            if twice := asked & {*read.pairs}:
                raise ValueError(f"pair {min(twice)} is in another part too")
        asked.update(read.pairs)
        if len(read.rows):
            files.append(file)
            rows.append(read.rows)
            entropy.append(read.entropy)
            places.append(read.place)
    if not rows and not may_be_empty:
        raise DataError(f"{folder} holds {len(asked)} collected pairs and not one box: the model answers with none")
    table = np.concatenate(rows) if rows else np.zeros((0, len(NAMES)))
    column = {name: table[:, i] for i, name in enumerate(NAMES)}

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
    """Read every response of the store.

    Returns:
        Mappings with "pair", "response", the fields of :class:`acs_core.types.Response`, and "token_entropy" and
        "token_logprob", the entropy and the log-probability in nats at each of its tokens. The first to each pair also
        has "hidden", the last hidden state at the end of the prompt, (D,) float32, except in earlier collections.

    Raises:
        DataError: there is no store or no part, or a part is damaged.
    """
    parts, collection = _parts(folder), _collection(folder)
    return [answer for file in parts for answer in read_answers(file, collection)]


def read_skipped(folder: Path) -> dict[int, str]:
    """Read the skipped pairs, by pair index, with the reason for each.

    Raises:
        DataError: a part is damaged.
    """
    collection = _collection(folder)
    return {i: why for file in part_files(folder) for i, why in read_skipped_pairs(file, collection).items()}


def _parts(folder: Path) -> list[Path]:
    files = part_files(folder)
    if not files:
        read_manifest(folder)
        raise DataError(f"{folder} holds no collected candidates yet: run `acs-train collect` to the end")
    return files


def _collection(folder: Path) -> str:
    """Return the fingerprint of the collection in ``folder``; "" if it has no manifest."""
    return fingerprint(read_manifest(folder)) if (folder / MANIFEST).exists() else ""


def _short(value: Any) -> str:
    text = repr(value)
    return (
        text if len(text) <= 120 else f"{text[:80]} ... ({len(value) if isinstance(value, list) else 'other'} in all)"
    )
