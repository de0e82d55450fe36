"""Journal of a soak: observations as lines of JSON, written as they are made."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from acs_core.errors import with_file
from acs_core.output import JSON_KEY, check_target

COMMAND = "acs-soak"
JOURNAL = "soak.jsonl"


class ReportError(Exception):
    """The journal is missing or cannot be read; the message says what to do."""


class SoakLog:
    """Writer of a journal. Each line is flushed at once, so that the journal is complete up to a crash.

    The first line marks the file as written by acs-soak. An existing journal is replaced.

    Raises:
        OutputError: ``file`` exists and is not a journal.
    """

    def __init__(self, file: Path) -> None:
        check_target(file)
        self._path = file
        self._mark = {JSON_KEY: COMMAND}  # of the first line
        self._file = file.open("w", encoding="utf-8")
        self._began = time.monotonic()
        self._lock = threading.Lock()

    @property
    def minutes(self) -> float:
        """Minutes since the journal was opened."""
        return (time.monotonic() - self._began) / 60

    def note(self, kind: str, **what: Any) -> None:
        """Write one line of ``kind`` with the fields ``what``."""
        with self._lock:
            if not self._file.closed:
                with with_file(self._path):
                    line = {**self._mark, "kind": kind, "minute": round(self.minutes, 3), **what}
                    self._file.write(json.dumps(line) + "\n")
                    self._file.flush()
                    self._mark = {}

    def __enter__(self) -> SoakLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._file.close()


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """Read the lines of the journal in ``folder``; an incomplete last line is left out.

    Raises:
        ReportError: there is no journal, or it has other content.
    """
    file = folder / JOURNAL
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ReportError(f"there is no journal {file} ({error.strerror}): make one with acs-soak --out") from error
    notes = []
    for number, line in enumerate(lines, 1):
        try:
            note = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise ReportError(f"{file}, line {number} is not JSON: is it the journal of acs-soak?") from error
        if not isinstance(note, dict) or "kind" not in note:
            raise ReportError(f"{file}, line {number} is none of acs-soak's")
        notes.append(note)
    if not notes or notes[0]["kind"] != "begin":
        raise ReportError(f"{file} does not begin as a journal of acs-soak does")
    return notes
