"""Compositing: sprites at several sizes (stamps), plain shapes, and a canvas that records the visible object at each
pixel.

Colours are premultiplied by alpha throughout, so that scaling and rotating create no dark fringe.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from training.world.sprites import Sprite

VISIBLE = 128  # minimum alpha of a pixel that belongs to the object
STEP = 2**-0.5  # scale of each level of a stamp relative to the next larger one
SKEW = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
LOW, SPAN = np.array([-0.3, -0.25, -0.3]), np.array([0.45, 0.35, 0.45])  # changes of saturation, contrast and gain


@dataclass(frozen=True)
class Stamp:
    """A sprite at several sizes.

    Attributes:
        name: category.
        levels: premultiplied (h, w, 4) uint8 images, the largest first.
        hull: (P, 2) convex hull of the visible pixels relative to their centre, in units of the image's longer side.
    """

    name: str
    levels: tuple[np.ndarray, ...]
    hull: np.ndarray

    @classmethod
    def of(cls, sprite: Sprite) -> Stamp:
        """Make the stamp of ``sprite``, with levels down to about eight pixels."""
        rgba = sprite.rgba.astype(np.float32)
        rgba[..., :3] *= rgba[..., 3:] / 255
        height, width = rgba.shape[:2]
        visible = rgba[..., 3] >= VISIBLE
        (ys,) = np.nonzero(visible.any(axis=1))
        left, right = visible.argmax(axis=1)[ys], width - visible[:, ::-1].argmax(axis=1)[ys]
        # The ends of each row have the same hull as all of its pixels.
        corners = np.concatenate([np.stack([xs, ys + j], axis=1) for xs in (left, right) for j in (0, 1)])
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
    """Size, orientation and colour of a drawn stamp.

    Attributes:
        area: area of the tight box in square pixels.
        min_side: minimum shorter side of the tight box in pixels.
        tilt: rotation in radians.
        stretch: factor of width relative to height.
        mirror: whether the stamp is mirrored.
        colour: (3, 4) matrix over premultiplied RGBA.
    """

    area: float
    min_side: float
    tilt: float
    stretch: float
    mirror: bool
    colour: np.ndarray


@dataclass(frozen=True)
class Patch:
    """A drawn stamp: premultiplied ``rgb`` (h, w, 3) uint8 and ``alpha`` (h, w) uint8, with a margin of up to three
    pixels around the visible ones."""

    rgb: np.ndarray
    alpha: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """Mask of the visible pixels, (h, w) bool."""
        return np.asarray(self.alpha >= VISIBLE)


def colour_matrix(rng: np.random.Generator, strength: float) -> np.ndarray:
    """Return a random (3, 4) change of colour: gain, contrast, saturation and a slight rotation of the hue. A
    ``strength`` of 1 is ordinary light, 0 changes nothing."""
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
    """Draw ``stamp`` alone in ``pose``. Its tight box has the requested area up to rounding to whole pixels."""
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
    # pixel centres are at +0.5, but warpAffine places them at integers
    shift = centre - matrix @ (np.array([width, height]) / 2 - 0.5) - 0.5
    drawn = cv2.warpAffine(level, np.concatenate([matrix, shift[:, None]], axis=1), (out_w, out_h))
    alpha = np.ascontiguousarray(drawn[..., 3])
    rgb = np.minimum(cv2.transform(drawn, pose.colour), alpha[..., None])
    return Patch(rgb, alpha)


class Canvas:
    """An image being drawn.

    Attributes:
        image: (H, W, 3) uint8.
        owner: (H, W) int16 number of the visible object at each pixel, from 1; 0 for background and clutter.
    """

    def __init__(self, image: np.ndarray) -> None:
        self.image = image
        self.owner: np.ndarray = np.zeros(image.shape[:2], np.int16)

    def put(self, patch: Patch, x: int, y: int, number: int) -> None:
        """Draw ``patch`` with its upper left corner at (x, y), cropped to the image."""
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
        """Darken the image by up to ``strength`` (0 to 1) in the shape of ``patch``, softened by a blur."""
        border = int(2 * softness) + 1
        soft = cv2.copyMakeBorder(patch.alpha, *(border,) * 4, cv2.BORDER_CONSTANT, value=0)
        soft = cv2.blur(soft, (border, border))
        region, cut = self._region(Patch(soft, soft), x - border, y - border)
        if not soft[cut].size:
            return
        keep = 255 - (soft[cut] * strength).astype(np.uint8)
        self.image[region] = cv2.multiply(self.image[region], cv2.merge((keep,) * 3), scale=1 / 255)

    def covered(self, patch: Patch, x: int, y: int, numbers: int) -> np.ndarray:
        """Return the number of visible pixels that each owner would lose to ``patch`` at (x, y): (numbers + 1,) counts,
        index 0 for the background."""
        region, cut = self._region(patch, x, y)
        return np.bincount(self.owner[region][patch.mask[cut]], minlength=numbers + 1)

    def _region(self, patch: Patch, x: int, y: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the part of the image under ``patch``, and the part of ``patch`` over the image."""
        height, width = self.image.shape[:2]
        h, w = patch.alpha.shape
        top, left = max(0, y), max(0, x)
        bottom, right = max(top, min(height, y + h)), max(left, min(width, x + w))
        region = slice(top, bottom), slice(left, right)
        return region, (slice(top - y, bottom - y), slice(left - x, right - x))


def draw_shapes(rng: np.random.Generator, image: np.ndarray, count: int) -> None:
    """Draw ``count`` random lines, blobs and polygons, which belong to no category, into ``image`` (H, W, 3) uint8."""
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
    """Return a plain disc or polygon of one colour, with a bounding box of about ``area`` square pixels."""
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
    """Return the (P, 2) corners, four to seven, of a polygon around the origin."""
    count = int(rng.integers(4, 8))
    angle = (np.arange(count) + rng.uniform(0, 0.8, count)) * (2 * np.pi / count)
    reach = radius * rng.uniform(0.7, 1.0, count)
    return np.stack([np.cos(angle) * reach, np.sin(angle) * reach], axis=1)
