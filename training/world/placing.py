"""Placement of objects in a scene: free positions, partial overlaps, and occluders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from acs_core.geometry import Box
from training.world.compositing import Canvas, Patch
from training.world.scene import SceneObject, WorldConfig

GAP = 2  # pixels between objects that do not overlap
LEAST_HIDDEN = 0.08  # minimum hidden share of an object's pixels that counts as covered


class Painter:
    """Painter that places objects on one canvas and counts the visible pixels of each."""

    def __init__(self, rng: np.random.Generator, canvas: Canvas, config: WorldConfig) -> None:
        self._rng, self._canvas, self._config = rng, canvas, config
        self._names: list[tuple[str, str]] = []  # category, colour
        self._frames: list[tuple[int, int, int, int]] = []  # x1, y1, x2, y2 as placed
        # index 0 is the background, which may be covered completely
        self._whole = [0]
        self._visible = [0]

    def place(self, name: str, patch: Patch, colour: str = "") -> bool:
        """Draw ``patch`` as an object of this ``colour``, sometimes over a part of an earlier one. Returns False if
        there is no room."""
        pixels = int(np.count_nonzero(patch.mask))
        if not pixels:  # too thin to be seen at its size
            return False
        place, number = None, len(self._names) + 1
        if self._frames and self._rng.random() < self._config.occluded_share / 2:
            place = self._partly_over(patch, int(self._rng.integers(len(self._frames))))
            if place is not None:
                self._lose(self._canvas.covered(patch, *place, number))
        place = place or self._free(patch)
        if place is None:
            return False
        x, y = place
        if self._rng.random() < self._config.shadow_share:
            h, w = patch.alpha.shape
            reach = 0.06 * (h * w) ** 0.5 + 0.5
            dx, dy = (round(v) for v in self._rng.uniform(-2 * reach, 2 * reach, 2))
            self._canvas.shade(patch, x + dx, y + abs(dy), float(self._rng.uniform(0.2, 0.5)), reach)
        self._canvas.put(patch, x, y, number)
        self._names.append((name, colour))
        self._frames.append((x, y, x + patch.alpha.shape[1], y + patch.alpha.shape[0]))
        self._whole.append(pixels)
        self._visible.append(pixels)
        return True

    def cover(self, occluder: Callable[[np.random.Generator, float], Patch]) -> None:
        """Sometimes draw an occluder over a part of the newest object; ``occluder`` makes one of a given area in square
        pixels."""
        if self._rng.random() >= self._config.occluded_share / 2:
            return
        x1, y1, x2, y2 = self._frames[-1]
        patch = occluder(self._rng, (x2 - x1) * (y2 - y1) * float(self._rng.uniform(0.25, 0.8)))
        place = self._partly_over(patch, len(self._frames) - 1)
        if place is not None:
            self._lose(self._canvas.covered(patch, *place, len(self._names)))
            self._canvas.put(patch, *place, 0)

    def objects(self) -> tuple[SceneObject, ...]:
        """Return the placed objects in drawing order, with the tight box and the number of the visible pixels of
        each."""
        found = []
        for i, ((name, colour), (x1, y1, x2, y2)) in enumerate(zip(self._names, self._frames, strict=True)):
            mine = self._canvas.owner[y1:y2, x1:x2] == i + 1
            xs, ys = np.flatnonzero(mine.any(axis=0)), np.flatnonzero(mine.any(axis=1))
            box = Box(float(x1 + xs[0]), float(y1 + ys[0]), float(x1 + xs[-1] + 1), float(y1 + ys[-1] + 1))
            found.append(SceneObject(name, box, float(np.count_nonzero(mine)), colour))
        return tuple(found)

    def _free(self, patch: Patch) -> tuple[int, int] | None:
        """Return a position inside the image that touches no object; None after 40 failed attempts."""
        h, w = patch.alpha.shape
        height, width = self._canvas.owner.shape
        if w > width or h > height:
            return None
        for u, v in self._rng.random((40, 2)).tolist():
            x, y = int(u * (width - w + 1)), int(v * (height - h + 1))
            right, below = x + w + GAP, y + h + GAP
            if all(right <= a or c + GAP <= x or below <= b or d + GAP <= y for a, b, c, d in self._frames):
                return x, y
        return None

    def _partly_over(self, patch: Patch, target: int) -> tuple[int, int] | None:
        """Return a position inside the image at which ``patch`` hides a part of object ``target`` and not too much of
        any object."""
        h, w = patch.alpha.shape
        height, width = self._canvas.owner.shape
        x1, y1, x2, y2 = self._frames[target]
        for u, v in self._rng.random((8, 2)):
            x, y = round(x1 - w + u * (x2 - x1 + w)), round(y1 - h + v * (y2 - y1 + h))
            if not (0 <= x <= width - w and 0 <= y <= height - h):
                continue
            lost = self._canvas.covered(patch, x, y, len(self._names))
            left = np.array(self._visible) - lost
            enough = left[1:] >= self._config.min_visible * np.array(self._whole[1:])
            if enough.all() and lost[target + 1] >= LEAST_HIDDEN * self._whole[target + 1]:
                return x, y
        return None

    def _lose(self, lost: np.ndarray) -> None:
        for number in range(1, len(self._visible)):
            self._visible[number] -= int(lost[number])
