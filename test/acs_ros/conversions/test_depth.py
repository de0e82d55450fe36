from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import Image

from acs_core.geometry import Box
from acs_ros.conversions.depth import DepthRange, box_in_space, check_same_view, depth_in_metres
from acs_ros.conversions.pinhole import DepthError, Pinhole
from acs_ros.node.parameter_table import SPECS

SETTINGS = {spec.name: spec.default for spec in SPECS}
CAMERA = Pinhole(500, 500, 320, 240, (640, 480))


def depth_image(values: np.ndarray, encoding: str, padding: int = 0, big: bool = False) -> Image:
    kind = np.dtype({"16UC1": np.uint16, "32FC1": np.float32}.get(encoding, np.uint8)).newbyteorder(">" if big else "<")
    rows = values.astype(kind).view(np.uint8).reshape(values.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)))
    msg = Image(height=values.shape[0], width=values.shape[1], encoding=encoding, step=rows.shape[1], is_bigendian=big)
    msg.data.frombytes(rows.tobytes())
    return msg


@pytest.mark.parametrize(("padding", "big"), [(0, False), (6, False), (0, True)])
def test_depth_images_become_metres(padding, big):
    raw = np.array([[0, 1000], [2500, 65535]])
    metres = depth_in_metres(depth_image(raw, "16UC1", padding, big), 0.001)
    assert np.isnan(metres[0, 0])
    np.testing.assert_allclose(metres[[0, 1, 1], [1, 0, 1]], [1.0, 2.5, 65.535], rtol=1e-6)
    floats = np.array([[np.nan, 1.5], [np.inf, -1.0]])
    metres = depth_in_metres(depth_image(floats, "32FC1", padding, big))
    assert metres[0, 1] == 1.5 and np.isnan(metres).sum() == 3
    absurd = np.array([[3.4e38, 1e5], [99_999.0, 1e-30]])
    metres = depth_in_metres(depth_image(absurd, "32FC1", padding, big))
    assert np.isnan(metres[0]).all() and np.isfinite(metres[1]).all()


@pytest.mark.parametrize(
    ("field", "value", "said"), [("encoding", "rgb8", "none of 16UC1"), ("step", 1, "step 1"), ("data", b"", "0 bytes")]
)
def test_what_is_no_depth_image_is_named(field, value, said):
    msg = depth_image(np.ones((2, 2)), "16UC1")
    setattr(msg, field, value)
    with pytest.raises(DepthError, match=said):
        depth_in_metres(msg, 0.001)


def scene(z: float = 2.0, behind: float = 5.0) -> np.ndarray:
    """A thing of 40 x 40 pixels at (300..340, 200..240) before a wall."""
    depth = np.full((480, 640), behind, np.float32)
    depth[200:240, 300:340] = z
    return depth


def test_the_object_is_found_before_the_wall_and_despite_holes():
    rng = np.random.default_rng(0)
    depth = scene() + rng.normal(0, 0.005, (480, 640)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.5] = np.nan
    # A loose box: a third of it is wall.
    found = box_in_space(Box(294, 194, 346, 246), depth, CAMERA)
    assert found.center == pytest.approx((0.0, -0.08, 2.0), abs=0.01)
    assert found.size[:2] == pytest.approx((52 / 500 * 2, 52 / 500 * 2), rel=0.01)
    assert found.size[2] < 0.1 and 0.3 < found.valid < 0.7


def test_a_ring_is_not_averaged_with_the_wall_behind_its_hole():
    depth = scene()
    depth[216:224, 316:324] = 5.0
    assert box_in_space(Box(300, 200, 340, 240), depth, CAMERA).center[2] == pytest.approx(2.0)


def test_a_depth_image_of_another_size_sees_the_same():
    small = scene()[::2, ::2]
    assert box_in_space(Box(300, 200, 340, 240), small, CAMERA).center == pytest.approx((0.0, -0.08, 2.0))


def test_without_depth_there_is_no_place():
    depth = scene()
    depth[200:240, 300:340] = np.nan
    with pytest.raises(DepthError, match="only 0 of 400 pixels"):
        box_in_space(Box(300, 200, 340, 240), depth, CAMERA)


