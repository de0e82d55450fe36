"""What asking needs of its surroundings: where answers go, and what a goal is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from acs_core.types import GroundingResult
from acs_ros.frames import Frame
from acs_ros.worker import Task


@dataclass(frozen=True)
class Answer:
    """Results about one frame, whose pixels are ``image`` (H, W, 3), one per phrase; ``messages`` is what the outlet
    made of them, ready to be sent."""

    frame: Frame
    image: np.ndarray
    results: tuple[GroundingResult, ...]
    messages: Any
    began: float


class Outlet(Protocol):
    """Where answers and complaints go."""

    def attention_wanted(self, camera: str) -> bool:
        """Whether somebody looks at the attention."""

    def complete(self, frame: Frame) -> Frame:
        """The frame with its depth image and camera info, where there are some."""

    def compose(self, frame: Frame, image: np.ndarray, results: tuple[GroundingResult, ...]) -> Any:
        """Make the messages of an answer; on the model's thread, and it may take its time."""

    def publish(self, answer: Answer) -> None:
        """Send an answer; on the model's thread, and it must be short."""

    def show(self, answer: Answer) -> None:
        """Draw and send what people look at; on the model's thread, after the answer, and it may take its time."""

    def complain(self, problem: str) -> None:
        """Tell a person that a frame has no answer."""

    def demand_changed(self) -> None:
        """:meth:`Asker.wants_frames` may say something else now; on any thread, and it must be short."""


class Goal(Task, Protocol):
    """A single question that may still need a frame."""

    @property
    def camera(self) -> str:
        """Which camera's next frame it waits for."""

    def waits(self) -> None:
        """The next frame of its camera will be its own."""

    def take_frame(self, frame: Frame) -> None:
        """Here it is."""
