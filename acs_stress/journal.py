"""The journal of a soak: what was seen, as it is seen."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

JOURNAL = "soak.jsonl"


class Journal:
    """Lines of JSON, each written through at once: what was seen is there even when the machine is not any more."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("w", encoding="utf-8")
        self._began = time.monotonic()
        self._lock = threading.Lock()

    @property
    def minutes(self) -> float:
        """Since the beginning."""
        return (time.monotonic() - self._began) / 60

    def note(self, kind: str, **what: Any) -> None:
        """One line."""
        with self._lock:
            if not self._file.closed:
                self._file.write(json.dumps({"kind": kind, "minute": round(self.minutes, 3), **what}) + "\n")
                self._file.flush()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._file.close()
