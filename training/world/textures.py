"""Procedural texture families, the sources of the backgrounds.

Each family is a function from a random generator to an image (SIDE, SIDE, 3) float32 of about 0 to 255. ``FAMILIES``
serve the train, val and test splits, ``SHIFTED_FAMILIES`` only the shifted split.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

SIDE = 640  # pixels

Family = Callable[[np.random.Generator], np.ndarray]


def _colours(rng: np.random.Generator, count: int, spread: float = 28.0) -> np.ndarray:
    """Return (count, 3) colours around one base, mostly muted, and more often brown or blue than purple, like walls and
    floors."""
    base = rng.uniform(50, 210) + rng.normal(6, 20) * np.array([1.0, 0.15, -1.1]) + rng.normal(0, 9, 3)
    return np.clip(base + rng.normal(0, spread, (count, 1)) + rng.normal(0, spread / 3, (count, 3)), 10, 245)


def _noise(rng: np.random.Generator, cells: tuple[int, int]) -> np.ndarray:
    """Return (SIDE, SIDE, 1) smooth noise of about unit variance with ``cells`` (across, down) bumps."""
    grid = rng.normal(0, 1, (cells[1], cells[0])).astype(np.float32)
    return cv2.resize(grid, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)[..., None]


def _fractal(rng: np.random.Generator, first: int, octaves: int = 4) -> np.ndarray:
    """Return (SIDE, SIDE, 1) noise with detail at every scale from SIDE / first downwards."""
    total = np.zeros((SIDE, SIDE, 1), np.float32)
    for k in range(octaves):
        total += _noise(rng, (first * 2**k, first * 2**k)) * 0.6**k
    return total


def _axes() -> tuple[np.ndarray, np.ndarray]:
    """Return the x (1, SIDE) and y (SIDE, 1) coordinates in pixels."""
    axis = np.arange(SIDE, dtype=np.float32)
    return axis[None], axis[:, None]


def _mix(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Mix two colours (3,) by ``share`` (SIDE, SIDE, 1), 0 to 1."""
    return np.asarray(first + (second - first) * np.clip(share, 0, 1), dtype=np.float32)


def clouds(rng: np.random.Generator) -> np.ndarray:
    """Draw soft blotches in two colours."""
    a, b = _colours(rng, 2, 40)
    return _mix(a, b, 0.5 + 0.35 * _fractal(rng, int(rng.integers(3, 8))))


def marble(rng: np.random.Generator) -> np.ndarray:
    """Draw warped veins."""
    a, b = _colours(rng, 2, 35)
    x, y = _axes()
    angle, period = rng.uniform(0, np.pi), rng.uniform(60, 160)
    phase = (x * np.cos(angle) + y * np.sin(angle))[..., None] / period + _fractal(rng, 4) * 0.8
    return _mix(a, b, 1 - np.abs(np.sin(np.pi * phase)) ** 0.6)


