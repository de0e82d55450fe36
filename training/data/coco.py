"""Reader of COCO's JSON and of what is derived from it: Objects365 v1 and v2, LVIS, and Roboflow's
``_annotations.coco.json``."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pycocotools.coco import COCO

from acs_core.artifacts.json_io import COCO as COCO_LIMITS
from acs_core.artifacts.json_io import read_json
from acs_core.pixels import LEAST_BITS, MOST_BITS
from acs_core.plain_text import shorten
from training.data.dataset import (
    Dataset,
    DatasetBuilder,
    Problems,
    RawObject,
    file_below,
    image_number,
    is_number,
    is_set,
    relative_name,
)
from training.data.pictures import size_of
from training.errors import DataError

ROBOFLOW = "_annotations.coco.json"
# Per split: annotations and images, relative to the folder of the data set; "" for the folder itself.
LAYOUTS: dict[str, tuple[tuple[str, str], ...]] = {
    "train": (
        ("annotations/instances_train2017.json", "train2017"),
        ("train/instances.json", "train/images"),
        ("zhiyuan_objv2_train.json", "train"),
        ("annotations/zhiyuan_objv2_train.json", "train"),
        ("objects365_train.json", "train"),
        ("annotations/objects365_train.json", "train"),
        ("lvis_v1_train.json", ""),
        ("annotations/lvis_v1_train.json", ""),
        (f"train/{ROBOFLOW}", "train"),
    ),
    "val": (
        ("annotations/instances_val2017.json", "val2017"),
        ("val/instances.json", "val/images"),
        ("zhiyuan_objv2_val.json", "val"),
        ("annotations/zhiyuan_objv2_val.json", "val"),
        ("objects365_val.json", "val"),
        ("annotations/objects365_val.json", "val"),
        ("lvis_v1_val.json", ""),
        ("annotations/lvis_v1_val.json", ""),
        (f"valid/{ROBOFLOW}", "valid"),
        (f"test/{ROBOFLOW}", "test"),
    ),
}
UNCLEAR = (
    "iscrowd",
    "isfake",
    "isreflected",
    "ignore",
    "difficult",
    "uncertain",
    "isGroupOf",
    "isgroupof",
    "isDepiction",
)
SPLIT_OF_ALL = ("instances.json", ROBOFLOW)  # files of a folder that is one split


def find_coco(folder: Path, split: str) -> tuple[Path, Path] | None:
    """Return the annotations and the image folder of a split in ``folder``; None if it is laid out in no known way."""
    for file, images in LAYOUTS[split]:
        if (folder / file).is_file():
            return folder / file, folder / images
    for name in SPLIT_OF_ALL:
        if (folder / name).is_file():
            return folder / name, _pictures_of(folder / name)
    return None


def read_coco(annotations: Path, images: Path | None = None, phrases: Mapping[str, str] | None = None) -> Dataset:
    """Read ``annotations``. Invalid entries are left out and counted in ``problems``.

    ``images`` is the image folder (default: ``images`` beside the annotations, else their own folder).

    Raises:
        DataError: the file is missing, not JSON, or holds no list of images, annotations or categories.
    """
    content = _read(annotations)
    folder, made = images or _pictures_of(annotations), DatasetBuilder(annotations, phrases)
    problems = made.problems
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(f'{annotations} is not in COCO\'s format: it should hold a list "{key}"')
    names = _names(content["categories"], problems)
    entries, left = _images(content["images"], made)
    content["images"] = [*entries.values()]
    content["categories"] = [{"id": key, "name": name} for key, name in names.items()]
    content["annotations"] = [a for a in content["annotations"] if _good_reference(a, entries, left, names, problems)]
    index = COCO()
    index.dataset = content
    with redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        index.createIndex()
    for category in sorted(names, key=lambda k: (isinstance(k, str), k)):
        made.add_category(names[category])
    federated = any("neg_category_ids" in entry for entry in entries.values())
    for number, entry in entries.items():
        file = file_below(folder, _file_name(entry) or "")
        size, declared = _size(entry), True
        if size is None:
            size, declared = size_of(file), False
        if size is None:
            problems.note("bad image entry: without width and height, and its picture cannot be read", str(file))
            continue
        found = [_object(a, names[a["category_id"]], number, problems) for a in index.imgToAnns.get(number, [])]
        made.add_image(
            number,
            file,
            size,
            found,
            doubtful=_listed(entry, "not_exhaustive_category_ids", names),
            absent=_listed(entry, "neg_category_ids", names) if federated else None,
            bits=int(entry.get("bits", MOST_BITS)),
            declared=declared,
        )
    return made.build()


def _pictures_of(annotations: Path) -> Path:
    folder = annotations.parent / "images"
    return annotations.parent if annotations.name == ROBOFLOW or not folder.is_dir() else folder


def _object(entry: dict[str, Any], name: str, image: int, problems: Problems) -> RawObject:
    where = f"annotation {shorten(entry.get('id'))} of image {image}"
    unclear = any(is_set(entry.get(key)) for key in UNCLEAR)
    area = float(entry["area"]) if is_number(entry.get("area")) else None
    colour = _colour(entry.get("attributes"), where, problems)
    bbox = entry.get("bbox")
    if bbox is None and (corners := _around(entry.get("segmentation"))):
        return RawObject(name, corners, where, unclear, area, colour=colour)
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(is_number(v) for v in bbox):
        return RawObject(name, None, where, unclear, area, "bbox is not four numbers", bbox)
    x, y, w, h = (float(v) for v in bbox)
    return RawObject(name, (x, y, x + w, y + h), where, unclear, area, colour=colour)


def _colour(attributes: Any, where: str, problems: Problems) -> str:
    colour = attributes.get("colour", "") if isinstance(attributes, dict) else ""
    if not isinstance(colour, str) or not re.fullmatch("[a-z]{0,20}", colour):
        problems.note("colour left out: not a word of up to 20 small letters", f"{where}: {shorten(colour)}")
        return ""
    return colour


def _around(polygons: Any) -> tuple[float, float, float, float] | None:
    """Return the corners of the box around a list of polygons [x1, y1, x2, y2, ...]; None if it is no such list."""
    if not isinstance(polygons, list) or not polygons:
        return None
    polygons = polygons if isinstance(polygons[0], list) else [polygons]
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2 or not all(map(is_number, polygon)):
            return None
    x, y = ([float(v) for p in polygons for v in p[start::2]] for start in (0, 1))
    return min(x), min(y), max(x), max(y)


def _names(entries: list[Any], problems: Problems) -> dict[int | str, str]:
    """Return the names of the categories by key. Roboflow's category that only stands above the others is left out."""
    above = {e.get("supercategory") for e in entries if isinstance(e, dict) and isinstance(e.get("supercategory"), str)}
    names: dict[int | str, str] = {}
    for entry in entries:
        key = _category_key(entry.get("id")) if isinstance(entry, dict) else None
        if key is None or not isinstance(entry.get("name"), str) or not entry["name"].strip():
            problems.note("bad category entry: needs id and name", shorten(entry, 80))
        elif not (entry.get("supercategory") == "none" and entry["name"] in above):
            names[key] = entry["name"]
    return names


