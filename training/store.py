"""Where collected candidates live: one file per batch of pairs, written whole or not at all, so that a collection
that was stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from training.errors import DataError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Collection:
    """C candidates of many pairs. ``maps`` (C, 4, L, K, h, w) float16 attention, ``entropy`` (C, 4, L, K) float32
    nats, ``iou`` (C,) float32 with the nearest true box, ``box`` (C, 4) pixels, ``pair`` (C,) indices into the list
    of pairs, ``image`` (C,) image ids, ``response`` and ``order`` (C,) as in :class:`acs_core.types.Candidate`.

    ``pairs`` are the indices of all collected pairs, those without any candidate too; ``image_size`` (C, 2) is
    (width, height) and ``grid`` the native (Hv, Wv) of the attention maps behind ``entropy``, (C, 2).
    """

    maps: np.ndarray
    entropy: np.ndarray
    iou: np.ndarray
    box: np.ndarray
    pair: np.ndarray
    image: np.ndarray
    response: np.ndarray
    order: np.ndarray
    image_size: np.ndarray
    grid: np.ndarray
    pairs: np.ndarray
    manifest: dict[str, Any] = field(default_factory=dict)


_ARRAYS = ("maps", "entropy", "iou", "box", "pair", "image", "response", "order", "image_size", "grid", "pairs")


def open_store(folder: Path, manifest: dict[str, Any]) -> None:
    """Starts a store, or makes sure that the one in ``folder`` was begun with the same ``manifest``.

    Raises:
        DataError: the store in ``folder`` was made with another model, data or settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / MANIFEST
    if not file.exists():
        file.write_text(json.dumps(manifest, indent=2) + "\n")
        return
    found = read_manifest(folder)
    differing = sorted(k for k in {*found, *manifest} if found.get(k) != manifest.get(k))
    if differing:
        k = differing[0]
        raise DataError(
            f"{folder} holds a collection with {k} {found.get(k)!r}, not {manifest.get(k)!r}: "
            "choose another folder for it, or delete that one"
        )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The settings the store was made with.

    Raises:
        DataError: there is no store in ``folder``, or its manifest is damaged.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text())
    except OSError as error:
        raise DataError(f"{folder} holds no collection: make one with `acs-train collect`") from error
    except ValueError as error:
        raise DataError(f"{folder / MANIFEST} is damaged ({error}): collect again into another folder") from error
    if not isinstance(content, dict):
        raise DataError(f"{folder / MANIFEST} is damaged: it should hold a JSON object")
    return content


def shard_file(folder: Path, number: int) -> Path:
    """The file of batch ``number``."""
    return folder / f"shard_{number:05d}.npz"


def write_shard(folder: Path, number: int, arrays: dict[str, np.ndarray], responses: Sequence[dict[str, Any]]) -> None:
    """Writes one batch: under another name first, so that a file with the right name is always whole."""
    part = folder / f"shard_{number:05d}.part.npz"
    text = np.frombuffer(json.dumps(list(responses)).encode(), np.uint8)
    np.savez_compressed(part, responses=text, **arrays)  # type: ignore[arg-type]
    part.replace(shard_file(folder, number))


def read_store(folder: Path) -> Collection:
    """Everything in ``folder``, in memory.

    Raises:
        DataError: no store, no shard, or a damaged one.
    """
    manifest = read_manifest(folder)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in _ARRAYS}
    for file in _shards(folder):
        for name, array in _load(file, _ARRAYS).items():
            columns[name].append(array)
    # a shard without candidates has maps of no size
    joined = {k: np.concatenate([a for a in v if len(a)] or [v[0]]) for k, v in columns.items()}
    return Collection(**joined, manifest=manifest)


def read_responses(folder: Path) -> list[dict[str, Any]]:
    """Every response of the store as it was written: "pair", "response", and the fields of
    :class:`acs_core.types.Response`.

    Raises:
        DataError: no store, no shard, or a damaged one.
    """
    return [r for file in _shards(folder) for r in json.loads(_load(file, ("responses",))["responses"].tobytes())]


def _shards(folder: Path) -> list[Path]:
    files = sorted(folder.glob("shard_[0-9][0-9][0-9][0-9][0-9].npz"))
    if not files:
        raise DataError(f"{folder} holds no collected candidates yet: run `acs-train collect` to the end")
    return files


def _load(file: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as shard:
            return {name: shard[name] for name in names}
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise DataError(f"{file} is damaged ({error}): delete it and run `acs-train collect` again") from error
