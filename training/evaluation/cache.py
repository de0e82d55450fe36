"""Cache of an evaluation's collections and runs.

The name of a collection follows from its settings, that of a run from collection, selectors and code, so that unchanged
ones are reused.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import acs_core
from acs_core.evaluation.records import Evaluation
from acs_core.evaluation.storage import EvaluationError, load, save
from acs_core.selection.scorer import Scorer
from training.collection.job import Job
from training.collection.manifest import MANIFEST, fingerprint, read_manifest
from training.collection.store import check_pictures
from training.errors import DataError

KEPT_AS = "kept as"  # fact of a cached evaluation with the name of its file


def collection_name(manifest: dict[str, Any]) -> str:
    """Return the folder name of the collection with this manifest, for example
    "tiny-internvl-test-small-t0.5-n10-0123456789ab": model, data set, kinds of pairs, sampling, and the unique
    :func:`training.collection.manifest.fingerprint`."""
    kinds = sorted(set(manifest["kinds"])) or [""]
    kinds += ["second-look"] if "windows" in manifest else []
    drawn = "greedy" if manifest["greedy"] else f"t{manifest['temperature']:g}-n{manifest['samples']}"
    model, data = Path(manifest["model"]["model"]).name, Path(manifest["data"]).parent.name
    readable = "-".join(part for part in (model, data, *kinds, drawn) if part)
    return f"{re.sub(r'[^a-zA-Z0-9._-]+', '-', readable)}-{fingerprint(manifest)}"


@dataclass(frozen=True)
class Place:
    """Folder of an existing or future collection.

    Attributes:
        folder: the folder.
        complete: whether the collection is complete.
        ours: False for a collection that is only read, never written.
    """

    folder: Path
    complete: bool
    ours: bool = True


class CollectionCache:
    """Collections in the sub-folders of ``folder``, and, read only, in those of ``others``."""

    def __init__(self, folder: Path, others: Sequence[Path] = ()) -> None:
        self.folder = folder
        self._others = {found: place for other in others for found, place in _collections(other)}

    def place(self, manifest: dict[str, Any], job: Job) -> Place:
        """Return the place of the collection with this beginning of a manifest: one of ``others`` if only that is
        complete.

        Raises:
            DataError: a complete collection is of other picture files.
        """
        own = self.folder / collection_name(manifest)
        other = self._others.get(fingerprint(manifest))
        if other and job.missing(own) and not job.missing(other):
            _check_pictures(other, manifest)
            return Place(other, True, ours=False)
        whole = not job.missing(own)
        if whole:
            _check_pictures(own, manifest)
        return Place(own, whole)


def _check_pictures(folder: Path, manifest: dict[str, Any]) -> None:
    if (folder / MANIFEST).exists():
        check_pictures(folder, manifest, read_manifest(folder))


def answers_name(*parts: object) -> str:
    """Return a short name that identifies ``parts`` and the code of the engine."""
    digest = hashlib.sha256(_code().encode())
    for part in parts:
        digest.update(_content(part))
    return digest.hexdigest()[:16]


def kept_runs(file: Path) -> Evaluation | None:
    """Read the runs that :func:`keep_runs` wrote into ``file``.

    Returns None if there is no such file, or if it is damaged or was written under another name; it is left in place
    until :func:`keep_runs` replaces it.

    Raises:
        OSError: the file cannot be read, but may be intact.
    """
    try:
        found = load(file)
    except EvaluationError:
        return None
    if found.facts.get(KEPT_AS) != file.name or not (found.groups and found.groups[0].runs):
        return None
    return found


def keep_runs(evaluation: Evaluation, file: Path) -> Evaluation:
    """Write ``evaluation`` for :func:`kept_runs`, and return it as :func:`kept_runs` will.

    Raises:
        EvaluationError: it is larger than what can be read again; nothing is written.
        OSError: the file cannot be written.
    """
    return save(replace(evaluation, facts={**evaluation.facts, KEPT_AS: file.name}), file)


def _collections(folder: Path) -> Iterable[tuple[str, Path]]:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder with collections")
    for file in sorted(folder.glob("*/manifest.json")):
        try:
            yield fingerprint(read_manifest(file.parent)), file.parent
        except DataError:  # of another version, or not a collection
            continue


def _code() -> str:
    root = Path(acs_core.__file__).parent
    here = Path(__file__).parent
    files = sorted(root.rglob("*.py")) + sorted(here.glob("*.py"))
    files += [here.parent / "collection" / name for name in ("offline_selection.py", "second_look.py")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _content(part: object) -> bytes:
    if isinstance(part, Scorer):
        curves = [curve and curve.to_dict() for curve in (part.calibration, part.second_look)]
        return _content(part.selector) + json.dumps(curves).encode()
    written = io.BytesIO()
    _ByValue(written, protocol=5).dump(part)
    return written.getvalue()


class _ByValue(pickle.Pickler):
    """Pickler of tensors by value: torch's own pickles of equal tensors differ."""

    def reducer_override(self, obj: Any) -> Any:
        """Reduce a tensor to its ``bytes``, and everything else as usual."""
        if isinstance(obj, torch.Tensor):
            return bytes, (obj.detach().float().cpu().numpy().tobytes(),)
        return NotImplemented
