"""The rendered world: sprites of everyday objects on textured backgrounds, most of them small.

It stands in for COCO where COCO cannot be had (tests, the demo, the embedded models). A scene is drawn from one
random generator, so a seed gives the same picture everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from acs_core.geometry import Box
from training.sprites import Sprite


@dataclass(frozen=True)
class WorldConfig:
    """What scenes look like. ``size`` is the side of the square picture in pixels; areas are fractions of the
    picture, of the object's bounding box (paper section 5.1: small is 0.1-1 %)."""

    size: int = 224
    min_objects: int = 1
    max_objects: int = 4
    small_area: tuple[float, float] = (0.001, 0.01)
    large_area: tuple[float, float] = (0.01, 0.08)
    small_share: float = 0.85
    repeat_share: float = 0.15  # scenes in which one category appears more than once
    min_side: int = 6  # pixels; below this no sprite is recognisable
    max_tilt_deg: float = 15.0


@dataclass(frozen=True)
class SceneObject:
    """A drawn object: its category, its tight box and its visible pixels (COCO's ``area``)."""

    name: str
    box: Box
    area: float


@dataclass(frozen=True)
class Scene:
    """``image`` is (size, size, 3) uint8 RGB; ``objects`` in drawing order."""

    image: np.ndarray
    objects: tuple[SceneObject, ...]


def render_scene(rng: np.random.Generator, sprites: Sequence[Sprite], config: WorldConfig) -> Scene:
    """Draws one scene. Objects do not overlap one another."""
    image = _background(rng, config.size)
    names = _pick_names(rng, sprites, config)
    objects: list[SceneObject] = []
    for name in names:
        sprite = next(s for s in sprites if s.name == name)
        drawn = _place(rng, image, sprite, [o.box for o in objects], config)
        if drawn is not None:
            objects.append(drawn)
    return Scene(image, tuple(objects))


def _pick_names(rng: np.random.Generator, sprites: Sequence[Sprite], config: WorldConfig) -> list[str]:
    count = int(rng.integers(config.min_objects, config.max_objects + 1))
    names = [sprites[i].name for i in rng.choice(len(sprites), size=min(count, len(sprites)), replace=False)]
    if count > 1 and rng.random() < config.repeat_share:
        names[1] = names[0]
    return names


def _place(
    rng: np.random.Generator, image: np.ndarray, sprite: Sprite, taken: Sequence[Box], config: WorldConfig
) -> SceneObject | None:
    """Draws ``sprite`` into ``image`` at a free place; None when ten tries find none."""
    patch = _tilted(rng, sprite.rgba, config.max_tilt_deg)
    small = rng.random() < config.small_share
    low, high = config.small_area if small else config.large_area
    area = float(np.exp(rng.uniform(np.log(low), np.log(high)))) * config.size**2
    aspect = patch.shape[1] / patch.shape[0] * float(np.exp(rng.uniform(-0.15, 0.15)))
    w = max(config.min_side, round((area * aspect) ** 0.5))
    h = max(config.min_side, round((area / aspect) ** 0.5))
    for _ in range(10):
        x = int(rng.integers(1, config.size - w - 1))
        y = int(rng.integers(1, config.size - h - 1))
        if all(x + w + 3 < t.x1 or t.x2 + 3 < x or y + h + 3 < t.y1 or t.y2 + 3 < y for t in taken):
            visible = _blend(image, patch, x, y, w, h, gain=float(rng.uniform(0.8, 1.1)))
            return SceneObject(sprite.name, Box(x, y, x + w, y + h), visible)
    return None


def _tilted(rng: np.random.Generator, rgba: np.ndarray, max_tilt_deg: float) -> np.ndarray:
    """The sprite turned by a small random angle, mirrored half of the time, cropped tight again."""
    if rng.random() < 0.5:
        rgba = rgba[:, ::-1]
    h, w = rgba.shape[:2]
    side = int(np.hypot(h, w)) + 2
    turn = cv2.getRotationMatrix2D((w / 2, h / 2), float(rng.uniform(-max_tilt_deg, max_tilt_deg)), 1.0)
    turn[:, 2] = turn[:, 2] + side / 2 - np.array([w / 2, h / 2])
    turned = cv2.warpAffine(np.ascontiguousarray(rgba), turn, (side, side), flags=cv2.INTER_LINEAR)
    ys, xs = np.nonzero(turned[..., 3] > 96)
    return turned[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]


def _blend(image: np.ndarray, rgba: np.ndarray, x: int, y: int, w: int, h: int, gain: float) -> float:
    """Alpha-blends ``rgba``, scaled to (h, w), into ``image`` at (x, y); returns the number of visible pixels."""
    alpha_first = rgba.astype(np.float32)
    alpha_first[..., :3] *= alpha_first[..., 3:] / 255  # premultiplied, so scaling draws no dark fringe
    patch = cv2.resize(alpha_first, (w, h), interpolation=cv2.INTER_AREA)
    alpha = patch[..., 3:] / 255
    region = image[y : y + h, x : x + w]
    region[:] = np.clip(region * (1 - alpha) + patch[..., :3] * gain, 0, 255).astype(np.uint8)
    return float((alpha > 0.5).sum())


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A textured picture (size, size, 3) uint8 without objects: colour clouds, grain, and some clutter."""
    base = rng.uniform(50, 190) + rng.normal(0, 18, 3)
    clouds = np.zeros((size, size, 3), np.float32)
    for cells, strength in ((3, 24.0), (9, 9.0), (28, 5.0)):
        noise = rng.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        noise = 0.8 * noise.mean(axis=2, keepdims=True) + 0.3 * noise
        clouds += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    image = base.astype(np.float32) + clouds
    if rng.random() < 0.35:
        image = image + _stripes(rng, size)
    image = image + rng.normal(0, 4, (size, size, 1))
    picture = np.clip(image, 0, 255).astype(np.uint8)
    _clutter(rng, picture)
    return picture


def _stripes(rng: np.random.Generator, size: int) -> np.ndarray:
    """Planks, bricks or cloth: a wave in a random direction, (size, size, 1)."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(8, 40)
    axis = np.arange(size, dtype=np.float32)
    wave = np.sin((axis[None] * np.cos(angle) + axis[:, None] * np.sin(angle)) * (2 * np.pi / period))
    return np.asarray(np.sign(wave) * rng.uniform(3, 9), dtype=np.float32)[..., None]


def _clutter(rng: np.random.Generator, image: np.ndarray) -> None:
    """Lines, blobs and panels that are nobody's answer, drawn in place."""
    size = image.shape[0]
    for _ in range(int(rng.integers(0, 6))):
        colour = tuple(float(v) for v in np.clip(image.mean(axis=(0, 1)) + rng.normal(0, 45, 3), 0, 255))
        x, y, u, v = (int(k) for k in rng.integers(0, size, 4))
        kind = rng.integers(3)
        if kind == 0:
            cv2.line(image, (x, y), (u, v), colour, int(rng.integers(1, 3)), cv2.LINE_AA)
        elif kind == 1:
            axes = (int(rng.integers(3, 12)), int(rng.integers(3, 12)))
            cv2.ellipse(image, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
        else:
            w, h = (int(k) for k in rng.integers(20, 90, 2))
            cv2.rectangle(image, (x, y), (x + w, y + h), colour, -1)
