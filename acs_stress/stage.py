"""What the episodes of a soak work with, and what they tell."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import cv2
import numpy as np

from acs_stress.faulty import FaultBox
from acs_stress.robot import Robot

SERVICE_S = 20.0  # patience; how fast services are is measured by acs-load
ANSWER_S = 60.0


@dataclass
class Course:
    """One run of an episode. ``problems``: promises that were broken, in words. ``latencies_ms``: from publishing a
    single frame to its detections."""

    name: str
    problems: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    latencies_ms: list[float] = field(default_factory=list)

    def count(self, what: str, by: int = 1) -> None:
        """Add to a number of the report."""
        self.counts[what] = self.counts.get(what, 0) + by


@dataclass(frozen=True)
class Stage:
    """What every episode works with. ``pictures`` are (H, W, 3) uint8 RGB; ``words`` name what is in them."""

    robot: Robot
    box: FaultBox
    pictures: Sequence[np.ndarray]
    words: Sequence[str]
    chance: random.Random

    def picture(self) -> np.ndarray:
        """Any of them."""
        return self.chance.choice(self.pictures)

    def phrases(self, count: int) -> list[str]:
        """Different ones."""
        return self.chance.sample(sorted(set(self.words)), count)

    @contextmanager
    def filming(self, hz: float, size: tuple[int, int] | None = None) -> Iterator[list[int]]:
        """The camera runs meanwhile, with pictures of ``size`` (width, height); the stamps that it has sent."""
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


def last_answered(stage: Stage) -> None:
    """The camera shows one more frame and stops: that one is the newest, and is answered."""
    time.sleep(0.2)  # what floods leave in DDS's buffers must not push out the frame that counts
    stage.robot.wait_for_answer(stage.robot.show(stage.picture()), ANSWER_S)
