"""The camera as a pinhole: focal lengths and principal point of an image, out of its camera info.

K and P of a sensor_msgs/CameraInfo hold for the full, unbinned image. A driver that crops or bins leaves them as they
are and says so in ``roi`` (in full, unbinned pixels) and ``binning_x``, ``binning_y``.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo

COEFFICIENTS = (0, 4, 5, 8, 12, 14)  # how many distortion coefficients OpenCV's models have


class DepthError(Exception):
    """There is no place in space for a box; the message says why."""


@dataclass(frozen=True)
class View:
    """The part of the full image that an image shows, and how much smaller: full pixel = offset + pixel * step.

    Attributes:
        x: Left edge in full pixels.
        y: Upper edge in full pixels.
        step_x: Full pixels per pixel of the image, across.
        step_y: Full pixels per pixel of the image, down.
        whole: Whether the image shows all of the full image.
    """

    x: float
    y: float
    step_x: float
    step_y: float
    whole: bool = True

    @classmethod
    def of(cls, info: CameraInfo, size: tuple[int, int], accept_scaled: bool = False) -> View:
        """What an image of (width, height) ``size`` shows of the full image of ``info``.

        The camera info says one size: that of the region of interest (all zero: the full image), binned. Drivers also
        send the full image with it, or leave the binning out; a size that fits exactly one of these is taken as that.

        Args:
            info: The camera info.
            size: (width, height) of the image in pixels.
            accept_scaled: Take any other size in the same ratio as a scaled image of the region.

        Raises:
            DepthError: the region lies outside the full image, or the size fits none or several of these.
        """
        full = int(info.width), int(info.height)
        roi = info.roi
        crop = int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height)
        if not any(crop):
            crop = (0, 0, *full)
        x, y, width, height = crop
        if not (width and height) or x + width > full[0] or y + height > full[1]:
            raise DepthError(
                f"the roi of the camera info, {width} x {height} at ({x}, {y}), does not lie in its image of "
                f"{full[0]} x {full[1]}: fix the camera driver"
            )
        whole = crop == (0, 0, *full)
        bins = max(1, int(info.binning_x)), max(1, int(info.binning_y))
        said = cls(x, y, *bins, whole)
        if _shows(size, (width, height), bins):
            return said
        others = {
            cls(*offset, *step, part == full)
            for offset, part in (((x, y), (width, height)), ((0, 0), full))
            for step in (bins, (1, 1))
            if _shows(size, part, step)
        }
        if len(others) == 1:
            return others.pop()
        expected = f"{width // bins[0]} x {height // bins[1]}"
        how = "" if whole else f", a roi at ({x}, {y})"
        how += "" if bins == (1, 1) else f", binned by {bins[0]} x {bins[1]}"
        if not others and accept_scaled and same_ratio(size, (width, height)):
            return cls(x, y, width / size[0], height / size[1], whole)
        why = "that fits several parts of it" if others else "that fits neither it nor the full image"
        scaled = ""
        if not others and not accept_scaled and same_ratio(size, (width, height)):
            scaled = "; if it is the same view scaled, set accept_scaled_images: true"
        raise DepthError(
            f"the image has {size[0]} x {size[1]} pixels, the camera info is for {expected}{how}: {why}; "
            f"use the camera_info topic that belongs to the image{scaled}"
        )


def _shows(size: tuple[int, int], part: tuple[int, int], step: tuple[int, int]) -> bool:
    """Whether an image of ``size`` has every ``step``-th pixel of ``part``, rounded up or down."""
    return all(abs(have - whole / by) < 1 for have, whole, by in zip(size, part, step, strict=True))


def same_ratio(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes are of one ratio, to the pixel of the smaller one."""
    small, large = sorted((one, other))
    return abs(small[0] - large[0] * small[1] / large[1]) < 1 or abs(small[1] - large[1] * small[0] / large[0]) < 1


@dataclass(frozen=True)
class Pinhole:
    """The camera: focal lengths and principal point in pixels of a (width, height) image; ``distortion`` is that of
    OpenCV, empty for rectified images; ``whole``: whether the image shows all that the sensor sees."""

    fx: float
    fy: float
    cx: float
    cy: float
    size: tuple[int, int]
    distortion: tuple[float, ...] = ()
    fisheye: bool = False
    whole: bool = True

    @classmethod
    def of(cls, info: CameraInfo, size: tuple[int, int], rectified: bool, accept_scaled: bool = False) -> Pinhole:
        """The camera of ``info`` for images of (width, height) ``size``.

        Its region of interest and binning are applied to K and P. ``do_rectify`` changes nothing: a rectified image
        has the region of its raw one.

        Raises:
            DepthError: the camera info has no focal length or size, a distortion that is none, or is not that of
                images of this size (:meth:`View.of`).
        """
        k = [float(v) for v in info.k]
        p = [float(v) for v in info.p]
        fx, fy, cx, cy = (p[0], p[5], p[2], p[6]) if rectified and p[0] > 0 else (k[0], k[4], k[2], k[5])
        if not (fx > 0 and fy > 0 and np.isfinite([fx, fy, cx, cy]).all()) or info.width <= 0 or info.height <= 0:
            raise DepthError("the camera info has no focal length or size: calibrate the camera, or fix its driver")
        view = View.of(info, size, accept_scaled)
        distortion = () if rectified else tuple(float(v) for v in info.d)
        fisheye = info.distortion_model == "equidistant"
        if len(distortion) not in ((0, 4) if fisheye else COEFFICIENTS) or not np.isfinite(distortion).all():
            raise DepthError(
                f"the camera info has {len(distortion)} distortion coefficients for the model "
                f"{info.distortion_model[:40]!r}, or one that is no number: calibrate the camera, or fix its driver"
            )
        return cls(
            fx / view.step_x,
            fy / view.step_y,
            (cx - view.x) / view.step_x,
            (cy - view.y) / view.step_y,
            size,
            distortion,
            fisheye,
            view.whole,
        )

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


def check_frame_id(image: str, other: str, what: str) -> None:
    """Check that what belongs to an image is in the image's frame; a leading slash does not count.

    Args:
        image: frame_id of the image.
        other: frame_id of the depth image or camera info.
        what: Name of that, with its topic, for the message.

    Raises:
        DepthError: the frames differ, or one is empty and the other is not.
    """
    if image.lstrip("/") != other.lstrip("/"):
        raise DepthError(
            f"{what} is in the frame {other[:80]!r}, the image in {image[:80]!r}: use the topics of one camera (depth "
            "registered to the image), or set accept_other_frames: true if both are the same view"
        )
