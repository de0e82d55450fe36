"""Batches of candidates for the regressors, read from a collection on demand.

A store is read part by part, and not at random places: an epoch takes its parts in a random order, and its candidates
in random order within groups of successive parts with at least ``GROUP`` candidates. The order is a function of seed
and epoch alone, so that it is the same with maps on disk and in memory, with and without workers, and after a resume.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import Dataset, Sampler

from training.collection.store import Collection
from training.fitting.read_ahead import ReadAhead, default_workers, host_array

GROUP = 2048  # candidates among which the order is random: about 1 GB of files of a 7B model
# Codes (B, 4, L, K, h, w), units (B, 4, L, K), boxes (B, 4) in shares of the image's sides, IoU (B,).
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


class CandidateDataset(Dataset[Batch]):
    """Dataset of quantised batches: ``dataset[index]`` holds the candidates ``index``, which the device decodes."""

    def __init__(self, data: Collection) -> None:
        self._maps, self._iou, self._boxes = data.maps, data.iou, boxes_of(data)

    def __getitem__(self, index: Sequence[int] | np.ndarray) -> Batch:
        at = np.asarray(index)
        codes, unit = self._maps.coded(at, host_array)
        return torch.from_numpy(codes), torch.from_numpy(unit), self._boxes[at], torch.from_numpy(self._iou[at])


def boxes_of(data: Collection) -> torch.Tensor:
    """Return the boxes of all candidates in shares of the sides of their image, (C, 4) float32."""
    return torch.from_numpy((data.box / np.tile(data.image_size, 2)).astype(np.float32))


class BatchIndex(Sampler[np.ndarray]):
    """Sampler that cuts ``index`` into batches, with ``shuffle`` in a new order every epoch, see :func:`epoch_order`.

    With ``shuffle``, a single candidate that remains is added to the last batch, since it has no variance to normalise
    by alone. In distributed training each process gets its own batches. With ``shuffle``, all processes get the same
    number of batches, since they wait for each other; the last batches of an epoch may be left out for that.

    Args:
        index: candidates.
        batch: number of candidates of a batch.
        shuffle: whether the order is random.
        seed: seed of the orders.
        part: (C,) part of each candidate of the collection; None if all are in one part.
    """

    def __init__(
        self, index: np.ndarray, batch: int, shuffle: bool, seed: int = 0, part: np.ndarray | None = None
    ) -> None:
        self._index, self._batch, self._shuffle, self._seed = index, batch, shuffle, seed
        self._part = np.zeros(len(index), np.int64) if part is None else part[index]
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch. The trainer calls this, so that a resumed run has the same order as an uninterrupted one."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[np.ndarray]:
        order = self._index
        if self._shuffle:
            order = order[epoch_order(self._part, np.random.default_rng([self._seed, self._epoch]), GROUP)]
        cuts = np.arange(self._batch, len(order), self._batch)
        if self._shuffle and self._batch > 1 and len(cuts) and len(order) - cuts[-1] < 2:
            cuts = cuts[:-1]
        batches = np.split(order, cuts)
        rank, world = _place()
        return iter(batches[rank::world][: len(batches) // world if self._shuffle else None])

    def __len__(self) -> int:
        return len(list(iter(self)))


def epoch_order(part: np.ndarray, rng: np.random.Generator, group: int) -> np.ndarray:
    """Return a random order of n candidates, each once, which reads their parts one after the other.

    Args:
        part: (n,) part of each candidate.
        rng: source of the order.
        group: number of candidates among which the order is random; a group ends with a part.

    Returns:
        (n,) indices of the candidates.
    """
    parts, member, sizes = np.unique(part, return_inverse=True, return_counts=True)
    turn = rng.permutation(len(parts))  # the parts, in their order
    rank = np.empty(len(parts), np.int64)
    rank[turn] = np.arange(len(parts))
    order = np.argsort(rank[member], kind="stable")
    ends, filled = [], 0
    for end, size in zip(np.cumsum(sizes[turn]), sizes[turn], strict=True):
        filled += int(size)
        if filled >= group:
            ends.append(int(end))
            filled = 0
    return np.concatenate([rng.permutation(together) for together in np.split(order, ends)])


def loader(
    data: Collection, index: np.ndarray, batch: int, shuffle: bool, seed: int, workers: int | None
) -> ReadAhead[Batch]:
    """Return a loader of the candidates ``index``, with ``workers`` threads that read ahead (None for
    :func:`training.fitting.read_ahead.default_workers`)."""
    order = BatchIndex(index, batch, shuffle, seed, data.maps.part)
    return ReadAhead(
        CandidateDataset(data).__getitem__,
        order,
        default_workers() if workers is None else workers,
        data.maps.announce,
    )


def _place() -> tuple[int, int]:
    """Return (rank, number) of the distributed training processes; (0, 1) without distribution."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)
