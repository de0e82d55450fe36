"""Quantising, compressing and writing of parts in a thread, beside the model's work."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import BoundedSemaphore
from types import TracebackType
from typing import TypeVar

import numpy as np

from training.collection.part import Coded, PartDraft
from training.collection.part_arrays import encode
from training.collection.store import write_part
from training.errors import DataError

T = TypeVar("T")
log = logging.getLogger(__name__)
MOST_WAITING = 8  # pairs whose maps wait, in float32: half a gigabyte of a 7B model


class PartWriter:
    """Context manager whose thread quantises maps and writes parts, one after the other, in the order of the calls.

    If the thread falls behind, calls wait for it. An error of the thread is raised by the next call, and at the latest
    at the end of the block. However the block ends, the parts that were given to :meth:`write` are written before. If
    that fails while the block ends with another exception, such as that of Ctrl-C, the error is logged.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "part-writer")
        self._room = BoundedSemaphore(MOST_WAITING)
        self._writing: deque[Future[None]] = deque()

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        if error is None:
            self._raise_problem()
        elif not isinstance(error, DataError):  # that may be the first error of the same disk
            try:
                self._raise_problem()
            except (DataError, OSError) as problem:
                log.error("%s", problem)

    def quantise(self, maps: np.ndarray) -> Callable[[], Coded]:
        """Begin to quantise ``maps``; the result's call waits for it. This is a
        :data:`training.collection.part.Quantise`.

        Raises:
            DataError: a part that was given before could not be written.
        """
        return self._submit(lambda: encode(maps)).result

    def write(self, folder: Path, number: int, draft: PartDraft) -> None:
        """Begin to write ``draft`` as part ``number`` of the store in ``folder``, see
        :func:`training.collection.store.write_part`.

        Raises:
            DataError: a part that was given before could not be written.
        """
        future = self._submit(lambda: write_part(folder, number, draft.finish()))
        self._writing.append(future)

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        self._raise_problem()
        self._room.acquire()
        try:
            future = self._pool.submit(work)
        except BaseException:
            self._room.release()
            raise
        future.add_done_callback(lambda _: self._room.release())
        return future

    def _raise_problem(self) -> None:
        """Raise the first error of a part that was written."""
        while self._writing and self._writing[0].done():  # they are done in their order
            self._writing.popleft().result()
