"""Pictures of a data set: reading them, and bringing true boxes to the pixels of pictures that differ from their
annotation.

A picture may be larger or smaller than its annotation says (a scaled copy), and may have an EXIF orientation while its
boxes refer to the stored pixels. Models see the upright picture, so the boxes are turned and scaled to that. Where
sizes do not tell what the boxes refer to, the picture is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from acs_core.artifacts.json_io import Limits, open_file, read_bytes
from acs_core.errors import ImageError
from acs_core.geometry import Box
from acs_core.image import MAX_FILE_BYTES, PictureFrame, picture_frame, read_image
from acs_core.pixels import MOST_BITS
from training.data.dataset import DatasetImage, Problems
from training.errors import DataError

if TYPE_CHECKING:
    from training.data.pairs import Pair

LIMITS = Limits(MAX_FILE_BYTES, 0)
ROUNDING = 1.0  # pixels by which the sides of a scaled copy may be rounded
HEAD, JPEG = 1 << 18, b"\xff\xd8"  # bytes that hold the size of most JPEG files; their first bytes
DIGEST_DIGITS = 16  # hexadecimal, of the SHA-256 of a picture's file
TURNED = "boxes turned to the upright picture: annotated as stored, before its EXIF orientation"
SCALED = "boxes scaled to the picture: it is a scaled copy of the annotated one"
ASSUMED = "boxes taken as those of the upright picture: it has an EXIF orientation, its annotation no size"
UNCLEAR = (
    "picture left out: its EXIF orientation and size do not tell whether it is annotated as stored or upright; save it "
    "upright, without the tag"
)
OTHER = "picture left out: neither its size nor its shape is that of its annotation"


def read_picture(file: Path, bits: int = MOST_BITS) -> np.ndarray:
    """Read the image in ``file``, (H, W, 3) uint8 RGB, with :func:`acs_core.image.read_image`; ``bits`` is the number
    of bits that the values of a 16-bit image use.

    Raises:
        DataError: the file is missing, or not an image that :func:`acs_core.image.read_image` supports.
    """
    try:
        return read_image(file, bits)
    except ImageError as error:
        raise DataError(str(error)) from error


def size_of(file: Path) -> tuple[int, int] | None:
    """Return the (width, height) of the upright picture in ``file``; None if it cannot be read."""
    try:
        with open_file(file) as content:
            head = content.read(HEAD)
            if head.startswith(JPEG) and (found := _frame(head)):
                return found.upright
            found = _frame(head + content.read(MAX_FILE_BYTES))
    except (OSError, ValueError):
        return None
    return found.upright if found else None


def _frame(data: bytes) -> PictureFrame | None:
    try:
        return picture_frame(data)
    except ImageError:
        return None


@dataclass(frozen=True)
class _Seen:
    """Frame of a picture, and the digest of its file."""

    frame: PictureFrame
    digest: str

    @classmethod
    def of(cls, file: Path) -> _Seen | None:
        try:
            data = read_bytes(file, LIMITS)
        except ValueError:
            return None  # collecting reads it again, and says why it cannot
        frame = _frame(data)
        return cls(frame, hashlib.sha256(data).hexdigest()[:DIGEST_DIGITS]) if frame else None


@dataclass(frozen=True)
class _Way:
    """How boxes of an annotation get to the upright picture: from the ``stored`` pixels or not, and scaled or not."""

    stored: bool
    scaled: bool


def fit_to_pictures(pairs: Sequence[Pair], images: Iterable[DatasetImage], notes: Problems) -> list[Pair]:
    """Return ``pairs`` with their true boxes in pixels of the upright picture, and with its size and digest.

    Pairs whose boxes cannot be brought there are left out. Pairs whose picture cannot be read stay as they are, for
    collecting says why. For pictures that are upright by some, but not all, readings (an orientation by 180 degrees, a
    square picture), the other pictures of ``pairs`` decide.

    Args:
        pairs: pairs of ``images``.
        images: the images of the data set.
        notes: gets what was done to the pictures, by kind, counted.

    Raises:
        DataError: there are pairs, and all were left out.
    """
    by_id = {image.id: image for image in images}
    asked = {pair.image_id: by_id[pair.image_id] for pair in pairs}
    seen = {number: _Seen.of(image.file) for number, image in asked.items()}
    ways = {n: _ways(asked[n], picture.frame) for n, picture in seen.items() if picture}
    stored = _convention(ways, seen)
    chosen: dict[int, _Way | None] = {}
    for number, possible in ways.items():
        image, picture = asked[number], seen[number]
        if picture is None:
            continue
        told = _told(image, picture.frame)
        if len(possible) > 1:
            possible = [way for way in possible if way.stored == stored]
        way = chosen[number] = possible[0] if possible else None
        if way is None:
            notes.note(UNCLEAR if ways[number] else OTHER, told, image.file.name)
            continue
        for said, kind in ((way.stored, TURNED), (way.scaled, SCALED)):
            if said:
                notes.note(kind, told)
        if not image.declared and picture.frame.orientation != 1:
            notes.note(ASSUMED, told)
    kept = []
    for pair in pairs:
        picture = seen[pair.image_id]
        if picture is None:
            kept.append(pair)
            continue
        if (way := chosen[pair.image_id]) is not None:
            truth = tuple(_moved(box, asked[pair.image_id].size, picture.frame, way) for box in pair.truth)
            kept.append(replace(pair, truth=truth, size=picture.frame.upright, picture=picture.digest))
    if pairs and not kept:
        raise DataError(f"no picture fits its annotation: {notes.lines()[0]}")
    return kept


def _told(image: DatasetImage, frame: PictureFrame) -> str:
    (width, height), (w, h) = frame.stored, image.size
    turned = f", EXIF orientation {frame.orientation}" if frame.orientation != 1 else ""
    return f"{image.file}: {width} x {height}{turned}" + (f", annotated as {w} x {h}" if image.declared else "")


def _ways(image: DatasetImage, frame: PictureFrame) -> list[_Way]:
    """Return the ways in which the boxes of ``image`` may refer to its picture: those of equal size, else those
    of equal shape."""
    if not image.declared or frame.orientation == 1:
        readings = [(False, frame.upright)]
    else:
        readings = [(False, frame.upright), (True, frame.stored)]
    same = [_Way(stored, False) for stored, size in readings if size == image.size]
    return same or [_Way(stored, True) for stored, size in readings if _is_scaled(image.size, size)]


def _is_scaled(annotated: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether one factor takes the sides of ``annotated`` to those of ``size``, which are rounded to pixels."""
    low = max((side - ROUNDING) / of for side, of in zip(size, annotated, strict=True))
    high = min((side + ROUNDING) / of for side, of in zip(size, annotated, strict=True))
    return low <= high


def _convention(ways: Mapping[int, list[_Way]], seen: Mapping[int, _Seen | None]) -> bool | None:
    """Return whether the pictures with an EXIF orientation whose sizes tell are annotated as stored; None if they
    differ, or none tells."""
    votes = {
        possible[0].stored
        for number, possible in ways.items()
        if len(possible) == 1 and (picture := seen[number]) is not None and picture.frame.orientation != 1
    }
    return votes.pop() if len(votes) == 1 else None


def _moved(box: Box, annotated: tuple[int, int], frame: PictureFrame, way: _Way) -> Box:
    """Return ``box`` of an annotation of size ``annotated`` in pixels of the upright picture."""
    width, height = frame.stored if way.stored else frame.upright
    if way.scaled:
        x, y = width / annotated[0], height / annotated[1]
        box = Box(box.x1 * x, box.y1 * y, box.x2 * x, box.y2 * y)
    return frame.to_upright(box) if way.stored else box
