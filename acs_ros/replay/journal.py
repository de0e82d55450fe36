"""Answers written to disk as they come, so that a stopped run can be resumed.

One file per combination of settings, ``answers-DIGEST.jsonl``: its first line has the settings, every other line one
answer, sealed (:mod:`acs_core.artifacts.sealed`): a line that was changed or cut short is left out, and its question
asked again. An answer is known by its frame (stamp, frame_id and a digest of the recorded message) and its phrase, so
it is found again in a longer bag too, and not in another bag with the same stamps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TextIO

from acs_core.artifacts.json_io import SMALL
from acs_core.artifacts.sealed import seal, unseal
from acs_core.errors import with_file
from acs_core.serialize import result_from_dict, result_to_dict
from acs_core.types import GroundingResult
from acs_ros.bags.frames import FrameAt

DIGITS = 12
LINE = SMALL  # of one answer, which takes some 100 KB with 256 responses


@dataclass(frozen=True)
class Kept:
    """Answer to one question: a ``result``, or the ``problem`` why there is none; wall time of the call in ms."""

    result: GroundingResult | None
    latency_ms: float | None
    problem: str = ""


class AnswerJournal:
    """The answers under ``settings`` in ``folder``; a context manager. ``found`` is how many there were already,
    ``others`` how many files of other settings lie there."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        text = json.dumps(dict(settings), sort_keys=True)
        self.file = folder / f"answers-{hashlib.sha256(text.encode()).hexdigest()[:DIGITS]}.jsonl"
        self.others = sum(f != self.file for f in folder.glob("answers-*.jsonl"))
        self._name = self.file.stem
        self._known = _read(self.file)
        self.found = len(self._known)
        fresh = not self.file.is_file() or not self.file.stat().st_size
        with with_file(self.file):
            self._out: TextIO = self.file.open("a", encoding="utf-8")
        if fresh:
            self._line({"settings": dict(settings)})
        elif not _ends_with_newline(self.file):
            self._out.write("\n")  # the last line was cut short: it stays behind, and is not read

    def __enter__(self) -> AnswerJournal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._out.close()

    def get(self, frame: FrameAt, digest: str, phrase: str) -> Kept | None:
        """The answer from an earlier run; None without one."""
        return self._known.get((frame.stamp, frame.frame_id, digest, phrase))

    def add(self, frame: FrameAt, digest: str, phrase: str, kept: Kept) -> Kept:
        """Write an answer and return it as it will be read back, so that a resumed run gives exactly the numbers of one
        that was not stopped."""
        record = {
            "file": self._name,
            "frame": frame.number,
            "stamp": frame.stamp,
            "frame_id": frame.frame_id,
            "digest": digest,
            "phrase": phrase,
            "latency_ms": None if kept.latency_ms is None else round(kept.latency_ms, 3),
            "problem": kept.problem,
            "result": None if kept.result is None else result_to_dict(kept.result),
        }
        self._line(record)
        return _kept(record)

    def _line(self, record: Mapping[str, Any]) -> None:
        with with_file(self.file):
            self._out.write(json.dumps(seal(record)) + "\n")
            self._out.flush()


def digest_of(data: bytes) -> str:
    """Digest of a recorded message, as hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _read(file: Path) -> dict[tuple[str, str, str, str], Kept]:
    known: dict[tuple[str, str, str, str], Kept] = {}
    if not file.is_file():
        return known
    with file.open("rb") as content:
        for line in _lines(content):
            try:
                record = unseal(line, LINE)
                if record.get("file") == file.stem:  # not the settings, nor an answer under others
                    key = record["stamp"], record["frame_id"], record["digest"], record["phrase"]
                    known[key] = _kept(record)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # changed, or cut short by the end of the process: asked again
    return known


def _lines(content: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, without those longer than an answer may be."""
    while line := content.readline(LINE.max_bytes):
        if line.endswith(b"\n") or len(line) < LINE.max_bytes:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = content.readline(LINE.max_bytes)


def _kept(record: Mapping[str, Any]) -> Kept:
    result = None if record["result"] is None else result_from_dict(record["result"])
    return Kept(result, record["latency_ms"], record["problem"])


def _ends_with_newline(file: Path) -> bool:
    with file.open("rb") as content:
        content.seek(-1, 2)
        return content.read(1) == b"\n"
