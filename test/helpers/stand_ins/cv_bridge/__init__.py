"""A stand-in for cv_bridge, written after its documented behaviour, for machines without it.

It has the two methods that acs calls, and reads a message as cv_bridge does: the buffer is cut into whole pixels of the
step, big-endian data is swapped by a method that numpy 2 does not have, conversions that change the number of bits come
after those of the colours and scale by 255 / 65535 with rounding. The environment variable CV_BRIDGE_FAULT breaks it.
"""

import os
import sys

import cv2
import numpy as np

FAULT = os.environ.get("CV_BRIDGE_FAULT", "")
if FAULT == "numpy":
    print("A module that was compiled using NumPy 1.x cannot be run in NumPy 2", file=sys.stderr)
    raise ImportError("numpy.core.multiarray failed to import")
if FAULT == "crash":
    print("A module that was compiled using NumPy 1.x cannot be run in NumPy 2", file=sys.stderr, flush=True)
    os.abort()

CHANNELS = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4, "mono": 1, "yuv422": 2, "yuv422_yuy2": 2}
CODES = {
    "bgr": cv2.COLOR_BGR2RGB,
    "rgba": cv2.COLOR_RGBA2RGB,
    "bgra": cv2.COLOR_BGRA2RGB,
    "mono": cv2.COLOR_GRAY2RGB,
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUY2,
    # OpenCV names the pattern by another row than ROS.
    "bayer_rggb": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg": cv2.COLOR_BayerGB2RGB,
}
CALLS = []  # the encodings that were converted


class CvBridgeError(TypeError):
    """A conversion that is not possible."""


def _parts(encoding):
    if encoding in ("yuv422", "yuv422_yuy2"):
        return encoding, 8
    for bits in (16, 8):
        if encoding.endswith(str(bits)) and encoding[: -len(str(bits))] in {*CHANNELS, *CODES}:
            return encoding[: -len(str(bits))], bits
    raise CvBridgeError(f"Unrecognized image encoding [{encoding}]")


class CvBridge:
    """The documented class."""

    def encoding_to_cvtype2(self, encoding):
        """The number of OpenCV's type."""
        if encoding == "8UC3":
            return cv2.CV_8UC3 + (FAULT == "opencv")
        if FAULT == "old" and encoding == "yuv422_yuy2":
            raise CvBridgeError(f"Unrecognized image encoding [{encoding}]")
        name, bits = _parts(encoding)
        return getattr(cv2, f"CV_{bits}UC{CHANNELS.get(name, 1)}")

    def imgmsg_to_cv2(self, img_msg, desired_encoding="passthrough"):
        """Convert a message to an array of ``desired_encoding``; only rgb8 is known here."""
        if desired_encoding != "rgb8":
            raise NotImplementedError(desired_encoding)
        CALLS.append(img_msg.encoding)
        name, bits = _parts(img_msg.encoding)
        channels = CHANNELS.get(name, 1)
        dtype = np.dtype(f"u{bits // 8}").newbyteorder(">" if img_msg.is_bigendian else "<")
        columns = int(img_msg.step / dtype.itemsize / channels)
        shape = (img_msg.height, columns) if channels == 1 else (img_msg.height, columns, channels)
        pixels = np.ndarray(shape, dtype, buffer=img_msg.data)
        pixels = np.ascontiguousarray(pixels[:, : img_msg.width])
        if img_msg.is_bigendian == (sys.byteorder == "little"):
            pixels = pixels.byteswap().newbyteorder()
        if name in CODES:
            pixels = cv2.cvtColor(pixels, CODES[name])
        if bits == 16:
            pixels = np.rint(pixels * (255 / 65535)).astype(np.uint8)
        if FAULT == "pixels" and name == "bgr":
            pixels = pixels[..., ::-1]
        return pixels.copy()