@given(x=st.floats(0, 639), y=st.floats(0, 479), w=st.floats(0.01, 640), h=st.floats(0.01, 480), z=st.floats(0.1, 50))
def test_any_box_lies_where_its_ray_is(x, y, w, h, z):
    box = Box(x, y, min(640, x + w), min(480, y + h))
    found = box_in_space(box, np.full((480, 640), z, np.float32), CAMERA)
    cx, cy = box.center
    assert found.center == pytest.approx(((cx - 320) / 500 * z, (cy - 240) / 500 * z, z), rel=1e-3, abs=1e-3)


def test_a_place_that_is_no_number_is_none():
    camera = Pinhole(1e-300, 1e-300, 320, 240, (640, 480))
    with pytest.raises(DepthError, match="no place in space"):
        box_in_space(Box(300, 200, 340, 280), np.full((480, 640), 1e30, np.float32), camera)


@pytest.mark.parametrize(
    ("encoding", "unit", "raw", "metres"),
    [
        ("16UC1", 0.0, 1500, 1.5),
        ("mono16", 0.0, 1500, 1.5),
        ("32FC1", 0.0, 1.5, 1.5),
        ("16UC1", 0.0001, 15000, 1.5),
        ("32FC1", 0.001, 1500.0, 1.5),
    ],
)
def test_the_unit_is_that_of_the_encoding_unless_it_is_given(encoding, unit, raw, metres):
    msg = depth_image(np.full((1, 1), raw), "16UC1" if encoding == "mono16" else encoding)
    msg.encoding = encoding
    assert depth_in_metres(msg, unit)[0, 0] == pytest.approx(metres)


RANGE = DepthRange(0.05, 50.0)


@pytest.mark.parametrize(
    ("metres", "plausible", "said"),
    [
        (1500.0, RANGE, "1500 m, outside .* in millimetres, that is 1.5 m: set depth_unit: 0.001$"),
        (0.0015, DepthRange(0.05, 50.0, 0.001), "in metres, that is 1.5 m: set depth_unit: 1$"),
        (1500.0, DepthRange(0.05, 50.0, 1.0), "set depth_unit: 0.001"),
        (60.0, DepthRange(0.05, 50.0, 0.001), "that is 6 m: set depth_unit: 0.0001"),
        (1e-7, RANGE, "nothing is that near or far, or the depth image is in another unit"),
        (1.0, DepthRange(5.0, 2.0), "max_depth must be the larger one"),
    ],
)
def test_depths_that_cannot_be_name_the_unit_that_could(metres, plausible, said):
    with pytest.raises(DepthError, match=said):
        box_in_space(Box(300, 200, 340, 240), scene(metres), CAMERA, plausible)


@given(z=st.floats(0.05, 50))
def test_no_distance_is_plausible_in_metres_and_in_millimetres(z):
    default = DepthRange(SETTINGS["min_depth"], SETTINGS["max_depth"])
    assert default.low <= z <= default.high
    assert not any(default.low < wrong < default.high for wrong in (z * 1000, z / 1000))


def test_depths_outside_the_range_do_not_count():
    depth = scene(2.0)
    depth[200:240, 300:318] = 60.0
    found = box_in_space(Box(300, 200, 340, 240), depth, CAMERA, RANGE)
    assert found.center[2] == 2.0 and 0.5 < found.valid < 0.7
    depth[200:240, 300:339] = 60.0
    depth[220, 320] = 2.0
    with pytest.raises(DepthError, match=r"only 1 of 400 pixels .* a depth \(399 more lie outside min_depth"):
        box_in_space(Box(300, 200, 340, 240), depth, CAMERA, RANGE)


@pytest.mark.parametrize(
    ("size", "whole", "said"),
    [
        ((640, 480), True, ""),
        ((320, 240), True, ""),
        ((1280, 960), True, ""),
        ((213, 160), True, ""),
        ((640, 360), True, "the depth image has 640 x 360 pixels, the image 640 x 480: another view; use the depth"),
        ((848, 480), True, "registered"),
        ((480, 640), True, "another view"),
        ((0, 0), True, "another view"),
        ((640, 480), False, ""),
        ((320, 240), False, "of a larger view .roi.: depth must be cropped the same way"),
        ((1280, 960), False, "cropped the same way"),
    ],
)
def test_depth_of_another_shape_is_another_view(size, whole, said):
    camera = Pinhole(500, 500, 320, 240, (640, 480), whole=whole)
    depth = Image(width=size[0], height=size[1])
    if said:
        with pytest.raises(DepthError, match=said):
            check_same_view(camera, depth)
    else:
        check_same_view(camera, depth)
