"""Pictures as parts of a page: small, and inside it, so that the page needs no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from acs_core.errors import ImageError
from acs_core.image import read_image

SIDE, QUALITY = 480, 72  # longest side in pixels; of WebP
Reader = Callable[[str], np.ndarray]


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a data URI, or the ``problem`` why there is none."""

    uri: str = ""
    problem: str = ""


def thumbnail(read: Reader, image: str, side: int = SIDE) -> Thumbnail:
    """The picture that ``read`` gives for ``image``, its longer side at most ``side`` pixels. What cannot be read is a
    problem to show, not an error."""
    try:
        picture = Image.fromarray(read(image))
    except (ImageError, OSError, ValueError) as error:
        return Thumbnail(problem=str(error))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=QUALITY, method=4)
    return Thumbnail("data:image/webp;base64," + base64.b64encode(out.getvalue()).decode("ascii"))


def reader_from(*folders: Path) -> Reader:
    """Reads picture files; a relative name is looked for in each of ``folders``."""
    return partial(_read, folders)


def _read(folders: tuple[Path, ...], image: str) -> np.ndarray:
    places = [folder / image for folder in folders] or [Path(image)]
    return read_image(next((place for place in places if place.is_file()), places[0]))
