"""Reader of Open Images' CSV files of boxes (V4 to V7)."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from acs_core.plain_text import shorten
from training.data.dataset import Dataset, DatasetBuilder, RawObject, to_number
from training.data.pictures import size_of
from training.data.voc import SUFFIXES
from training.errors import DataError

SPLITS = {"train": ("train",), "val": ("validation", "test")}
BOXES, CLASSES = "annotations-bbox.csv", "*class-descriptions*.csv"
CORNERS = ("XMin", "YMin", "XMax", "YMax")
FLAGS = ("IsGroupOf", "IsDepiction", "IsInside")  # "-1" says that it is not known


def find_open_images(folder: Path, split: str) -> tuple[Path, None] | None:
    """Return the CSV file of a split's boxes in ``folder``; None if there is none."""
    for name in SPLITS[split]:
        for file in sorted(folder.glob(f"*{name}-{BOXES}")):
            return file, None
    return None


def read_open_images(file: Path, images: Path | None = None, phrases: Mapping[str, str] | None = None) -> Dataset:
    """Read the boxes of ``file`` about the pictures that are there; boxes are shares of the upright picture.

    The names are in ``*class-descriptions*.csv`` beside the file. ``images`` is the image folder (default: ``train``,
    ``validation`` or ``test`` beside the file, as its name says, else ``images``). Groups, depictions and views from
    inside are unclear, and so is a box of which that is not known. No category is known to be absent.

    Raises:
        DataError: a file is missing or has other columns, or none of the pictures is there.
    """
    names, made = _names(file), DatasetBuilder(file, phrases)
    folder = images or _pictures_of(file)
    pictures = {p.stem: p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES} if folder.is_dir() else {}
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    missing: dict[str, None] = {}
    try:
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as text:
            rows = csv.DictReader(text)
            if lacking := [c for c in ("ImageID", "LabelName", *CORNERS) if c not in (rows.fieldnames or ())]:
                raise DataError(f"{file} is no file of Open Images' boxes: it has no column {lacking[0]}")
            for row in rows:
                name = row["ImageID"] or ""
                found[name].append(row) if name in pictures else missing.setdefault(name)
    except (OSError, csv.Error) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    if not found:
        raise DataError(
            f"none of the {len(missing)} pictures of {file.name} is in {folder}: name their folder with --images"
        )
    for name in missing:
        made.problems.note("picture that is not there", f"{name} in {folder}")
    for label in names.values():
        made.add_category(label)
    for name, rows_of in found.items():
        size = size_of(pictures[name])
        if size is None:
            made.problems.note("picture that cannot be read", str(pictures[name]))
        elif (number := made.take_id(name, name)) is not None:
            objects = [_object(row, names, size, made) for row in rows_of]
            made.add_image(number, pictures[name], size, [o for o in objects if o], absent=(), declared=False)
    return made.build()


def _object(
    row: Mapping[str, str], names: Mapping[str, str], size: tuple[int, int], made: DatasetBuilder
) -> RawObject | None:
    where = f"a box of {row['ImageID']}"
    if (name := names.get(row["LabelName"] or "")) is None:
        made.problems.note("bad annotation: without a known category", f"{where}: {shorten(row['LabelName'])}")
        return None
    unclear = any((row.get(flag) or "0").strip() != "0" for flag in FLAGS)
    values = [to_number(row[corner]) for corner in CORNERS]
    shares = [v for v in values if v is not None and 0 <= v <= 1]
    if len(shares) < 4:
        problem = "the corners are not shares of the picture"
        return RawObject(name, None, where, unclear, problem=problem, found=[row[c] for c in CORNERS])
    (x1, y1, x2, y2), (width, height) = shares, size
    return RawObject(name, (x1 * width, y1 * height, x2 * width, y2 * height), where, unclear)


def _pictures_of(file: Path) -> Path:
    named = [file.parent / name for names in SPLITS.values() for name in names if f"{name}-{BOXES}" in file.name]
    return next((folder for folder in named if folder.is_dir()), file.parent / "images")


def _names(file: Path) -> dict[str, str]:
    """Return the names of the labels ("/m/01yrx": "Cat")."""
    described = sorted(file.parent.glob(CLASSES))
    if not described:
        raise DataError(f"{file.parent} holds no {CLASSES}, which names the labels of {file.name}")
    try:
        with described[0].open(encoding="utf-8-sig", errors="replace", newline="") as text:
            return {row[0]: row[1] for row in csv.reader(text) if len(row) >= 2 and row[0].startswith("/") and row[1]}
    except (OSError, csv.Error) as error:
        raise DataError(f"{described[0]} cannot be read: {error}") from error
