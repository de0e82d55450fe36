"""Camera infos: calibration, region of interest and binning, and which images they belong to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, RegionOfInterest

from acs_core.geometry import Box
from acs_ros.conversions.depth import box_in_space
from acs_ros.conversions.pinhole import DepthError, Pinhole, check_frame_id

K = [500.0, 0, 320, 0, 500, 240, 0, 0, 1]
P = [450.0, 0, 310, 0, 0, 450, 230, 0, 0, 0, 1, 0]


def info(**given) -> CameraInfo:
    made = CameraInfo(width=640, height=480, k=K, p=P, distortion_model="plumb_bob", d=[0.1, 0.0, 0.0, 0.0, 0.0])
    for name, value in given.items():
        setattr(made, name, value)
    return made


def test_rectified_images_use_p_and_scaled_ones_scale_it():
    camera = Pinhole.of(info(), (320, 240), rectified=True, accept_scaled=True)
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


def roi(x: int, y: int, width: int, height: int, do_rectify: bool = False) -> RegionOfInterest:
    return RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height, do_rectify=do_rectify)


@pytest.mark.parametrize("rectified", [True, False])
@pytest.mark.parametrize("do_rectify", [True, False])
@pytest.mark.parametrize(
    ("changes", "size", "seen"),
    [
        ({}, (640, 480), (0, 0, 1, 1)),
        ({"roi": roi(0, 0, 640, 480)}, (640, 480), (0, 0, 1, 1)),
        ({"roi": roi(105, 40, 320, 200)}, (320, 200), (105, 40, 1, 1)),
        ({"binning_x": 1, "binning_y": 1}, (640, 480), (0, 0, 1, 1)),
        ({"binning_x": 2, "binning_y": 2}, (320, 240), (0, 0, 2, 2)),
        ({"binning_x": 2}, (320, 480), (0, 0, 2, 1)),
        ({"binning_x": 4, "binning_y": 4, "roi": roi(104, 40, 321, 200)}, (80, 50), (104, 40, 4, 4)),
        ({"binning_x": 4, "binning_y": 4, "roi": roi(104, 40, 321, 200)}, (81, 50), (104, 40, 4, 4)),
        # The driver sends another of the sizes that the camera info names.
        ({"roi": roi(105, 40, 320, 200)}, (640, 480), (0, 0, 1, 1)),
        ({"binning_x": 2, "binning_y": 2}, (640, 480), (0, 0, 1, 1)),
        ({"binning_x": 2, "binning_y": 2, "roi": roi(105, 40, 200, 200)}, (200, 200), (105, 40, 1, 1)),
        ({"binning_x": 2, "binning_y": 2, "roi": roi(105, 40, 200, 200)}, (320, 240), (0, 0, 2, 2)),
    ],
)
def test_region_and_binning_are_applied(changes, size, seen, rectified, do_rectify):
    """The ray of a pixel is that of the pixel of the full image that it shows."""
    given_info = info(d=[], **changes)
    given_info.roi.do_rectify = do_rectify
    camera = Pinhole.of(given_info, size, rectified)
    full = Pinhole.of(info(d=[]), (640, 480), rectified)
    x0, y0, step_x, step_y = seen
    assert camera.ray(30, 20) == pytest.approx(full.ray(x0 + 30 * step_x, y0 + 20 * step_y))
    assert camera.whole is ((size[0] * step_x, size[1] * step_y) == (640, 480))


def test_distortion_is_that_of_the_full_image():
    cropped = Pinhole.of(info(roi=roi(400, 300, 200, 100)), (200, 100), rectified=False)
    full = Pinhole.of(info(), (640, 480), rectified=False)
    assert cropped.ray(150, 50) == pytest.approx(full.ray(550, 350))
    assert cropped.ray(150, 50) != pytest.approx(((550 - 320) / 500, (350 - 240) / 500), abs=1e-3)


def test_a_crop_does_not_move_the_object():
    """105 pixels at a focal length of 1000 and half a metre would be five centimetres."""
    depth = np.full((400, 400), 0.5, np.float32)
    k = [1000.0, 0, 320, 0, 1000, 240, 0, 0, 1]
    seen = info(d=[], p=[0.0] * 12, k=k, roi=roi(105, 0, 400, 400))
    found = box_in_space(Box(205, 230, 225, 250), depth, Pinhole.of(seen, (400, 400), rectified=True))
    assert found.center == pytest.approx((0.0, 0.0, 0.5), abs=1e-9)


@pytest.mark.parametrize(
    ("changes", "size", "said"),
    [
        ({}, (320, 240), "the image has 320 x 240 pixels, the camera info is for 640 x 480: .*accept_scaled_images"),
        ({}, (320, 320), "fits neither it nor the full image; use the camera_info topic that belongs to the image$"),
        ({"roi": roi(105, 40, 320, 200)}, (320, 201), r"is for 320 x 200, a roi at \(105, 40\): .*fits neither"),
        ({"binning_x": 2, "binning_y": 2}, (160, 120), "is for 320 x 240, binned by 2 x 2: that fits neither"),
        # Half of the image as a region and the whole image in half the size look the same.
        ({"binning_x": 2, "binning_y": 2, "roi": roi(50, 0, 320, 240)}, (320, 240), "fits several parts of it"),
        (
            {"roi": roi(400, 0, 320, 480)},
            (320, 480),
            r"320 x 480 at \(400, 0\), does not lie in its image",
        ),
        ({"roi": roi(10, 0, 0, 0)}, (640, 480), "does not lie in its image"),
    ],
)
def test_an_image_that_the_camera_info_does_not_describe_is_refused(changes, size, said):
    with pytest.raises(DepthError, match=said):
        Pinhole.of(info(**changes), size, rectified=True)


def test_scaled_images_are_scaled_in_the_same_ratio_only():
    changes = {"roi": roi(100, 40, 400, 200)}
    camera = Pinhole.of(info(**changes), (200, 100), rectified=True, accept_scaled=True)
    assert (camera.fx, camera.cx, camera.cy, camera.whole) == (225.0, 105.0, 95.0, False)
    with pytest.raises(DepthError, match="fits neither"):
        Pinhole.of(info(**changes), (200, 150), rectified=True, accept_scaled=True)


@given(
    x=st.integers(0, 600),
    y=st.integers(0, 440),
    width=st.integers(1, 640),
    height=st.integers(1, 480),
    bins=st.integers(1, 4),
)
def test_any_region_and_binning_give_the_ray_of_the_full_image(x, y, width, height, bins):
    width, height = min(width, 640 - x), min(height, 480 - y)
    size = max(1, width // bins), max(1, height // bins)
    seen = info(d=[], roi=roi(x, y, width, height), binning_x=bins, binning_y=bins)
    camera = Pinhole.of(seen, size, rectified=False)
    assert camera.ray(0, 0) == pytest.approx(((x - 320) / 500, (y - 240) / 500), abs=1e-9)
    assert (camera.fx, camera.fy) == pytest.approx((500 / bins, 500 / bins))


@pytest.mark.parametrize(
    ("image", "other", "fits"),
    [
        ("camera", "camera", True),
        ("/camera", "camera", True),
        ("", "", True),
        ("color_optical", "depth_optical", False),
        ("camera", "camera_optical", False),
        ("camera", "", False),
        ("", "camera", False),
    ],
)
def test_frames_are_compared_without_a_leading_slash(image, other, fits):
    if fits:
        check_frame_id(image, other, "the depth image")
    else:
        with pytest.raises(DepthError, match=f"the depth image is in the frame '{other}', the image in '{image}'"):
            check_frame_id(image, other, "the depth image")
