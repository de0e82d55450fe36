"""From a box and a depth image to a box in space, in the camera's optical frame (x right, y down, z forward; metres).

A box around a small object holds much that is not the object. So the depth is taken from its middle, what lies off the
median there is left out, and a box without enough valid depth gives none rather than a guess.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, Image

from acs_core.geometry import Box

INNER = 0.5  # share of the box's width and height, around its centre, whose depth counts
MIN_VALID = 0.2  # share of these pixels that must have a depth
SPREAD = 3.0  # times the median absolute deviation: what is farther off is not the object
MIN_SPREAD = 0.02  # of the distance: a flat object has no deviation at all
MIN_THICKNESS = 0.01  # metres
COEFFICIENTS = (0, 4, 5, 8, 12, 14)  # how many distortion coefficients OpenCV's models have


class DepthError(Exception):
    """There is no depth for a box; the message says why."""


@dataclass(frozen=True)
class SpaceBox:
    """A box along the optical axes, in metres: ``center`` and ``size`` (x, y, z)."""

    center: tuple[float, float, float]
    size: tuple[float, float, float]
    valid: float  # share of the looked-at pixels that had a usable depth


@dataclass(frozen=True)
class Pinhole:
    """The camera: focal lengths and principal point in pixels of a (width, height) image; ``distortion`` is that of
    OpenCV, empty for rectified images."""

    fx: float
    fy: float
    cx: float
    cy: float
    size: tuple[int, int]
    distortion: tuple[float, ...] = ()
    fisheye: bool = False

    @classmethod
    def of(cls, info: CameraInfo, size: tuple[int, int], rectified: bool) -> Pinhole:
        """The camera of ``info`` for images of (width, height) ``size``, which may be scaled ones.

        Raises:
            DepthError: the camera info has no focal length or size, or a distortion that is none.
        """
        k = [float(v) for v in info.k]
        p = [float(v) for v in info.p]
        fx, fy, cx, cy = (p[0], p[5], p[2], p[6]) if rectified and p[0] > 0 else (k[0], k[4], k[2], k[5])
        if not (fx > 0 and fy > 0 and np.isfinite([fx, fy, cx, cy]).all()) or info.width <= 0 or info.height <= 0:
            raise DepthError("the camera info has no focal length or size: calibrate the camera, or fix its driver")
        sx, sy = size[0] / info.width, size[1] / info.height
        distortion = () if rectified else tuple(float(v) for v in info.d)
        fisheye = info.distortion_model == "equidistant"
        if len(distortion) not in ((0, 4) if fisheye else COEFFICIENTS) or not np.isfinite(distortion).all():
            raise DepthError(
                f"the camera info has {len(distortion)} distortion coefficients for the model "
                f"{info.distortion_model[:40]!r}, or one that is no number: calibrate the camera, or fix its driver"
            )
        return cls(fx * sx, fy * sy, cx * sx, cy * sy, size, distortion, fisheye)

    def ray(self, x: float, y: float) -> tuple[float, float]:
        """Where the ray of pixel (x, y) crosses the plane z = 1: (X, Y)."""
        if not any(self.distortion):
            return (x - self.cx) / self.fx, (y - self.cy) / self.fy
        matrix = np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]])
        point, distortion = np.array([[[x, y]]], np.float64), np.array(self.distortion)
        if self.fisheye:
            straight = cv2.fisheye.undistortPoints(point, matrix, distortion)
        else:
            straight = cv2.undistortPoints(point, matrix, distortion)
        return float(straight[0, 0, 0]), float(straight[0, 0, 1])


def depth_in_metres(msg: Image, unit: float) -> np.ndarray:
    """A depth image as (H, W) float32 metres, NaN where there is no depth. ``unit``: metres per unit of 16UC1.

    Raises:
        DepthError: another encoding than 16UC1, mono16 or 32FC1, or too little data.
    """
    kinds = {"16UC1": np.uint16, "mono16": np.uint16, "32FC1": np.float32}
    if msg.encoding not in kinds:
        raise DepthError(f"depth encoding {msg.encoding[:40]!r} is none of {', '.join(kinds)}")
    kind = np.dtype(kinds[msg.encoding]).newbyteorder(">" if msg.is_bigendian else "<")
    height, width, step = int(msg.height), int(msg.width), int(msg.step)
    if width * kind.itemsize > step or len(msg.data) < step * height or not height or not width:
        raise DepthError(f"the depth image says {width} x {height} with step {step}, but has {len(msg.data)} bytes")
    rows = np.frombuffer(memoryview(msg.data).cast("B"), np.uint8)[: step * height].reshape(height, step)
    values = np.ascontiguousarray(rows[:, : width * kind.itemsize]).view(kind).astype(np.float32)
    if kind.kind == "u":
        values *= unit
    values[~(np.isfinite(values) & (values > 0))] = np.nan
    return values


def box_in_space(box: Box, depth: np.ndarray, camera: Pinhole) -> SpaceBox:
    """Where the object of ``box`` is. ``depth`` (H, W) metres sees what the image sees, at any resolution.

    The distance is the median over the middle of the box of what lies near that middle's median; width and height are
    those of the box at this distance; the thickness is what the middle shows of it.

    Raises:
        DepthError: fewer than a fifth of the looked-at pixels have a depth.
    """
    height, width = depth.shape
    sx, sy = width / camera.size[0], height / camera.size[1]
    (cx, cy), w, h = box.center, box.width * INNER, box.height * INNER
    # At least one pixel, however small the box or the depth image.
    left, right = _pixels((cx - w / 2) * sx, (cx + w / 2) * sx, width)
    top, bottom = _pixels((cy - h / 2) * sy, (cy + h / 2) * sy, height)
    seen = depth[top:bottom, left:right]
    values = seen[np.isfinite(seen)]
    if values.size < MIN_VALID * seen.size or not values.size:
        raise DepthError(f"only {values.size} of {seen.size} pixels in the middle of the box have a depth")
    middle = float(np.median(values))
    deviation = float(np.median(np.abs(values - middle)))
    near = values[np.abs(values - middle) <= max(SPREAD * deviation, MIN_SPREAD * middle)]
    z = float(np.median(near))
    low, high = np.percentile(near, [5, 95])
    (x1, y1), (x2, y2) = camera.ray(box.x1, box.y1), camera.ray(box.x2, box.y2)
    x, y = camera.ray(cx, cy)
    size = (abs(x2 - x1) * z, abs(y2 - y1) * z, max(MIN_THICKNESS, float(high - low)))
    if not np.isfinite([x * z, y * z, z, *size]).all():
        raise DepthError("the camera info and the depth give no place in space: calibrate the camera")
    return SpaceBox((x * z, y * z, z), size, values.size / seen.size)


def _pixels(low: float, high: float, limit: int) -> tuple[int, int]:
    start = min(max(0, int(np.floor(low))), limit - 1)
    return start, min(max(start + 1, int(np.ceil(high))), limit)
