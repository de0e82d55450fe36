"""Verification of a store: compares all of its files with their digests, and reads every value once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.collection.manifest import fingerprint, read_manifest
from training.collection.part_digests import read_digests, verify
from training.collection.part_reading import PartMaps, read_answers
from training.collection.store import part_files, read_store
from training.errors import DataError


@dataclass(frozen=True)
class Verified:
    """Result of :func:`verify_store`: the numbers of intact parts, files, candidates and responses.

    Attributes:
        parts: number of parts.
        files: number of files.
        size: total size of the files in bytes.
        candidates: number of candidates.
        responses: number of responses.
    """

    parts: int
    files: int
    size: int
    candidates: int
    responses: int

    def to_dict(self) -> dict[str, float]:
        """Return the rows of the command's table."""
        return {
            "parts": self.parts,
            "files with the right SHA-256": self.files,
            "MB": round(self.size / 1e6, 2),
            "candidates": self.candidates,
            "responses": self.responses,
        }


def verify_store(folder: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> Verified:
    """Verify all of the store in ``folder``. ``progress`` is called with (parts done, number of parts).

    Raises:
        DataError: the store is damaged; names every damaged part.
    """
    parts, collection = part_files(folder), fingerprint(read_manifest(folder))
    files, size, responses = 0, 0, 0
    problems = []
    for done, part in enumerate(parts):
        progress(done, len(parts))
        try:
            digests = read_digests(part, collection)
            verify(part, digests)
            if (part / "codes").exists():
                maps = PartMaps(part)
                for start in range(0, maps.shape[0], 64):
                    maps.read(np.arange(start, min(start + 64, maps.shape[0])))
            responses += len(read_answers(part, collection))
        except DataError as error:
            problems.append(str(error))
            continue
        files += len(digests.files)
        size += sum(there for there, _ in digests.files.values())
    progress(len(parts), len(parts))
    if problems:
        raise DataError(f"{len(problems)} of {len(parts)} parts are damaged: " + "; ".join(problems))
    data = read_store(folder, may_be_empty=True)
    return Verified(len(parts), files, size, len(data.iou), responses)
