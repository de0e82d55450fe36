"""One picture of one camera on its way to the model: checked when it comes, decoded when it is its turn."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
import PIL.Image
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from acs_core.errors import ImageError
from acs_core.image import MAX_PIXELS, open_picture
from acs_ros.image_conversion import check_image, image_to_rgb

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")  # what image_transport and its plugins send, and no decoder beyond


@dataclass(frozen=True)
class Frame:
    """``camera`` is its name in the parameter ``cameras``, "" for the only one. ``own``: the picture came with a goal,
    and is none of the camera's."""

    msg: Image | CompressedImage
    camera: str = ""
    own: bool = False
    depth: Image | None = None
    info: CameraInfo | None = None

    @property
    def header(self) -> Header:
        """The header that every answer about this frame carries."""
        return self.msg.header

    def check(self, max_pixels: int = MAX_PIXELS) -> None:
        """Check all that is cheap to check.

        Raises:
            ImageError: the frame cannot be used.
        """
        if isinstance(self.msg, CompressedImage):
            if not len(self.msg.data):
                raise ImageError(f"the compressed image ({self.msg.format[:40]!r}) has no data")
        else:
            check_image(self.msg, max_pixels)

    def rgb(self, max_pixels: int = MAX_PIXELS, tiff: bool = False) -> np.ndarray:
        """Decode to a new (H, W, 3) uint8 RGB array; TIFF only with ``tiff``.

        Raises:
            ImageError: the frame cannot be used.
        """
        if isinstance(self.msg, CompressedImage):
            return decode_compressed(self.msg, max_pixels, tiff)
        return image_to_rgb(self.msg, max_pixels)

    def with_depth(self, depth: Image | None, info: CameraInfo | None) -> Frame:
        """The same frame with what belongs to it."""
        return replace(self, depth=depth, info=info)


def decode_compressed(msg: CompressedImage, max_pixels: int = MAX_PIXELS, tiff: bool = False) -> np.ndarray:
    """Decode a compressed picture to (H, W, 3) uint8 RGB. 16-bit grey keeps its high byte, alpha is ignored. TIFF only
    with ``tiff``: the library that reads it writes a line to stderr for each broken one.

    Raises:
        ImageError: unknown format, broken or cut short, or more than ``max_pixels`` pixels.
    """
    formats = (*FORMATS, "TIFF") if tiff else FORMATS
    name = f"compressed image ({msg.format[:40]!r}, {len(msg.data)} bytes)"
    if "compressedDepth" in msg.format:
        raise ImageError(f"{name} is a depth image, not a colour one")
    try:
        with open_picture(bytes(msg.data), max_pixels, formats) as picture:
            if picture.mode.startswith("I"):
                grey = (np.asarray(picture).astype(np.uint32) >> 8).astype(np.uint8)
                return np.repeat(grey[:, :, None], 3, axis=2)
            return np.array(picture.convert("RGB"))
    except ImageError as error:
        raise ImageError(f"{name} cannot be used: {error}") from error
    except PIL.UnidentifiedImageError as error:
        raise ImageError(f"{name} is no picture of a known format ({', '.join(formats)})") from error
    except Exception as error:  # of a broken picture: each decoder raises its own
        raise ImageError(f"{name} cannot be decoded: {error}") from error


def encode_jpeg(rgb: np.ndarray, header: Header, quality: int = 80) -> CompressedImage:
    """An (H, W, 3) uint8 RGB array as a JPEG message."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(rgb).save(buffer, "JPEG", quality=quality)
    msg = CompressedImage(header=header, format="rgb8; jpeg compressed rgb8")
    msg.data.frombytes(buffer.getvalue())
    return msg
