"""Plain shapes that are nobody's category: lines, blobs and panels on the background, and pieces that cover objects."""

from __future__ import annotations

import cv2
import numpy as np

from training.stamps import Patch


def draw_shapes(rng: np.random.Generator, image: np.ndarray, count: int) -> None:
    """Draws ``count`` random lines, blobs and polygons into ``image`` (H, W, 3) uint8."""
    height, width = image.shape[:2]
    for _ in range(count):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        colour = tuple(np.clip(image[y, x] + rng.normal(0, 45, 3), 0, 255).tolist())
        kind = rng.integers(3)
        if kind == 0:
            end = int(rng.integers(width)), int(rng.integers(height))
            cv2.line(image, (x, y), end, colour, int(rng.integers(1, 4)), cv2.LINE_AA)
        elif kind == 1:
            axes = int(rng.integers(3, 18)), int(rng.integers(3, 18))
            cv2.ellipse(image, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
        else:
            points = _polygon(rng, float(rng.uniform(8, 50))) + np.array([x, y])
            cv2.fillPoly(image, [points.astype(np.int32)], colour, cv2.LINE_AA)


def shape_patch(rng: np.random.Generator, area: float) -> Patch:
    """A plain disc or polygon of one colour whose frame has about ``area`` square pixels."""
    side = max(3, round(area**0.5))
    alpha = np.zeros((side, side), np.uint8)
    if rng.random() < 0.4:
        cv2.circle(alpha, (side // 2, side // 2), side // 2, 255, -1, cv2.LINE_AA)
    else:
        points = _polygon(rng, side / 2) + side / 2
        cv2.fillPoly(alpha, [points.astype(np.int32)], 255, cv2.LINE_AA)
    colour = rng.uniform(20, 235) + rng.normal(0, 25, 3)
    rgb = alpha[..., None] * (np.clip(colour, 0, 255) / 255)
    return Patch(rgb.astype(np.uint8), alpha)


def _polygon(rng: np.random.Generator, radius: float) -> np.ndarray:
    """(P, 2) corners, four to seven, around the origin."""
    count = int(rng.integers(4, 8))
    angle = (np.arange(count) + rng.uniform(0, 0.8, count)) * (2 * np.pi / count)
    reach = radius * rng.uniform(0.7, 1.0, count)
    return np.stack([np.cos(angle) * reach, np.sin(angle) * reach], axis=1)
