"""Batches of the training steps. A batch depends only on the step's number, so that a resumed run gets the same ones;
worker processes prepare them ahead."""

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
from training.tiny.dense_head import DenseTargets, dense_targets
from training.tiny.image_pool import ImagePool
from training.tiny.mistakes import AnswerBox
from training.tiny.questions import QuestionMaker, Turns
from training.tiny.recipe import PhaseConfig
from training.world.scene import SceneObject

T = TypeVar("T", covariant=True)


@dataclass(frozen=True)
class ImageBatch:
    """Batch of B images of one size.

    Attributes:
        size: (width, height) in pixels.
        pool: index of the pool.
        index: (B,) int64 indices of the images in the pool.
        targets: targets of the dense head.
        pixels: (B, H, W, 3) uint8; None if images are not read.
        turns: questions and answers; None without questions.
    """

    size: tuple[int, int]
    pool: int
    index: torch.Tensor
    targets: DenseTargets
    pixels: torch.Tensor | None = None
    turns: Turns | None = None

    def to(self, device: str) -> ImageBatch:
        """Return the batch on another device."""
        return replace(
            self,
            index=self.index.to(device),
            targets=self.targets.to(device),
            pixels=None if self.pixels is None else self.pixels.to(device),
            turns=self.turns and self.turns.to(device),
        )


@dataclass(frozen=True)
class Curriculum:
    """Random batches: step n draws from a generator seeded with (``seed``, n).

    Attributes:
        arch: the architecture.
        names: category names.
        makers: question maker of each image size.
        pools: pools of images.
        seed: seed of the run.
        phase: settings of the phase.
    """

    arch: Arch
    names: Sequence[str]
    makers: dict[tuple[int, int], QuestionMaker]
    pools: tuple[ImagePool, ...]
    seed: int
    phase: PhaseConfig

    @property
    def pixels(self) -> bool:
        """Whether images are read."""
        return self.phase.end_to_end or not self.phase.questions

    def __getitem__(self, step: int) -> ImageBatch:
        rng = np.random.default_rng([self.seed, step])
        sizes = np.array([len(s.files) for s in self.pools])
        number = int(rng.choice(len(self.pools), p=sizes / sizes.sum()))
        pool = self.pools[number]
        index = np.sort(rng.choice(len(pool.files), min(self.phase.batch, len(pool.files)), replace=False))
        scenes = [pool.objects[i] for i in index]
        return ImageBatch(
            pool.size,
            number,
            torch.from_numpy(index),
            dense_targets(scenes, self.names, self.arch, pool.size),
            torch.from_numpy(pool.read(index.tolist()).pixels) if self.pixels else None,
            self._turns(rng, pool.size, scenes) if self.phase.questions else None,
        )

    def _turns(self, rng: np.random.Generator, size: tuple[int, int], scenes: Sequence[Sequence[SceneObject]]) -> Turns:
        maker, phase = self.makers[size], self.phase
        phrases = [maker.pick(rng, scene, phase.questions, phase.absent_share) for scene in scenes]
        answers = [
            [self._answer(rng, maker, phrase, scene) for phrase in asked]
            for asked, scene in zip(phrases, scenes, strict=True)
        ]
        return maker.turns(phrases, answers, phase.all_coordinates)

    def _answer(
        self, rng: np.random.Generator, maker: QuestionMaker, phrase: str, scene: Sequence[SceneObject]
    ) -> tuple[AnswerBox, ...]:
        mistakes = self.phase.mistakes
        wrong = mistakes.answer(rng, phrase, scene, maker.size) if mistakes else None
        return (wrong,) if wrong else maker.true_answer(phrase, scene)


@dataclass(frozen=True)
class InOrder(Dataset[torch.Tensor]):
    """Batches of all images of a pool in order, ``count`` at a time."""

    pool: ImagePool
    count: int

    def __len__(self) -> int:
        return -(-len(self.pool.files) // self.count)

    def __getitem__(self, number: int) -> torch.Tensor:
        stop = min(len(self.pool.files), (number + 1) * self.count)
        return torch.from_numpy(self.pool.read(range(number * self.count, stop)).pixels)


class Numbered(Protocol[T]):
    """Sequence-like source that is indexed with an integer."""

    def __getitem__(self, number: int, /) -> T: ...


def ahead(source: Numbered[T], numbers: Sequence[int], workers: int) -> Iterator[T]:
    """Yield ``source[n]`` for each of ``numbers``, prepared ahead by ``workers`` processes, or in this process without
    workers.

    Raises:
        DataError: as ``source`` does.
    """
    cv2.setNumThreads(1)  # OpenCV's thread pool does not work after a fork
    dataset: Any = _Caught(source)
    made = DataLoader(
        dataset,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        collate_fn=_as_it_is,
        # fork avoids pickling the scenes of all images for each worker; workers do not use the device
        multiprocessing_context="fork" if workers else None,
        prefetch_factor=2 if workers else None,  # each batch of images takes 40 MB of shared memory
    )
    for value in made:
        if isinstance(value, DataError):
            raise value
        yield value


@dataclass(frozen=True)
class _Caught:
    """Source that returns errors as values: a loader would wrap them in the traceback of its worker."""

    source: Numbered[Any]

    def __getitem__(self, number: int) -> Any:
        try:
            return self.source[number]
        except DataError as error:
            return error


def _as_it_is(made: Any) -> Any:
    return made
