"""Inputs and results of the episodes of a soak."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import cv2
import numpy as np

from acs_ros.stress.faulty_node import FaultBox
from acs_ros.stress.robot import Robot

SERVICE_S = 60.0  # timeout of a service call; acs-load measures how fast services are
ANSWER_S = 120.0


@dataclass
class EpisodeRecord:
    """Result of one run of an episode.

    Attributes:
        name: name of the episode.
        problems: descriptions of violated requirements.
        counts: numbers of performed actions, by name.
        latencies_ms: times from publishing a single frame to its detections in milliseconds.
    """

    name: str
    problems: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    latencies_ms: list[float] = field(default_factory=list)

    def count(self, what: str, by: int = 1) -> None:
        """Add ``by`` to the count ``what``."""
        self.counts[what] = self.counts.get(what, 0) + by


@dataclass(frozen=True)
class EpisodeContext:
    """Inputs of an episode.

    Attributes:
        robot: client of the node.
        box: injects faults into the model.
        pictures: (H, W, 3) uint8 RGB images.
        words: phrases for objects in the images.
        rng: random generator.
    """

    robot: Robot
    box: FaultBox
    pictures: Sequence[np.ndarray]
    words: Sequence[str]
    rng: random.Random

    def picture(self) -> np.ndarray:
        """Return a random image."""
        return self.rng.choice(self.pictures)

    def phrases(self, count: int) -> list[str]:
        """Return ``count`` different phrases."""
        return self.rng.sample(sorted(set(self.words)), count)

    @contextmanager
    def filming(self, hz: float, size: tuple[int, int] | None = None) -> Iterator[list[int]]:
        """Run the camera at ``hz`` in the block, with images of ``size`` (width, height); yields the list of the stamps
        sent so far."""
        pictures = self.pictures if size is None else [cv2.resize(p, size) for p in self.pictures[:4]]
        stamps: list[int] = []
        done = threading.Event()

        def film() -> None:
            while not done.wait(1 / hz):
                stamps.append(self.robot.show(pictures[len(stamps) % len(pictures)]))

        thread = threading.Thread(target=film, name="camera", daemon=True)
        thread.start()
        try:
            yield stamps
        finally:
            done.set()
            thread.join()


def last_answered(context: EpisodeContext) -> None:
    """Publish one more frame, which is then the newest, and wait for its answer."""
    context.robot.answered_after(context.picture(), ANSWER_S)
