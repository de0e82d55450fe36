"""Every reason why an image cannot be used or a box has no place in space, with the situation that produces it."""

from __future__ import annotations

import struct
from dataclasses import replace

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped
from reason_parts import told, unknown, without_row
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from acs_core.errors import ImageError
from acs_core.geometry import Box
from acs_ros.conversions.compressed_depth import decode_compressed_depth
from acs_ros.conversions.depth import DepthRange, box_in_space, check_same_view, depth_in_metres
from acs_ros.conversions.detections import region_from_message, region_to_message
from acs_ros.conversions.images import (
    Frame,
    check_image,
    decode_compressed,
    encode_jpeg,
    fill_image,
    surplus_note,
)
from acs_ros.conversions.pinhole import DepthError, Pinhole, check_frame_id
from acs_ros.conversions.transforms import NS, RigidTransform, TransformBuffer, TransformError, find_transform

FILES = (
    "acs_ros/conversions/images.py",
    "acs_ros/conversions/depth.py",
    "acs_ros/conversions/detections.py",
    "acs_ros/conversions/detections_3d.py",
    "acs_ros/conversions/pinhole.py",
    "acs_ros/conversions/compressed_depth.py",
    "acs_ros/conversions/transforms.py",
)
NO_REASONS = (
    "rgb8; jpeg compressed rgb8",  # a format
    "not at this time",  # find_transform replaces it
)
IDLE = "; use the camera_info topic that belongs to the image"


def raised(kind, call):
    with pytest.raises(kind) as error:
        call()
    return str(error.value)


def picture(**fields):
    msg = fill_image(Image(), np.zeros((4, 6, 3), np.uint8))
    for name, value in fields.items():
        setattr(msg, name, value)
    return raised(ImageError, lambda: check_image(msg, 1000))


def compressed(**fields):
    return raised(ImageError, lambda: decode_compressed(CompressedImage(**fields)))


CAMERA = Pinhole(500, 500, 320, 240, (640, 480))
BOX = Box(300, 200, 340, 240)


def info(**fields):
    k = [500.0, 0, 320, 0, 500, 240, 0, 0, 1]
    return CameraInfo(**{"width": 640, "height": 480, "k": k, "distortion_model": "plumb_bob"} | fields)


def camera(size=(640, 480), **fields):
    return raised(DepthError, lambda: Pinhole.of(info(**fields), size, rectified=False))


def roi(x, y, width, height):
    return RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height)


def depth(metres, low=0.05, high=50.0, seen=CAMERA):
    values = np.full((480, 640), metres, np.float32) if np.isscalar(metres) else metres
    return raised(DepthError, lambda: box_in_space(BOX, values, seen, DepthRange(low, high)))


def holes(other):
    values = np.full((480, 640), other, np.float32)
    values[220, 320] = 2.0
    return values


def shape(width, height, whole=True):
    seen = replace(CAMERA, whole=whole)
    return raised(DepthError, lambda: check_same_view(seen, Image(width=width, height=height)))


def jpeg() -> CompressedImage:
    return encode_jpeg(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8), Header())


