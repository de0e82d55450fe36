"""Reading of batches by threads, ahead of the step that uses them.

Threads suffice, since nearly all of the time of a batch is spent in reading files and in unpacking frames, both of
which release Python's global lock. Batches are then unpacked where they are used: a process would send each, of a
hundred megabytes, through shared memory, of which a container may have less.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch

from training.collection.maps import StoredMaps
from training.collection.memory import free_memory

T = TypeVar("T")
MOST_WORKERS = 8  # by default; they read more than a GPU fits
MEMORY_SHARE = 0.25  # of the free memory, in which all maps of a collection may be kept


class BatchOrder(Protocol):
    """The batches of an epoch, as indices of candidates."""

    def __iter__(self) -> Iterator[np.ndarray]:
        """Iterate over the batches."""

    def __len__(self) -> int:
        """Return the number of batches."""

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch."""


class ReadAhead(Generic[T]):
    """Iterable of ``read(index)`` for the batches ``index`` of ``sampler``, in its order.

    Whatever the number of workers, the batches are the same. At most ``workers`` + 1 of them are in memory beside the
    one that is used.

    Args:
        read: reads a batch; called by several threads.
        sampler: the batches. Lightning sets its epoch.
        workers: number of threads that read ahead; 0 to read each batch when it is asked for.
        announce: called with a batch before it is read, in order.

    Attributes:
        batch_sampler: None, for Lightning, which takes this for a loader of PyTorch.
    """

    batch_sampler = None

    def __init__(
        self,
        read: Callable[[np.ndarray], T],
        sampler: BatchOrder,
        workers: int,
        announce: Callable[[np.ndarray], None] = lambda index: None,
    ) -> None:
        self.sampler, self.workers = sampler, workers
        self._read, self._announce = read, announce

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[T]:
        return self._batches(list(self.sampler))  # the epoch's order is drawn now, not when the first batch is read

    def _batches(self, order: list[np.ndarray]) -> Iterator[T]:
        if not self.workers:
            for index in order:
                self._announce(index)
                yield self._read(index)
            return
        pool = ThreadPoolExecutor(self.workers, "read-ahead")
        waiting: deque[Future[T]] = deque()
        try:
            for index in order:
                self._announce(index)
                waiting.append(pool.submit(self._read, index))
                if len(waiting) > self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # also where the epoch is left early
            pool.shutdown(cancel_futures=True)


def default_workers() -> int:
    """Return the number of threads that read ahead by default: one for each CPU that this process may use except one,
    at least 1 and at most ``MOST_WORKERS``. Processes of several GPUs share the CPUs."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return min(MOST_WORKERS, max(1, cpus // max(1, torch.cuda.device_count()) - 1))


def prepare_maps(maps: StoredMaps, workers: int | None = None, share: float = MEMORY_SHARE) -> str:
    """Read ``maps`` into memory if they fit into ``share`` of what is free, which processes of several GPUs share.

    Args:
        maps: the maps of a collection.
        workers: number of threads that read; None for :func:`default_workers`.
        share: share of the free memory.

    Returns:
        A line that says where the maps are.

    Raises:
        DataError: a part is damaged.
    """
    workers = default_workers() if workers is None else workers
    limit = int(share * free_memory() / max(1, torch.cuda.device_count()))
    bounds = f"{maps.nbytes / 1e9:.2f} GB; up to {limit / 1e9:.2f} GB, {share:.0%} of the free memory, would be kept"
    if maps.keep(limit, workers):
        return f"maps: all are kept in memory ({bounds})"
    readers = f"{workers} thread{'' if workers == 1 else 's'} ahead of the steps" if workers else "batch by batch"
    return f"maps: read from disk in every epoch, {readers} ({bounds})"


def host_array(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Return an uninitialised array, in pinned memory if there is a GPU, to which it is then copied while the GPU
    works."""
    if not torch.cuda.is_available():
        return np.empty(shape, dtype)
    kind = torch.from_numpy(np.empty(0, dtype)).dtype
    return torch.empty(shape, dtype=kind, pin_memory=True).numpy()
