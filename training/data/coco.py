"""Reader of COCO-style annotations (COCO, Objects365): the objects of each image, and the unusable entries.

One pass over an ``instances.json`` serves all readers. Pairs are chosen from it in :mod:`training.data.pairs`.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from acs_core.artifacts.json_io import COCO as COCO_LIMITS
from acs_core.artifacts.json_io import read_json
from acs_core.errors import ImageError
from acs_core.geometry import Box
from acs_core.image import read_image
from acs_core.pixels import LEAST_BITS, MOST_BITS
from acs_core.plain_text import shorten
from training.errors import DataError

SMALL = (0.001, 0.01)  # share of the image's area, paper section 5.1
MAX_NUMBER = 1e12  # of sizes and coordinates
MAX_PATH = 1000  # characters of an image's file name
OVERHANG = 2.0  # pixels by which annotated boxes commonly exceed the image


@dataclass(frozen=True)
class CocoObject:
    """One annotation.

    Attributes:
        name: name of the category.
        box: box in pixels, clipped to the image.
        area: COCO's ``area`` in square pixels.
        unclear: True for crowd regions (COCO), reflections and depictions of an object (Objects365), for which it is
            undefined whether they count.
        colour: colour of the object, "" if it is unknown: ``attributes.colour`` of its annotation, an extension of
            COCO.
    """

    name: str
    box: Box
    area: float
    unclear: bool = False
    colour: str = ""


@dataclass(frozen=True)
class CocoImage:
    """One image.

    Attributes:
        id: image id.
        file: path of the image.
        size: (width, height) in pixels.
        objects: valid annotations.
        doubtful: categories with an invalid annotation, whose true boxes are therefore not all known.
        bits: number of bits that the values of a 16-bit image use: the field "bits" of its entry, an extension of COCO.
    """

    id: int
    file: Path
    size: tuple[int, int]
    objects: tuple[CocoObject, ...]
    doubtful: frozenset[str] = frozenset()
    bits: int = MOST_BITS


@dataclass
class Problems:
    """Unusable entries of an annotation file by kind, each with its count and its first example."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def note(self, kind: str, example: str) -> None:
        """Count one more problem of ``kind``."""
        self.counts[kind] += 1
        self.examples.setdefault(kind, example)

    def lines(self) -> list[str]:
        """Return one line per kind, the most frequent first."""
        return [f"{count} x {kind} (the first: {self.examples[kind]})" for kind, count in self.counts.most_common()]


@dataclass(frozen=True)
class CocoData:
    """Content of an annotation file: category ``names``, ``images`` in the order of the file, and ``problems``."""

    file: Path
    names: tuple[str, ...]
    images: tuple[CocoImage, ...]
    problems: Problems


def read_coco(annotations: Path, images: Path | None = None) -> CocoData:
    """Read ``annotations``. Invalid entries are left out and counted in ``problems``.

    ``images`` is the image folder (default: ``images`` beside the annotations).

    Raises:
        DataError: the file is missing, not JSON, or holds no list of images, annotations or categories.
    """
    content = _read(annotations)
    folder, problems = images or annotations.parent / "images", Problems()
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(f'{annotations} is not in COCO\'s format: it should hold a list "{key}"')
    content["images"] = [i for i in content["images"] if _good_image(i, problems)]
    content["categories"] = [c for c in content["categories"] if _good_category(c, problems)]
    known, named = {i["id"] for i in content["images"]}, {c["id"] for c in content["categories"]}
    content["annotations"] = [a for a in content["annotations"] if _good_reference(a, known, named, problems)]
    index = COCO()
    index.dataset = content
    with redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        index.createIndex()
    names = {i: str(c["name"]) for i, c in index.cats.items()}
    return CocoData(
        annotations,
        tuple(names[i] for i in sorted(names)),
        tuple(_image(i, index.imgToAnns.get(i["id"], []), names, folder, problems) for i in content["images"]),
        problems,
    )


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


def _image(
    entry: dict[str, Any], found: list[dict[str, Any]], names: dict[int, str], folder: Path, problems: Problems
) -> CocoImage:
    size = int(entry["width"]), int(entry["height"])
    objects, doubtful = [], set()
    for a in found:
        name, where = names[a["category_id"]], f"annotation {a['id']} of image {entry['id']}"
        box = _box(a.get("bbox"), size, where, problems)
        if box is None:
            doubtful.add(name)
            continue
        unclear = any(a.get(key) for key in ("iscrowd", "isfake", "isreflected"))
        area = float(a["area"]) if _is_number(a.get("area")) else box.area
        objects.append(CocoObject(name, box, area, unclear, _colour(a.get("attributes"), where, problems)))
    file, bits = _file(folder, str(entry["file_name"])), int(entry.get("bits", MOST_BITS))
    return CocoImage(entry["id"], file, size, tuple(objects), frozenset(doubtful), bits)


