"""Stamps: sprites made ready to be drawn many times, and drawing them into a picture that remembers who is visible.

Colours are premultiplied by alpha throughout, so that scaling and turning draw no dark fringe.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from training.sprites import Sprite

VISIBLE = 128  # alpha from which a pixel counts as the object's
STEP = 2**-0.5  # from one level of a stamp to the next smaller
SKEW = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
LOW, SPAN = np.array([-0.3, -0.25, -0.3]), np.array([0.45, 0.35, 0.45])  # of saturation, contrast and gain changes


@dataclass(frozen=True)
class Stamp:
    """A sprite at several sizes. ``levels`` are premultiplied (h, w, 4) uint8 pictures, the largest first; ``hull`` is
    the (P, 2) convex hull of the visible pixels around their centre, in units of the picture's longer side."""

    name: str
    levels: tuple[np.ndarray, ...]
    hull: np.ndarray

    @classmethod
    def of(cls, sprite: Sprite) -> Stamp:
        """Makes the levels down to about eight pixels."""
        rgba = sprite.rgba.astype(np.float32)
        rgba[..., :3] *= rgba[..., 3:] / 255
        height, width = rgba.shape[:2]
        ys, xs = np.nonzero(rgba[..., 3] >= VISIBLE)
        corners = np.concatenate([np.stack([xs + i, ys + j], axis=1) for i in (0, 1) for j in (0, 1)])
        hull = cv2.convexHull(corners.astype(np.float32))[:, 0] - np.array([width / 2, height / 2])
        levels = []
        scale = 1.0
        while max(height, width) * scale >= 8:
            size = max(2, round(width * scale)), max(2, round(height * scale))
            levels.append(cv2.resize(rgba, size, interpolation=cv2.INTER_AREA).round().astype(np.uint8))
            scale *= STEP
        return cls(sprite.name, tuple(levels), hull / max(height, width))


@dataclass(frozen=True)
class Pose:
    """How a stamp is drawn: ``area`` of the tight box in square pixels, its shortest side at least ``min_side``;
    ``tilt`` in radians; ``stretch`` of width over height; ``colour`` a (3, 4) matrix over premultiplied RGBA."""

    area: float
    min_side: float
    tilt: float
    stretch: float
    mirror: bool
    colour: np.ndarray


@dataclass(frozen=True)
class Patch:
    """A drawn stamp: premultiplied ``rgb`` (h, w, 3) uint8, ``alpha`` (h, w) uint8, with a margin of up to three
    pixels around the visible ones."""

    rgb: np.ndarray
    alpha: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """(h, w) bool, the visible pixels."""
        return np.asarray(self.alpha >= VISIBLE)


def colour_matrix(rng: np.random.Generator, strength: float) -> np.ndarray:
    """A random (3, 4) change of colour: gain, contrast, saturation and a slight turn of the hue. ``strength`` 1 is
    ordinary light, 0 changes nothing."""
    change = rng.random(7)
    hue, (saturation, contrast, gain) = 0.5 * (change[0] - 0.5) * strength, 1 + strength * (LOW + change[1:4] * SPAN)
    # Rodrigues: turning by ``hue`` about the grey axis
    grey, skew = (1 - np.cos(hue)) / 3, np.sin(hue) / 3**0.5
    turn = np.cos(hue) * np.eye(3) + grey + skew * SKEW
    colour = saturation * turn + (1 - saturation) / 3  # the turn leaves grey as it is
    cast = contrast * gain * (1 + 0.14 * (change[4:] - 0.5) * strength)
    matrix = np.full((3, 4), 0.5 * (1 - contrast) * gain)
    matrix[:, :3] = colour * cast[:, None]
    return matrix


def pose_stamp(stamp: Stamp, pose: Pose) -> Patch:
    """Draws ``stamp`` alone, its tight box of the asked area up to the rounding to whole pixels."""
    cos, sin = np.cos(pose.tilt), np.sin(pose.tilt)
    wide = pose.stretch**0.5
    across, down = -wide if pose.mirror else wide, 1 / wide
    linear = np.array([[cos * across, -sin * down], [sin * across, cos * down]])
    outline = stamp.hull @ linear.T
    low, high = outline.min(axis=0), outline.max(axis=0)
    extent = high - low
    side = max((pose.area / extent.prod()) ** 0.5, pose.min_side / extent.min())
    level = next((k for k in stamp.levels[::-1] if max(k.shape[:2]) >= side), stamp.levels[0])
    height, width = level.shape[:2]
    matrix = linear * (side / max(height, width))
    out_w, out_h = (int(v) for v in np.ceil(extent * side) + 2)
    centre = np.array([out_w, out_h]) / 2 - side * (low + high) / 2
    # pixel centres lie at +0.5, which warpAffine does not know
    shift = centre - matrix @ (np.array([width, height]) / 2 - 0.5) - 0.5
    drawn = cv2.warpAffine(level, np.concatenate([matrix, shift[:, None]], axis=1), (out_w, out_h))
    alpha = np.ascontiguousarray(drawn[..., 3])
    rgb = np.minimum(cv2.transform(drawn, pose.colour), alpha[..., None])
    return Patch(rgb, alpha)


class Canvas:
    """A picture being drawn, ``image`` (H, W, 3) uint8, and ``owner`` (H, W) int16: who is visible in each pixel, an
    object's number from 1 on, 0 for the background and clutter."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image
        self.owner: np.ndarray = np.zeros(image.shape[:2], np.int16)

    def put(self, patch: Patch, x: int, y: int, number: int) -> None:
        """Draws ``patch`` with its upper left corner at (x, y), cut off at the picture's borders."""
        region, cut = self._region(patch, x, y)
        alpha = patch.alpha[cut]
        if not alpha.size:
            return
        pixels = self.image[region]
        rest = cv2.multiply(pixels, cv2.merge((255 - alpha,) * 3), scale=1 / 255)
        cv2.add(rest, np.ascontiguousarray(patch.rgb[cut]), dst=rest)
        self.image[region] = rest
        self.owner[region][patch.mask[cut]] = number

    def shade(self, patch: Patch, x: int, y: int, strength: float, softness: float) -> None:
        """Darkens the picture by up to ``strength`` (0 to 1) in the shape of ``patch``, softened by a blur."""
        border = int(2 * softness) + 1
        soft = cv2.copyMakeBorder(patch.alpha, *(border,) * 4, cv2.BORDER_CONSTANT, value=0)
        soft = cv2.blur(soft, (border, border))
        region, cut = self._region(Patch(soft, soft), x - border, y - border)
        if not soft[cut].size:
            return
        keep = 255 - (soft[cut] * strength).astype(np.uint8)
        self.image[region] = cv2.multiply(self.image[region], cv2.merge((keep,) * 3), scale=1 / 255)

    def covered(self, patch: Patch, x: int, y: int, numbers: int) -> np.ndarray:
        """How many visible pixels each owner would lose to ``patch`` at (x, y): (numbers + 1,) counts, 0 first."""
        region, cut = self._region(patch, x, y)
        return np.bincount(self.owner[region][patch.mask[cut]], minlength=numbers + 1)

    def _region(self, patch: Patch, x: int, y: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The part of the picture under ``patch`` and the part of ``patch`` over the picture."""
        height, width = self.image.shape[:2]
        h, w = patch.alpha.shape
        top, left = max(0, y), max(0, x)
        bottom, right = max(top, min(height, y + h)), max(left, min(width, x + w))
        region = slice(top, bottom), slice(left, right)
        return region, (slice(top - y, bottom - y), slice(left - x, right - x))