def planks(rng: np.random.Generator) -> np.ndarray:
    """Draw wooden boards with fibres along them and dark gaps."""
    width = int(rng.integers(36, 110))
    count = SIDE // width + 1
    tones = _colours(rng, count, 12)
    x, _ = _axes()
    which = (x[0] // width).astype(int)
    picture = np.broadcast_to(tones[which][None], (SIDE, SIDE, 3)).astype(np.float32)
    picture = picture + _noise(rng, (160, 6)) * rng.uniform(5, 12) + _noise(rng, (300, 10)) * 5
    gap = (x % width < rng.integers(1, 4))[..., None]
    return np.asarray(np.where(gap, picture * 0.55, picture), dtype=np.float32)


def bricks(rng: np.random.Generator) -> np.ndarray:
    """Draw courses of bricks, every other one shifted by half a brick."""
    h = int(rng.integers(20, 48))
    w = int(h * rng.uniform(1.8, 2.8))
    x, y = _axes()
    row = (y // h).astype(int)
    column = ((x + (row % 2) * (w // 2)) // w).astype(int)
    tones, mortar = _colours(rng, 97, 14), _colours(rng, 1)[0]
    picture = tones[(row * 31 + column * 17) % 97].astype(np.float32) + _fractal(rng, 24, 3) * rng.uniform(3, 9)
    joint = int(rng.integers(2, 5))
    gap = (y % h < joint) | ((x + (row % 2) * (w // 2)) % w < joint)
    return np.asarray(np.where(gap[..., None], mortar, picture), dtype=np.float32)


def tiles(rng: np.random.Generator) -> np.ndarray:
    """Draw square floor tiles in one or two colours."""
    side = int(rng.integers(44, 120))
    x, y = _axes()
    a, b, joint = _colours(rng, 3, 18)
    picture = _mix(a, b, np.broadcast_to(_fractal(rng, 8) * 0.4 + 0.3, (SIDE, SIDE, 1)))
    gap = (x % side < 3) | (y % side < 3)
    return np.asarray(np.where(gap[..., None], joint, picture), dtype=np.float32)


def weave(rng: np.random.Generator) -> np.ndarray:
    """Draw cloth: warp and weft threads, sometimes with coarse stripes."""
    a, b = _colours(rng, 2, 22)
    x, y = _axes()
    period = rng.uniform(4, 11)
    threads = np.sin(2 * np.pi * x / period) * np.sin(2 * np.pi * y / period)
    picture = _mix(a, b, 0.5 + 0.4 * threads[..., None]) + _fractal(rng, 3, 3) * 8
    if rng.random() < 0.5:
        stripe = (np.sin(2 * np.pi * x / rng.uniform(60, 200)) > rng.uniform(0, 0.8))[..., None]
        picture = picture + stripe * rng.normal(0, 22, 3)
    return np.asarray(picture, dtype=np.float32)


def grass(rng: np.random.Generator) -> np.ndarray:
    """Draw dense short strokes: lawn, carpet, straw."""
    a, b = _colours(rng, 2, 26)
    fine = rng.normal(0, 1, (SIDE, SIDE)).astype(np.float32)
    length, angle = int(rng.integers(7, 19)), rng.uniform(0, np.pi)
    kernel = np.zeros((length, length), np.float32)
    reach = (length - 1) / 2 * np.array([np.cos(angle), np.sin(angle)])
    start, end = ((length - 1) / 2 + sign * reach for sign in (-1, 1))
    cv2.line(kernel, [round(v) for v in start], [round(v) for v in end], 1.0)
    strokes = cv2.filter2D(fine, -1, kernel / kernel.sum() ** 0.5)[..., None]
    return _mix(a, b, 0.5 + 0.22 * strokes + 0.15 * _fractal(rng, 5, 3))


def sand(rng: np.random.Generator) -> np.ndarray:
    """Draw fine grains with soft ripples."""
    a, b = _colours(rng, 2, 24)
    grains = cv2.GaussianBlur(rng.normal(0, 1, (SIDE, SIDE)).astype(np.float32), (0, 0), rng.uniform(0.6, 1.6))
    _, y = _axes()
    ripple = np.sin(y / rng.uniform(8, 30) + _fractal(rng, 4, 2)[..., 0] * 3)
    return _mix(a, b, 0.5 + (0.35 * grains + rng.uniform(0, 0.22) * ripple)[..., None])


def pebbles(rng: np.random.Generator) -> np.ndarray:
    """Draw cells around random seeds: gravel, cobbles, cracked earth."""
    seeds = np.ones((SIDE, SIDE), np.uint8)
    count = int(rng.integers(120, 900))
    seeds[rng.integers(0, SIDE, count), rng.integers(0, SIDE, count)] = 0
    distance, label = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    tones = _colours(rng, int(label.max()) + 1, 20)
    shade = 1.08 - 0.3 * distance / (SIDE / count**0.5)
    return np.asarray(tones[label] * shade[..., None] + _fractal(rng, 30, 2) * 5, dtype=np.float32)


def bokeh(rng: np.random.Generator) -> np.ndarray:
    """Draw an out-of-focus room: big soft discs and bars."""
    picture = np.empty((SIDE, SIDE, 3), np.float32)
    picture[:] = _colours(rng, 1)[0]
    for colour in _colours(rng, int(rng.integers(20, 50)), 45):
        x, y, u, v = (int(k) for k in rng.integers(0, SIDE, 4))
        if rng.random() < 0.6:
            cv2.circle(picture, (x, y), int(rng.integers(12, 90)), colour.tolist(), -1, cv2.LINE_AA)
        else:
            cv2.rectangle(picture, (x, y), (x + u // 3, y + v // 2), colour.tolist(), -1)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), rng.uniform(4, 14)), dtype=np.float32)


def checkers(rng: np.random.Generator) -> np.ndarray:
    """Draw a chessboard."""
    side = int(rng.integers(24, 90))
    x, y = _axes()
    a, b = _colours(rng, 2, 40)
    odd = ((x // side + y // side) % 2)[..., None]
    return _mix(a, b, odd) + _fractal(rng, 6, 3) * 6


def hexagons(rng: np.random.Generator) -> np.ndarray:
    """Draw a honeycomb: cells around a triangular lattice."""
    seeds = np.ones((SIDE, SIDE), np.uint8)
    pitch = int(rng.integers(26, 72))
    for row, y in enumerate(np.arange(0, SIDE, pitch * 0.866)):
        seeds[int(y), (np.arange(0, SIDE - pitch, pitch) + (row % 2) * (pitch // 2)).astype(int)] = 0
    distance, label = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    tones = _colours(rng, int(label.max()) + 1, 18)
    rim = np.clip((distance / pitch - 0.38) * 8, 0, 1)[..., None]
    return np.asarray(tones[label] * (1 - 0.35 * rim), dtype=np.float32)


def rings(rng: np.random.Generator) -> np.ndarray:
    """Draw contour lines of a hilly map."""
    a, b = _colours(rng, 2, 40)
    height = _fractal(rng, int(rng.integers(3, 6)), 2) * rng.uniform(2, 4)
    line = np.abs(height - np.round(height)) < 0.09
    return _mix(a, b, 0.5 + 0.12 * np.round(height)) * np.where(line, 0.65, 1.0).astype(np.float32)


def scribble(rng: np.random.Generator) -> np.ndarray:
    """Draw a page of illegible writing."""
    picture = np.empty((SIDE, SIDE, 3), np.float32)
    paper, ink = _colours(rng, 2, 30)
    picture[:] = paper
    step = int(rng.integers(16, 34))
    for y in range(step // 2, SIDE, step):
        xs = np.arange(8, SIDE - 8, 3)
        wave = np.cumsum(rng.normal(0, 2.2, len(xs)))
        wave = (wave - cv2.blur(wave[None], (15, 1))[0]) * step / 18
        gaps = np.flatnonzero(rng.random(len(xs)) < 0.06)
        for word in np.split(np.stack([xs, y + wave], axis=1), gaps):
            cv2.polylines(picture, [word[:-1].round().astype(np.int32)], False, ink.tolist(), 1, cv2.LINE_AA)
    return picture


def halftone(rng: np.random.Generator) -> np.ndarray:
    """Draw printed dots whose size follows a soft image."""
    a, b = _colours(rng, 2, 40)
    x, y = _axes()
    pitch, angle = rng.uniform(7, 16), rng.uniform(0.2, 1.3)
    u = (x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / pitch)
    v = (y * np.cos(angle) - x * np.sin(angle)) * (2 * np.pi / pitch)
    dots = (np.cos(u) + np.cos(v))[..., None] / 2
    return _mix(a, b, (dots + 0.5 * _fractal(rng, 3, 2)) * 2 + 0.5)


FAMILIES: tuple[Family, ...] = (clouds, marble, planks, bricks, tiles, weave, grass, sand, pebbles, bokeh)
SHIFTED_FAMILIES: tuple[Family, ...] = (checkers, hexagons, rings, scribble, halftone)
