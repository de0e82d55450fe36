"""Backgrounds: a bank of texture sources for each split, and images cut from them.

A source is a texture of ``training.world.textures``, drawn from a seed that belongs to one split, so that no two splits
share a source; the shifted split has texture families of its own. Photographs of the user can be further sources
(:mod:`training.world.photographs`). A background is one or more sources, rotated, scaled and tinted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from training.world.photographs import photographs_of, read_source
from training.world.scene import check_split
from training.world.textures import FAMILIES, SHIFTED_FAMILIES, SIDE, Family

PHOTOGRAPHS = 0.7  # share of the parts of backgrounds that are cut from photographs, where there are any


@dataclass(frozen=True)
class Bank:
    """Sources of one split: ``count`` textures, the k-th of them drawn from ``families[k % len(families)]`` with the
    seed [``seed``, k]."""

    seed: int
    count: int
    families: tuple[Family, ...]


BANKS: dict[str, Bank] = {
    "train": Bank(9101, 60, FAMILIES),
    "val": Bank(9102, 20, FAMILIES),
    "test": Bank(9103, 30, FAMILIES),
    "shifted": Bank(9104, 25, SHIFTED_FAMILIES),
}


class Backgrounds:
    """Backgrounds of one split. Each source is drawn on first use (1.2 MB, 20 ms).

    ``photographs`` is a folder whose pictures are sources too; PHOTOGRAPHS of the parts of backgrounds are cut from
    them.

    Raises:
        ValueError: ``split`` has no bank.
        DataError: ``photographs`` has no picture for this split.
    """

    def __init__(self, split: str, photographs: Path | None = None) -> None:
        check_split(split)
        self.bank = BANKS[split]
        self._photographs = photographs_of(photographs, split) if photographs else ()
        self._sources: dict[int, np.ndarray] = {}

    def source(self, index: int) -> np.ndarray:
        """Return source ``index``, (SIDE, SIDE, 3) uint8 RGB: 0 to ``bank.count`` - 1 are textures, the photographs
        follow."""
        if index not in self._sources and index >= self.bank.count:
            self._sources[index] = read_source(self._photographs[index - self.bank.count])
        if index not in self._sources:
            family = self.bank.families[index % len(self.bank.families)]
            texture = family(np.random.default_rng([self.bank.seed, index]))
            self._sources[index] = np.clip(texture, 0, 255).astype(np.uint8)
        return self._sources[index]

    def draw(self, rng: np.random.Generator, width: int, height: int) -> np.ndarray:
        """Return a background without objects, (height, width, 3) uint8 RGB: a source, sometimes with a floor or up to
        three panels of other sources."""
        image = self._cut(rng, width, height)
        if rng.random() < 0.3:  # a wall and a floor
            edge = int(height * rng.uniform(0.3, 0.8))
            image[edge:] = self._cut(rng, width, height - edge)
        for _ in range(int(rng.integers(0, 4)) if rng.random() < 0.4 else 0):
            w, h = (int(side * rng.uniform(0.1, 0.4)) for side in (width, height))
            x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
            image[y : y + h, x : x + w] = self._cut(rng, w, h)
        return image

    def _cut(self, rng: np.random.Generator, width: int, height: int) -> np.ndarray:
        """Return a random part of a random source, (height, width, 3), rotated, mirrored, scaled and tinted."""
        index = int(rng.integers(self.bank.count))
        if self._photographs and rng.random() < PHOTOGRAPHS:
            index = self.bank.count + int(rng.integers(len(self._photographs)))
        source = self.source(index)
        scale = float(np.exp(rng.uniform(-0.45, 0.5)))
        part = (
            _tilted(rng, source, width, height, scale)
            if rng.random() < 0.4
            else _cropped(rng, source, width, height, scale)
        )
        return np.asarray(cv2.LUT(part, _tint(rng)))


def _cropped(rng: np.random.Generator, source: np.ndarray, width: int, height: int, scale: float) -> np.ndarray:
    """Return a part of ``source``, possibly rotated by 90 degrees and mirrored."""
    turned = rng.random() < 0.5
    w, h = (height, width) if turned else (width, height)
    cut_w, cut_h = min(SIDE, max(2, int(w / scale))), min(SIDE, max(2, int(h / scale)))
    x, y = int(rng.integers(SIDE - cut_w + 1)), int(rng.integers(SIDE - cut_h + 1))
    part = cv2.resize(source[y : y + cut_h, x : x + cut_w], (w, h))
    flip = int(rng.integers(-1, 3))  # 2: not mirrored
    part = part if flip == 2 else cv2.flip(part, flip)
    return cv2.transpose(part) if turned else part


def _tilted(rng: np.random.Generator, source: np.ndarray, width: int, height: int, scale: float) -> np.ndarray:
    """Return a part of ``source`` rotated by any angle; reflected beyond its border."""
    matrix = cv2.getRotationMatrix2D((0.0, 0.0), float(rng.uniform(0, 360)), scale)
    centre = matrix @ np.array([*rng.uniform(0.25 * SIDE, 0.75 * SIDE, 2), 1.0])
    matrix[:, 2] += np.array([width / 2, height / 2]) - centre
    return cv2.warpAffine(source, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)


def _tint(rng: np.random.Generator) -> np.ndarray:
    """Return a look-up table (1, 256, 3) of contrast, brightness and a colour cast."""
    levels = np.arange(256, dtype=np.float32)[:, None]
    contrast, brightness = rng.uniform(0.65, 1.25), rng.normal(0, 20) + rng.normal(0, 7, 3)
    table = (levels - 128) * contrast + 128 + brightness
    return np.asarray(np.clip(table, 0, 255).astype(np.uint8)[None])


def light(rng: np.random.Generator, image: np.ndarray, strength: float) -> np.ndarray:
    """Apply uneven light to ``image`` (H, W, 3) uint8, whose gain varies by about ``strength`` across the image."""
    gain = 128 * (1 + rng.normal(0, strength, (3, 3, 1)) + rng.normal(0, strength / 6, (1, 1, 3)))
    size = (image.shape[1], image.shape[0])
    field = cv2.resize(np.clip(gain, 50, 220).astype(np.uint8), size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.multiply(image, field, scale=1 / 128))


class Grain:
    """Sensor noise, cropped from one tile that is drawn once."""

    SIDE, SIGMA = 1024, 32.0

    def __init__(self) -> None:
        noise = np.random.default_rng(9200).normal(128, self.SIGMA, (self.SIDE, self.SIDE, 3))
        self._tile = noise.clip(0, 255).astype(np.uint8)

    def add(self, rng: np.random.Generator, image: np.ndarray, sigma: float) -> np.ndarray:
        """Add noise of standard deviation ``sigma`` grey levels to ``image`` (H, W, 3) uint8; H and W up to 1024."""
        height, width = image.shape[:2]
        y, x = (int(rng.integers(self.SIDE - side + 1)) for side in (height, width))
        noise = self._tile[y : y + height, x : x + width]
        share = sigma / self.SIGMA
        return np.asarray(cv2.addWeighted(image, 1.0, noise, share, -128 * share))
