from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, Image

from acs_core.geometry import Box
from acs_ros.depth import DepthError, Pinhole, box_in_space, depth_in_metres

K = [500.0, 0, 320, 0, 500, 240, 0, 0, 1]
P = [450.0, 0, 310, 0, 0, 450, 230, 0, 0, 0, 1, 0]
CAMERA = Pinhole(500, 500, 320, 240, (640, 480))


def info(**given) -> CameraInfo:
    made = CameraInfo(width=640, height=480, k=K, p=P, distortion_model="plumb_bob", d=[0.1, 0.0, 0.0, 0.0, 0.0])
    for name, value in given.items():
        setattr(made, name, value)
    return made


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
    metres = depth_in_metres(depth_image(floats, "32FC1", padding, big), 0.001)
    assert metres[0, 1] == 1.5 and np.isnan(metres).sum() == 3


@pytest.mark.parametrize(
    ("field", "value", "said"), [("encoding", "rgb8", "none of 16UC1"), ("step", 1, "step 1"), ("data", b"", "0 bytes")]
)
def test_what_is_no_depth_image_is_named(field, value, said):
    msg = depth_image(np.ones((2, 2)), "16UC1")
    setattr(msg, field, value)
    with pytest.raises(DepthError, match=said):
        depth_in_metres(msg, 0.001)


def test_rectified_images_use_p_and_scaled_ones_scale_it():
    camera = Pinhole.of(info(), (320, 240), rectified=True)
    assert (camera.fx, camera.cx, camera.cy, camera.distortion) == (225.0, 155.0, 115.0, ())


def test_raw_images_use_k_and_undistort():
    camera = Pinhole.of(info(), (640, 480), rectified=False)
    assert camera.fx == 500.0
    assert camera.ray(320, 240) == pytest.approx((0, 0), abs=1e-9)
    assert 0 < camera.ray(620, 240)[0] < 300 / 500  # barrel or pincushion, but no longer the straight ray


@pytest.mark.parametrize("field", ["k", "width"])
def test_an_uncalibrated_camera_is_named(field):
    broken = info(p=[0.0] * 12, **{field: [0.0] * 9 if field == "k" else 0})
    with pytest.raises(DepthError, match="no focal length or size"):
        Pinhole.of(broken, (640, 480), rectified=True)


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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"k": [float("nan"), *K[1:]]}, "no focal length"),
        ({"k": [*K[:2], float("inf"), *K[3:]]}, "no focal length"),
        ({"width": 0}, "no focal length or size"),
        ({"d": [0.1, 0.2, 0.3]}, "3 distortion coefficients for the model 'plumb_bob'"),
        ({"d": [float("nan")] * 5}, "5 distortion coefficients.* no number"),
        ({"d": [0.1] * 5, "distortion_model": "equidistant"}, "5 distortion coefficients for the model 'equidistant'"),
    ],
)
def test_camera_infos_that_describe_no_camera_are_named(changes, said):
    with pytest.raises(DepthError, match=said):
        Pinhole.of(info(**changes), (640, 480), rectified=False)


def test_a_place_that_is_no_number_is_none():
    camera = Pinhole(1e-300, 1e-300, 320, 240, (640, 480))
    with pytest.raises(DepthError, match="no place in space"):
        box_in_space(Box(300, 200, 340, 280), np.full((480, 640), 1e30, np.float32), camera)
