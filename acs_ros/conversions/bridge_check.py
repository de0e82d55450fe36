"""Tries the installed cv_bridge on small images: ``python -m acs_ros.conversions.bridge_check``.

Prints for which encodings it gives the pixels that the decoder of :mod:`acs_ros.conversions.images` gives: exactly for
8-bit values, within 1 for 16-bit values.
"""

from __future__ import annotations

if __name__ == "__main__":  # first: a signal may come while the modules below are imported
    from acs_core.entry import run

    run("acs_ros.conversions.bridge_check", "bridge_check")

import json
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import Image

from acs_ros.conversions.bridge import BRIDGED_ENCODINGS, NUMPY_1, RESULT
from acs_ros.conversions.images import decode_unbridged

HEIGHT, WIDTH = 6, 8
CHANNELS = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4, "yuv422": 2}  # of the encodings with several


def sample(encoding: str, height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> Image:
    """Return an image message of random values in one of :data:`BRIDGED_ENCODINGS`."""
    value_bytes = 2 if encoding.endswith("16") else 1
    kind = encoding.removesuffix("16").removesuffix("8").removesuffix("_yuy2")
    step = width * CHANNELS.get(kind, 1) * value_bytes
    data = np.random.default_rng(seed).integers(0, 256, step * height, np.uint8)
    return Image(height=height, width=width, encoding=encoding, step=step, data=data.tobytes())


def try_bridge() -> tuple[list[str], str]:
    """Return the encodings that cv_bridge can be used for, and why it cannot be for others that it knows."""
    try:
        from cv_bridge import CvBridge

        bridge = CvBridge()
        theirs = int(bridge.encoding_to_cvtype2("8UC3"))
    except Exception as error:  # whatever a compiled module raises that was built for other libraries
        return [], _explained(error)
    ours = int(cv2.CV_8UC3)
    if theirs != ours:
        return [], (
            f"it was built against another OpenCV than the {cv2.__version__} that is installed (the type 8UC3 is "
            f"{theirs} to it, and {ours} here)"
        )
    good, problems = [], []
    for encoding in sorted(BRIDGED_ENCODINGS):
        try:
            bridge.encoding_to_cvtype2(encoding)
        except Exception:  # an older release, which does not know it
            continue
        problem = _difference(bridge, encoding)
        if problem:
            problems.append(problem)
        else:
            good.append(encoding)
    return good, "; ".join(problems[:2])


def _difference(bridge: Any, encoding: str) -> str:
    msg = sample(encoding)
    try:
        found = np.asarray(bridge.imgmsg_to_cv2(msg, "rgb8"))
    except Exception as error:
        return f"{encoding}: {_explained(error)}"
    wanted = decode_unbridged(msg)
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return f"{encoding}: it makes an array of {found.shape} {found.dtype}, not {wanted.shape} {wanted.dtype}"
    apart = int(np.abs(found.astype(int) - wanted.astype(int)).max())
    if apart > (1 if encoding.endswith("16") else 0):
        return f"{encoding}: its pixels are wrong by up to {apart}"
    return ""


def _explained(error: Exception) -> str:
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
    # numpy 2 says what is wrong in a long text on stderr; the exception names its table of functions.
    if "_ARRAY_API" in text or "numpy.core.multiarray" in text or NUMPY_1 in text:
        return f"it was built against numpy 1, and numpy {np.__version__} is installed ({text})"
    return text


def main() -> None:
    """Print the result as one line."""
    encodings, problem = try_bridge()
    print(RESULT + json.dumps({"encodings": encodings, "problem": problem}), flush=True)
