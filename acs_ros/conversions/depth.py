"""From a box and a depth image to a box in space, in the camera's optical frame (x right, y down, z forward; metres).

A box around a small object holds much that is not the object. So the depth is taken from its middle, what lies off the
median there is left out, and a box without enough valid depth gives none rather than a guess.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import Image

from acs_core.geometry import Box
from acs_ros.conversions.pinhole import DepthError, Pinhole, same_ratio

INNER = 0.5  # share of the box's width and height, around its centre, whose depth counts
MIN_VALID = 0.2  # share of these pixels that must have a depth
SPREAD = 3.0  # times the median absolute deviation: what is farther off is not the object
MIN_SPREAD = 0.02  # of the distance: a flat object has no deviation at all
MIN_THICKNESS = 0.01  # metres
MAX_METRES = 1e5  # larger values are no measurements; some drivers use the largest float for missing ones
UNITS = {1.0: "metres", 0.001: "millimetres", 0.01: "centimetres", 0.0001: "tenths of a millimetre"}


@dataclass(frozen=True)
class SpaceBox:
    """A box along the optical axes, in metres: ``center`` and ``size`` (x, y, z)."""

    center: tuple[float, float, float]
    size: tuple[float, float, float]
    valid: float  # share of the looked-at pixels that had a usable depth


@dataclass(frozen=True)
class DepthRange:
    """Which depths count, in metres, and the unit they were read with.

    Attributes:
        low: Smallest depth that counts (``min_depth``).
        high: Largest depth that counts (``max_depth``).
        unit: Metres per unit of the depth image.
    """

    low: float = 0.0
    high: float = float("inf")
    unit: float = 1.0

    def why_none(self, metres: np.ndarray) -> str:
        """Why none of the depths (N,) counts: all lie outside; names the unit with which they would lie inside."""
        middle = float(np.median(metres))
        said = (
            f"the depth in the middle of the box is {middle:.4g} m, outside min_depth = {self.low:g} to max_depth = "
            f"{self.high:g} m"
        )
        if self.low >= self.high:
            return f"{said}: max_depth must be the larger one"
        for unit, name in UNITS.items():
            read = middle / self.unit * unit
            if not np.isclose(unit, self.unit) and self.low <= read <= self.high:
                return f"{said}; if the depth image is in {name}, that is {read:.4g} m: set depth_unit: {unit:g}"
        return f"{said}: nothing is that near or far, or the depth image is in another unit (depth_unit)"


def unit_of(encoding: str, unit: float = 0.0) -> float:
    """Metres per unit of a depth image: ``unit``, or for 0 that of the encoding, 1 for 32FC1 and 0.001 for 16UC1."""
    return unit if unit > 0 else 1.0 if encoding == "32FC1" else 0.001


def depth_in_metres(msg: Image, unit: float = 0.0) -> np.ndarray:
    """A depth image as (H, W) float32 metres, NaN where there is no depth. ``unit``: metres per unit, 0 for that of the
    encoding.

    Raises:
        DepthError: another encoding than 16UC1, mono16 or 32FC1, or too little data.
    """
    kinds = {"16UC1": np.uint16, "mono16": np.uint16, "32FC1": np.float32}
    if msg.encoding not in kinds:
        raise DepthError(
            f"depth encoding {msg.encoding[:40]!r} is none of {', '.join(kinds)}: use the raw depth topic of the driver"
        )
    kind = np.dtype(kinds[msg.encoding]).newbyteorder(">" if msg.is_bigendian else "<")
    height, width, step = int(msg.height), int(msg.width), int(msg.step)
    if width * kind.itemsize > step or len(msg.data) < step * height or not height or not width:
        raise DepthError(
            f"the depth image says {width} x {height} with step {step}, but has {len(msg.data)} bytes: fix its driver"
        )
    rows = np.frombuffer(memoryview(msg.data).cast("B"), np.uint8)[: step * height].reshape(height, step)
    values = np.ascontiguousarray(rows[:, : width * kind.itemsize]).view(kind).astype(np.float32)
    with np.errstate(over="ignore"):  # a float beyond the range is no depth
        values *= np.float32(unit_of(msg.encoding, unit))
    values[~((values > 0) & (values < MAX_METRES))] = np.nan  # also selects NaN
    return values


ANY_DEPTH = DepthRange()


def check_same_view(camera: Pinhole, depth: Image) -> None:
    """Check by its size that a depth image can see what the image sees.

    Raises:
        DepthError: it has another ratio of width to height; or the image is a crop, and the depth image has another
            size.
    """
    width, height = int(depth.width), int(depth.height)
    if (width, height) == camera.size:
        return
    sizes = f"the depth image has {width} x {height} pixels, the image {camera.size[0]} x {camera.size[1]}"
    if not camera.whole:
        raise DepthError(f"{sizes} of a larger view (roi): depth must be cropped the same way")
    if not width or not height or not same_ratio((width, height), camera.size):
        raise DepthError(f"{sizes}: another view; use the depth topic that is registered (aligned) to the image")


def box_in_space(box: Box, depth: np.ndarray, camera: Pinhole, plausible: DepthRange = ANY_DEPTH) -> SpaceBox:
    """Where the object of ``box`` is. ``depth`` (H, W) metres sees what the image sees, at any resolution.

    The distance is the median over the middle of the box of what lies near that middle's median; width and height are
    those of the box at this distance; the thickness is what the middle shows of it.

    Raises:
        DepthError: fewer than a fifth of the looked-at pixels have a depth that is ``plausible``.
    """
    height, width = depth.shape
    sx, sy = width / camera.size[0], height / camera.size[1]
    (cx, cy), w, h = box.center, box.width * INNER, box.height * INNER
    # At least one pixel, however small the box or the depth image.
    left, right = _pixels((cx - w / 2) * sx, (cx + w / 2) * sx, width)
    top, bottom = _pixels((cy - h / 2) * sy, (cy + h / 2) * sy, height)
    seen = depth[top:bottom, left:right]
    known = seen[np.isfinite(seen)]
    values = known[(known >= plausible.low) & (known <= plausible.high)]
    if values.size < MIN_VALID * seen.size or not values.size:
        if known.size and not values.size:
            raise DepthError(plausible.why_none(known))
        outside = f" ({known.size - values.size} more lie outside min_depth to max_depth)"
        raise DepthError(
            f"only {values.size} of {seen.size} pixels in the middle of the box have a depth"
            f"{outside if known.size > values.size else ''}: the object is too near, too far, black, shiny or "
            "transparent for the depth camera"
        )
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
