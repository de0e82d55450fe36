"""Rendered pictures of one size, and what they show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from training.world import SceneObject, World


@dataclass(frozen=True)
class Pictures:
    """Pictures of one size: ``pixels`` (B, H, W, 3) uint8, and what each shows."""

    pixels: np.ndarray
    objects: tuple[tuple[SceneObject, ...], ...]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return int(self.pixels.shape[2]), int(self.pixels.shape[1])


def render(
    world: World,
    stream: int,
    numbers: Iterable[int],
    size: tuple[int, int],
    objects: tuple[int, int] | None = None,
) -> Pictures:
    """The pictures ``numbers`` of one of ``world``'s streams (:mod:`training.scene`), in one ``size`` (width, height),
    with (fewest, most) ``objects``."""
    scenes = [world.scene([stream, n], size=size, objects=objects) for n in numbers]
    return Pictures(np.stack([s.image for s in scenes]), tuple(s.objects for s in scenes))
