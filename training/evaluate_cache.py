"""What an evaluation keeps, by content: collections under a name that their settings give, finished runs under one that
collection, selectors and code give. What is there is not asked and not judged again."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import acs_core
from acs_core.judging import Judge
from training.collect_job import Job
from training.errors import DataError
from training.manifest import fingerprint, read_manifest


def collection_name(manifest: dict[str, Any]) -> str:
    """The folder of the collection with this manifest, as "tiny-internvl-test-small-t0.5-n10-0123456789ab": model, data
    set, kind of pairs, sampling, and the :func:`training.manifest.fingerprint` that tells it from all others."""
    kinds = sorted(set(manifest["kinds"])) or [""]
    kinds += ["second-look"] if "windows" in manifest else []
    drawn = "greedy" if manifest["greedy"] else f"t{manifest['temperature']:g}-n{manifest['samples']}"
    model, data = Path(manifest["model"]["model"]).name, Path(manifest["data"]).parent.name
    readable = "-".join(part for part in (model, data, *kinds, drawn) if part)
    return f"{re.sub(r'[^a-zA-Z0-9._-]+', '-', readable)}-{fingerprint(manifest)}"


@dataclass(frozen=True)
class Place:
    """Where a collection is or will be, and whether it is complete. One that is not ``ours`` is read and never written
    to."""

    folder: Path
    complete: bool
    ours: bool = True


class Shelf:
    """The collections below ``folder``, and those in the sub-folders of ``others``."""

    def __init__(self, folder: Path, others: Sequence[Path] = ()) -> None:
        self.folder = folder
        self._others = {found: place for other in others for found, place in _collections(other)}

    def place(self, manifest: dict[str, Any], job: Job) -> Place:
        """The place for the collection that ``manifest`` begins: one of the others if that is complete."""
        own = self.folder / collection_name(manifest)
        other = self._others.get(fingerprint(manifest))
        if other and job.missing(own) and not job.missing(other):
            return Place(other, True, ours=False)
        return Place(own, not job.missing(own))


def answers_name(*parts: object) -> str:
    """A short name for what follows from ``parts`` and from the code of the engine."""
    digest = hashlib.sha256(_code().encode())
    for part in parts:
        digest.update(_content(part))
    return digest.hexdigest()[:16]


def _collections(folder: Path) -> Iterable[tuple[str, Path]]:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder with collections")
    for file in sorted(folder.glob("*/manifest.json")):
        try:
            yield fingerprint(read_manifest(file.parent)), file.parent
        except DataError:  # of another version, or none of ours: of no use here
            continue


def _code() -> str:
    root = Path(acs_core.__file__).parent
    here = Path(__file__).parent
    files = sorted(root.rglob("*.py")) + sorted(here.glob("evaluate*.py"))
    files += [here / "offline_choice.py", here / "second_look.py"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _content(part: object) -> bytes:
    if isinstance(part, Judge):
        curves = [curve and curve.to_dict() for curve in (part.calibration, part.second_look)]
        return _content(part.selector) + json.dumps(curves).encode()
    written = io.BytesIO()
    _ByValue(written, protocol=5).dump(part)
    return written.getvalue()


class _ByValue(pickle.Pickler):
    """Pickles tensors as their numbers alone: torch's own pickles of equal tensors differ."""

    def reducer_override(self, obj: Any) -> Any:
        """``bytes`` of a tensor; everything else as usual."""
        if isinstance(obj, torch.Tensor):
            return bytes, (obj.detach().float().cpu().numpy().tobytes(),)
        return NotImplemented