def _images(entries: list[Any], made: DatasetBuilder) -> tuple[dict[int, dict[str, Any]], set[int]]:
    """Return the usable image entries by the number of their id, and the numbers of the others."""
    found: dict[int, dict[str, Any]] = {}
    left: set[int] = set()
    for entry in entries:
        problem = _problem(entry)
        if problem:
            made.problems.note(f"bad image entry: {problem}", shorten(entry, 80))
            number = image_number(entry.get("id")) if isinstance(entry, dict) else None
            left |= set() if number is None else {number}
        elif (number := made.take_id(entry["id"], str(_file_name(entry)))) is not None:
            found[number] = {**entry, "id": number}
    return found, left - found.keys()


def _problem(entry: Any) -> str:
    """Return what is wrong with an image entry; "" if it can be used."""
    if not isinstance(entry, dict) or "id" not in entry or _file_name(entry) is None:
        return "needs an id, and a file_name inside the folder or a coco_url"
    bits = entry.get("bits", MOST_BITS)
    if not isinstance(bits, int) or not LEAST_BITS <= bits <= MOST_BITS:
        return f"bits is no whole number from {LEAST_BITS} to {MOST_BITS}"
    if any(entry.get(side) is not None for side in ("width", "height")) and _size(entry) is None:
        return "width and height are not numbers of pixels"
    return ""


def _size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = (entry[side] if is_number(entry.get(side)) else 0 for side in ("width", "height"))
    return (int(width), int(height)) if width >= 1 and height >= 1 else None


def _file_name(entry: Mapping[str, Any]) -> str | None:
    """Return the image's path inside the image folder; that of ``coco_url`` ends with "train2017/000000000009.jpg"."""
    if entry.get("file_name") is None and isinstance(entry.get("coco_url"), str):
        try:
            parts = urlsplit(entry["coco_url"]).path.split("/")[-2:]
        except ValueError:
            return None
        return relative_name("/".join(part for part in parts if part))
    return relative_name(entry.get("file_name"))


def _category_key(value: Any) -> int | str | None:
    """Return the id of a category; a text of digits is the same as its number."""
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        return None
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 16 else value


def _listed(entry: Mapping[str, Any], key: str, names: Mapping[int | str, str]) -> list[str]:
    values = entry.get(key)
    keys = map(_category_key, values) if isinstance(values, list) else ()
    return [names[k] for k in keys if k is not None and k in names]


def _good_reference(
    entry: Any, images: Mapping[int, Any], left: set[int], names: Mapping[int | str, str], problems: Problems
) -> bool:
    """Whether an annotation is one of a known image and category, whose numbers it then names. Those of the images
    ``left`` out are no further problem."""
    if not isinstance(entry, dict):
        problems.note("bad annotation: not an object", shorten(entry, 80))
        return False
    image, category = image_number(entry.get("image_id")), _category_key(entry.get("category_id"))
    if image in left:
        return False
    if image is None or image not in images:
        problems.note("bad annotation: of an image that is not listed", f"annotation {shorten(entry.get('id'))}")
        return False
    if category is None or category not in names:
        problems.note("bad annotation: without a known category", f"annotation {shorten(entry.get('id'))}")
        return False
    entry |= {"image_id": image, "category_id": category}
    if not isinstance(entry.get("id"), int | str):
        entry["id"] = -1  # pycocotools' index needs one
    return True


def _read(annotations: Path) -> dict[str, Any]:
    try:
        content = read_json(annotations, COCO_LIMITS, nan=True)
    except ValueError as error:
        raise DataError(f"annotations {annotations}: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{annotations} is not in COCO's format: it should hold one JSON object")
    return content
