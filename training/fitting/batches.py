"""Batches of candidates for the regressors, read from a collection on demand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset, Sampler

from training.collection.store import Collection

# Codes (B, 4, L, K, h, w), units (B, 4, L, K), boxes (B, 4) in shares of the image's sides, IoU (B,).
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


class CandidateDataset(Dataset[Batch]):
    """Dataset of quantised batches: ``dataset[index]`` holds the candidates ``index``, which the device decodes."""

    def __init__(self, data: Collection) -> None:
        self._maps, self._iou, self._boxes = data.maps, data.iou, boxes_of(data)

    def __getitem__(self, index: Sequence[int]) -> Batch:
        at = np.asarray(index)
        codes, unit = self._maps.coded(at)
        return torch.from_numpy(codes), torch.from_numpy(unit), self._boxes[at], torch.from_numpy(self._iou[at])


def boxes_of(data: Collection) -> torch.Tensor:
    """Return the boxes of all candidates in shares of the sides of their image, (C, 4) float32."""
    return torch.from_numpy((data.box / np.tile(data.image_size, 2)).astype(np.float32))


class BatchIndex(Sampler[np.ndarray]):
    """Sampler that cuts ``index`` into batches, with ``shuffle`` in a new order every epoch.

    In distributed training each process gets its own batches. With ``shuffle``, all processes get the same number of
    batches, since they wait for each other.
    """

    def __init__(self, index: np.ndarray, batch: int, shuffle: bool, seed: int = 0) -> None:
        self._index, self._batch, self._shuffle, self._seed = index, batch, shuffle, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch. The trainer calls this, so that a resumed run has the same order as an uninterrupted one."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[np.ndarray]:
        order = self._index
        if self._shuffle:
            order = np.random.default_rng([self._seed, self._epoch]).permutation(order)
        batches = [order[i : i + self._batch] for i in range(0, len(order), self._batch)]
        if self._shuffle and len(batches[-1]) < 2:
            batches.pop()  # one candidate has no variance to normalise by
        rank, world = _place()
        return iter(batches[rank::world][: len(batches) // world if self._shuffle else None])

    def __len__(self) -> int:
        return len(list(iter(self)))


def loader(
    data: Collection, index: np.ndarray, batch: int, shuffle: bool, seed: int, workers: int
) -> DataLoader[Batch]:
    """Return a loader of the candidates ``index``, with ``workers`` processes that read ahead."""
    return DataLoader(
        CandidateDataset(data),
        batch_size=None,
        sampler=BatchIndex(index, batch, shuffle, seed),
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context="spawn" if workers else None,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # separate: drawing from the global generator would change the dropout masks
    )


def _place() -> tuple[int, int]:
    """Return (rank, number) of the distributed training processes; (0, 1) without distribution."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)
