"""What each step of a training run learns from, a function of the step's number: made ahead by worker processes, and
the same after a resumption."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from training.errors import DataError
from training.tiny.arch import Arch
from training.tiny.dense import DenseTargets, dense_targets
from training.tiny.questions import QuestionMaker, Turns
from training.tiny.stock import Shelf

T = TypeVar("T", covariant=True)


@dataclass(frozen=True)
class Batch:
    """B pictures of one ``size`` (width, height): numbers ``index`` (B,) int64 of shelf ``shelf``; ``targets`` for the
    teacher; ``pixels`` (B, H, W, 3) uint8 where pictures are read; ``turns`` where questions are asked."""

    size: tuple[int, int]
    shelf: int
    index: torch.Tensor
    targets: DenseTargets
    pixels: torch.Tensor | None = None
    turns: Turns | None = None

    def to(self, device: str) -> Batch:
        """The same on another device."""
        return replace(
            self,
            index=self.index.to(device),
            targets=self.targets.to(device),
            pixels=None if self.pixels is None else self.pixels.to(device),
            turns=self.turns and self.turns.to(device),
        )


@dataclass(frozen=True)
class Curriculum:
    """Draws batches of ``count`` pictures from ``shelves``, each by a generator of (``seed``, step). ``makers`` has a
    question maker for every size; ``questions`` a picture are asked at most, none where it is 0, with ``absent_share``
    of them about what is not there. ``pixels`` says whether pictures are read."""

    arch: Arch
    names: Sequence[str]
    makers: dict[tuple[int, int], QuestionMaker]
    shelves: tuple[Shelf, ...]
    seed: int
    count: int
    questions: int
    absent_share: float
    pixels: bool

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, step])
        sizes = np.array([len(s.files) for s in self.shelves])
        number = int(rng.choice(len(self.shelves), p=sizes / sizes.sum()))
        shelf = self.shelves[number]
        index = np.sort(rng.choice(len(shelf.files), min(self.count, len(shelf.files)), replace=False))
        scenes = [shelf.objects[i] for i in index]
        turns = None
        if self.questions:
            maker = self.makers[shelf.size]
            phrases = [maker.pick(rng, scene, self.questions, self.absent_share) for scene in scenes]
            turns = maker.turns(scenes, phrases)
        return Batch(
            shelf.size,
            number,
            torch.from_numpy(index),
            dense_targets(scenes, self.names, self.arch, shelf.size),
            torch.from_numpy(shelf.read(index.tolist()).pixels) if self.pixels else None,
            turns,
        )


@dataclass(frozen=True)
class InOrder(Dataset[torch.Tensor]):
    """All pictures of a shelf, ``count`` at a time."""

    shelf: Shelf
    count: int

    def __len__(self) -> int:
        return -(-len(self.shelf.files) // self.count)

    def __getitem__(self, number: int) -> torch.Tensor:
        stop = min(len(self.shelf.files), (number + 1) * self.count)
        return torch.from_numpy(self.shelf.read(range(number * self.count, stop)).pixels)


class Numbered(Protocol[T]):
    """What has a value for each number."""

    def __getitem__(self, number: int, /) -> T: ...


def ahead(source: Numbered[T], numbers: Sequence[int], workers: int) -> Iterator[T]:
    """``source[n]`` for each of ``numbers`` in turn, made ahead by ``workers`` processes, or here without any.

    Raises:
        DataError: as ``source`` does.
    """
    cv2.setNumThreads(1)  # a pool of threads does not survive a fork
    dataset: Any = _Caught(source)
    made = DataLoader(
        dataset,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        collate_fn=_as_it_is,
        # fork: the scenes of all pictures are not pickled for each worker; workers do not touch the device
        multiprocessing_context="fork" if workers else None,
        prefetch_factor=2 if workers else None,  # each batch of pictures takes 40 MB of shared memory
    )
    for value in made:
        if isinstance(value, DataError):
            raise value
        yield value


@dataclass(frozen=True)
class _Caught:
    """A source whose errors are values: a loader would wrap them in the traceback of its worker."""

    source: Numbered[Any]

    def __getitem__(self, number: int) -> Any:
        try:
            return self.source[number]
        except DataError as error:
            return error


def _as_it_is(made: Any) -> Any:
    return made
