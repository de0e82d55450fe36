"""Answers on disk as they come, so that a run that was stopped goes on where it was.

One file per combination of settings, ``answers-DIGEST.jsonl``: its first line has the settings, every other line one
answer. An answer is known by its frame (stamp, frame_id and a digest of the recorded message) and its phrase, so it is
found again in a longer bag too, and not in another bag with the same stamps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from acs_core.serialize import result_from_dict, result_to_dict
from acs_core.types import GroundingResult
from acs_ros.replay.contents import FrameAt

DIGITS = 12


@dataclass(frozen=True)
class Kept:
    """What became of one question: a ``result``, or the ``problem`` that there is none; the call's wall time."""

    result: GroundingResult | None
    latency_ms: float | None
    problem: str = ""


class Journal:
    """The answers under ``settings`` in ``folder``; a context manager. ``found`` is how many there were already,
    ``others`` how many files of other settings lie there."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        text = json.dumps(dict(settings), sort_keys=True)
        self.file = folder / f"answers-{hashlib.sha256(text.encode()).hexdigest()[:DIGITS]}.jsonl"
        self.others = sum(f != self.file for f in folder.glob("answers-*.jsonl"))
        self._known = _read(self.file)
        self.found = len(self._known)
        fresh = not self.file.is_file() or not self.file.stat().st_size
        self._out: TextIO = self.file.open("a", encoding="utf-8")
        if fresh:
            self._line({"settings": dict(settings)})
        elif not _ends_with_newline(self.file):
            self._out.write("\n")  # the last line was cut short: it stays behind, and is not read

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._out.close()

    def get(self, frame: FrameAt, digest: str, phrase: str) -> Kept | None:
        """The answer that is there already; None: ask."""
        return self._known.get((frame.stamp, frame.frame_id, digest, phrase))

    def add(self, frame: FrameAt, digest: str, phrase: str, kept: Kept) -> Kept:
        """Write an answer down; returns it as it will be read again, so that a run that went on gives the very same
        numbers as one that was not stopped."""
        record = {
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
        self._out.write(json.dumps(record) + "\n")
        self._out.flush()


def digest_of(data: bytes) -> str:
    """A name for the bytes of a message."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _read(file: Path) -> dict[tuple[str, str, str, str], Kept]:
    known: dict[tuple[str, str, str, str], Kept] = {}
    if not file.is_file():
        return known
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                record = json.loads(line)
                if "settings" not in record:
                    key = record["stamp"], record["frame_id"], record["digest"], record["phrase"]
                    known[key] = _kept(record)
            except (ValueError, KeyError, TypeError):
                continue  # a line that was cut short by the end of the process: asked again
    return known


def _kept(record: Mapping[str, Any]) -> Kept:
    result = None if record["result"] is None else result_from_dict(record["result"])
    return Kept(result, record["latency_ms"], record["problem"])


def _ends_with_newline(file: Path) -> bool:
    with file.open("rb") as content:
        content.seek(-1, 2)
        return content.read(1) == b"\n"