def _box(bbox: Any, size: tuple[int, int], where: str, problems: Problems) -> Box | None:
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(v) for v in bbox):
        problems.note("bad annotation: bbox is not four numbers", f"{where}: {shorten(bbox)}")
        return None
    x, y, w, h = (float(v) for v in bbox)
    if w <= 0 or h <= 0:
        problems.note("bad annotation: box without area", f"{where}: {bbox}")
        return None
    box = Box(x, y, x + w, y + h).clip(*size)
    if box is None:
        problems.note("bad annotation: box outside the image", f"{where}: {bbox} in {size[0]} x {size[1]}")
    elif min(x, y) < -OVERHANG or x + w > size[0] + OVERHANG or y + h > size[1] + OVERHANG:
        problems.note("bad annotation: box partly outside the image", f"{where}: {bbox} in {size[0]} x {size[1]}")
        return None
    return box


def _colour(attributes: Any, where: str, problems: Problems) -> str:
    colour = attributes.get("colour", "") if isinstance(attributes, dict) else ""
    if not isinstance(colour, str) or not re.fullmatch("[a-z]{0,20}", colour):
        problems.note("colour left out: not a word of up to 20 small letters", f"{where}: {shorten(colour)}")
        return ""
    return colour


def _file(folder: Path, name: str) -> Path:
    """Return the path of an image.

    Objects365 writes ``images/v1/patch8/x.jpg`` and unpacks to ``patch8/x.jpg``: leading folders that do not exist are
    dropped. If no file is found, the full name is kept for the error message.
    """
    parts = PurePosixPath(name).parts
    if len(parts) > 1:
        for k in range(len(parts)):
            if (folder.joinpath(*parts[k:])).exists():
                return folder.joinpath(*parts[k:])
    return folder / name


def _stays_inside(name: str) -> bool:
    """Whether ``name`` is a path inside the image folder."""
    path = PurePosixPath(name)
    return 0 < len(name) <= MAX_PATH and name.isprintable() and not path.is_absolute() and ".." not in path.parts


def _good_image(entry: Any, problems: Problems) -> bool:
    good = (
        isinstance(entry, dict)
        and isinstance(entry.get("id"), int)
        and isinstance(entry.get("file_name"), str)
        and _stays_inside(entry["file_name"])
        and all(_is_number(entry.get(side)) and entry[side] >= 1 for side in ("width", "height"))
    )
    if not good:
        problems.note("bad image entry: needs id, file_name inside the folder, width and height", shorten(entry, 80))
        return False
    bits = entry.get("bits", MOST_BITS)
    if not isinstance(bits, int) or not LEAST_BITS <= bits <= MOST_BITS:
        problems.note(f"bad image entry: bits is no whole number from {LEAST_BITS} to {MOST_BITS}", shorten(entry, 80))
        return False
    return True


def _good_category(entry: Any, problems: Problems) -> bool:
    good = isinstance(entry, dict) and isinstance(entry.get("id"), int) and isinstance(entry.get("name"), str)
    if not (good and entry["name"]):
        problems.note("bad category entry: needs id and name", shorten(entry, 80))
        return False
    return good


def _good_reference(entry: Any, images: set[int], categories: set[int], problems: Problems) -> bool:
    if not isinstance(entry, dict):
        problems.note("bad annotation: not an object", shorten(entry, 80))
    elif not isinstance(entry.get("image_id"), int) or entry["image_id"] not in images:
        problems.note("bad annotation: of an image that is not listed", f"annotation {shorten(entry.get('id'))}")
    elif not isinstance(entry.get("category_id"), int) or entry["category_id"] not in categories:
        problems.note("bad annotation: without a known category", f"annotation {shorten(entry.get('id'))}")
    else:
        if not isinstance(entry.get("id"), int):
            entry["id"] = -1  # pycocotools' index needs one
        return True
    return False


def _is_number(value: Any) -> bool:
    # Not math.isfinite, which raises OverflowError for an integer that is too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


def _read(annotations: Path) -> dict[str, Any]:
    try:
        content = read_json(annotations, COCO_LIMITS, nan=True)
    except ValueError as error:
        raise DataError(f"annotations {annotations}: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{annotations} is not in COCO's format: it should hold one JSON object")
    return content