def half_a_jpeg() -> str:
    msg = jpeg()
    msg.data = msg.data[: len(msg.data) // 2]
    return raised(ImageError, lambda: decode_compressed(msg))


def compressed_depth(kind="png", data=b"", size=None, before=bytes(12), encoding="16UC1"):
    data = data if size is None else struct.pack("<II", *size) + data
    msg = CompressedImage(format=f"{encoding}; compressedDepth {kind}", data=before + data)
    return raised(DepthError, lambda: decode_compressed_depth(msg, 1000))


def png(values):
    return cv2.imencode(".png", values)[1].tobytes()


def words(*values):
    return struct.pack(f"<{len(values)}I", *values)


def no_transform(target="map", source="camera", stamp=NS):
    buffer = TransformBuffer()
    for parent, child in (("map", "base"), ("world", "camera")):
        msg = TransformStamped(child_frame_id=child)
        msg.header.frame_id, msg.header.stamp.sec = parent, 10
        buffer.set_transform(msg)
    return raised(TransformError, lambda: find_transform(buffer, target, source, stamp, 0.1))


def apart_in_time():
    buffer = TransformBuffer()
    for parent, child, second in (("map", "base", 10), ("base", "camera", 11)):
        msg = TransformStamped(child_frame_id=child)
        msg.header.frame_id, msg.header.stamp.sec = parent, second
        buffer.set_transform(msg)
    return raised(TransformError, lambda: find_transform(buffer, "map", "camera", 12 * NS, 5.0))


def odd_transform():
    msg = TransformStamped(child_frame_id="camera")
    msg.transform.rotation.w = 0.0
    return raised(TransformError, lambda: RigidTransform.of(msg))


DEPTH_NAME = "the compressed depth image ('16UC1; compressedDepth …', … bytes)"

# (what happens, the text that it gives)
ROWS = (
    # --- images
    (lambda: picture(height=0), "the image has no pixels: it says 6 x 0; check the camera driver"),
    (
        lambda: picture(height=400),
        "the image has 6 x 400 = 2,400 pixels, the limit is 1,000; send a smaller image or raise max_image_pixels",
    ),
    (
        lambda: picture(encoding="16UC1"),
        "unknown image encoding '16UC1'; that is a depth image, not a colour one (16-bit grey is mono16): where it is "
        "grey after all, set accept_16uc1; known are …",
    ),
    (
        lambda: picture(encoding="RGB8"),
        "unknown image encoding 'RGB8'; it is written rgb8: fix the camera driver; known are …",
    ),
    (
        lambda: picture(encoding="32FC1"),
        "unknown image encoding '32FC1'; that is a depth image, not a colour one (16-bit grey is mono16); known are …",
    ),
    (lambda: picture(encoding="nv12", width=5), "encoding nv12 stores pixels in pairs, but the image is 5 x 4"),
    (
        lambda: picture(step=6),
        "step is 6 bytes, but a row of 6 rgb8 pixels takes 18; the sender fills in step wrongly or names the wrong "
        "encoding",
    ),
    (
        lambda: picture(encoding="mono16", step=13),
        "step is 13 bytes, not a multiple of the 2 bytes of one mono16 value",
    ),
    (lambda: picture(data=b"abc"), "data is truncated: 3 bytes of 72 for 6 x 4 rgb8 with step 18"),
    (
        lambda: surplus_note(Image(height=4, width=6, step=18, encoding="rgb8", data=bytes(100))),
        "data has 100 bytes, but step x rows is 18 x 4 = 72: the last 28 are ignored; if the image looks wrong, so is "
        "height, step or encoding",
    ),
    (
        lambda: raised(ImageError, lambda: fill_image(Image(), np.zeros((4, 6), np.uint8))),
        "expected an (H, W, 3) uint8 array, got (4, 6) uint8",
    ),
    (
        lambda: raised(ImageError, Frame(CompressedImage(format="jpeg")).check),
        "the compressed image ('jpeg') has no data",
    ),
    (
        lambda: compressed(format="16UC1; compressedDepth", data=b"abc"),
        "compressed image ('16UC1; compressedDepth', 3 bytes) is a depth image, not a colour one",
    ),
    (
        lambda: compressed(format="16UC1; png compressed", data=b"abc"),
        "compressed image ('16UC1; png compressed', 3 bytes) is a depth image, not a colour one (16-bit grey is "
        "mono16): where it is grey after all, set accept_16uc1",
    ),
    (
        lambda: compressed(format="jpeg", data=b"abc"),
        "compressed image ('jpeg', 3 bytes) is no picture of a known format (JPEG, PNG, WEBP, BMP)",
    ),
    (half_a_jpeg, "compressed image ('rgb8; jpeg compressed rgb8', … bytes) cannot be decoded: …"),
    (
        lambda: raised(ImageError, lambda: decode_compressed(jpeg(), 100)),
        "compressed image ('rgb8; jpeg compressed rgb8', … bytes) cannot be used: …2,400 pixels…",
    ),
    # --- regions
    (
        lambda: raised(ImageError, lambda: region_to_message(Box(-9, 5, -5, 9))),
        "the region (-9, 5, -5, 9) has no area to the right of and below the image's corner",
    ),
    (
        lambda: raised(TypeError, lambda: region_to_message((1, 2, 30, 40))),
        "region must be a Box, a RegionOfInterest or None, got (1, 2, 30, 40)",
    ),
    (
        lambda: raised(ImageError, lambda: region_from_message(RegionOfInterest(x_offset=3, width=5))),
        "the region 5 x 0 at (3, 0) has no area: all zero is the whole image",
    ),
    # --- places in space
    (
        lambda: depth(1500.0),
        "the depth in the middle of the box is 1500 m, outside min_depth = 0.05 to max_depth = 50 m; if the depth "
        "image is in millimetres, that is 1.5 m: set depth_unit: 0.001",
    ),
    (
        lambda: depth(300000.0, low=29.0),
        "the depth in the middle of the box is 3e+05 m, outside min_depth = 29 to max_depth = 50 m; if the depth image "
        "is in tenths of a millimetre, that is 30 m: set depth_unit: 0.0001",
    ),
    (
        lambda: depth(1e-6),
        "the depth in the middle of the box is 1e-06 m, outside min_depth = 0.05 to max_depth = 50 m: nothing is that "
        "near or far, or the depth image is in another unit (depth_unit)",
    ),
    (
        lambda: depth(1.0, low=5.0, high=2.0),
        "the depth in the middle of the box is 1 m, outside min_depth = 5 to max_depth = 2 m: max_depth must be the "
        "larger one",
    ),
    (
        lambda: depth(holes(60.0)),
        "only 1 of 400 pixels in the middle of the box have a depth (399 more lie outside min_depth to max_depth): the "
        "object is too near, too far, black, shiny or transparent for the depth camera",
    ),
    (
        lambda: depth(holes(np.nan)),
        "only 1 of 400 pixels in the middle of the box have a depth: the object is too near, too far, black, shiny or "
        "transparent for the depth camera",
    ),
    (
        lambda: depth(1e30, high=1e31, seen=Pinhole(1e-300, 1e-300, 3, 2, (640, 480))),
        "the camera info and the depth give no place in space: calibrate the camera",
    ),
    (
        lambda: raised(DepthError, lambda: depth_in_metres(Image(encoding="rgb8"))),
        "depth encoding 'rgb8' is none of 16UC1, mono16, 32FC1: use the raw depth topic of the driver",
    ),
    (
        lambda: raised(DepthError, lambda: depth_in_metres(Image(encoding="16UC1", width=4, height=2, step=8))),
        "the depth image says 4 x 2 with step 8, but has 0 bytes: fix its driver",
    ),
    (
        lambda: shape(848, 480),
        "the depth image has 848 x 480 pixels, the image 640 x 480: another view; use the depth topic that is "
        "registered (aligned) to the image",
    ),
    (
        lambda: shape(320, 240, whole=False),
        "the depth image has 320 x 240 pixels, the image 640 x 480 of a larger view (roi): depth must be cropped the "
        "same way",
    ),
    # --- compressed depth
    (
        lambda: compressed_depth(encoding="rgb8"),
        "the compressed depth image ('rgb8; compressedDepth png', 12 bytes) is none: its format must be like '16UC1; "
        "compressedDepth png'; use the compressedDepth topic of the driver",
    ),
    (lambda: compressed_depth(), f"{DEPTH_NAME} has no data: fix its publisher"),
    (
        lambda: compressed_depth("jxl", b"x"),
        f"{DEPTH_NAME} is compressed by 'jxl': set the publisher's format to png or rvl",
    ),
    (
        lambda: compressed_depth(data=png(np.zeros((40, 30), np.uint16))),
        f"{DEPTH_NAME} has 30 x 40 pixels, allowed are 1 to 1,000: fix its publisher",
    ),
    (
        lambda: compressed_depth(data=png(np.zeros((4, 3), np.uint8))),
        f"{DEPTH_NAME} has pixels of kind L, not 16-bit ones: fix its publisher",
    ),
    (lambda: compressed_depth(data=b"nothing"), f"{DEPTH_NAME} cannot be decoded: …"),
    (lambda: compressed_depth("rvl", b"abc"), f"{DEPTH_NAME} cannot be decoded: it ends within its size"),
    (lambda: compressed_depth("rvl", b"", (4, 4)), f"{DEPTH_NAME} cannot be decoded: it ends within a number"),
    (
        lambda: compressed_depth("rvl", words(0xFFFFFFFF, 0xFFF00000), (4, 4)),
        f"{DEPTH_NAME} cannot be decoded: it has a number of more than 30 bits",
    ),
    (
        lambda: compressed_depth("rvl", words(0), (4, 4)),
        f"{DEPTH_NAME} cannot be decoded: a run after 0 of 16 pixels is too long or empty",
    ),
    (
        lambda: compressed_depth("rvl", words(0x10101010), (4, 4)),
        f"{DEPTH_NAME} cannot be decoded: it ends after 4 of 16 pixels",
    ),
    # --- transforms
    (
        lambda: no_transform(source="lidar"),
        "no transform from 'lidar' to 'map': nothing on /tf or /tf_static names the frame 'lidar'",
    ),
    (
        lambda: no_transform(),
        "no transform from 'camera' to 'map': the two frames are not connected; their roots are 'world' and 'map'",
    ),
    (
        lambda: no_transform(source=""),
        "no transform to 'map': the image has no frame_id; set it in the camera driver",
    ),
    (
        lambda: no_transform(source="base", stamp=11 * NS),
        "the newest transform from 'base' to 'map' is stamped 1.00 s before the image: raise transform_tolerance, or "
        "see what publishes it, and with which clock",
    ),
    (
        lambda: no_transform(source="base", stamp=9 * NS),
        "no transform from 'base' to 'map' is as old as the image, which is stamped 1.00 s before the newest one: the "
        "image came late, or has another clock",
    ),
    (
        apart_in_time,
        "the transforms between 'camera' and 'map' do not overlap in time: one of them begins after another one ends; "
        "see what publishes them, and with which clocks",
    ),
    (
        odd_transform,
        "the transform from 'camera' to '' has a value that is no number, or a rotation that is no unit quaternion: "
        "fix its publisher",
    ),
    # --- the camera
    (
        lambda: camera(k=[0.0] * 9),
        "the camera info has no focal length or size: calibrate the camera, or fix its driver",
    ),
    (
        lambda: camera(d=[0.1, 0.2]),
        "the camera info has 2 distortion coefficients for the model 'plumb_bob', or one that is no number: calibrate "
        "the camera, or fix its driver",
    ),
    (
        lambda: camera((640, 400), roi=roi(400, 0, 320, 480)),
        "the roi of the camera info, 320 x 480 at (400, 0), does not lie in its image of 640 x 480: fix the camera "
        "driver",
    ),
    (
        lambda: camera((320, 240)),
        "the image has 320 x 240 pixels, the camera info is for 640 x 480: that fits neither it nor the full image"
        f"{IDLE}; if it is the same view scaled, set accept_scaled_images: true",
    ),
    (
        lambda: camera((320, 240), binning_x=2, binning_y=2, roi=roi(50, 0, 320, 240)),
        "the image has 320 x 240 pixels, the camera info is for 160 x 120, a roi at (50, 0), binned by 2 x 2: that "
        f"fits several parts of it{IDLE}",
    ),
    (
        lambda: raised(DepthError, lambda: check_frame_id("color", "depth", "the depth image on /depth")),
        "the depth image on /depth is in the frame 'depth', the image in 'color': use the topics of one camera (depth "
        "registered to the image), or set accept_other_frames: true if both are the same view",
    ),
)


@pytest.mark.parametrize(("happens", "expected"), ROWS, ids=[row[1][:70] for row in ROWS])
def test_the_reason_names_the_cause(happens, expected):
    text = happens()
    assert told(expected, text), text


def test_the_table_has_every_text():
    assert without_row(FILES, [expected for _, expected in ROWS], NO_REASONS) == []
    assert unknown(FILES, NO_REASONS) == []
