"""Reader of Pascal VOC's XML files, one per picture: VOC's own folders, and those of labelImg, CVAT and Roboflow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from acs_core.artifacts.json_io import Limits, read_bytes
from acs_core.plain_text import shorten
from training.data.dataset import Dataset, DatasetBuilder, RawObject, is_set, relative_name, to_number
from training.data.pictures import size_of
from training.errors import DataError

LIMITS = Limits(8 << 20, 500_000)
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
SPLITS = {"train": ("train",), "val": ("val", "valid", "test")}  # names of a split's folder or list
FLAGS = ("difficult", "ignore", "uncertain")
ANNOTATIONS, PICTURES, SETS = "Annotations", "JPEGImages", "ImageSets/Main"


def find_voc(folder: Path, split: str) -> tuple[Path, Path | None] | None:
    """Return the folder of the XML files, or the list of a split's pictures in VOC's own layout, and the image folder;
    None if ``folder`` is laid out in no known way.

    Raises:
        DataError: VOC's layout without a list of this split.
    """
    if (folder / ANNOTATIONS).is_dir():
        if not (folder / SETS).is_dir():
            return folder / ANNOTATIONS, None
        lists = [folder / SETS / f"{name}.txt" for name in SPLITS[split]]
        found = next((file for file in lists if file.is_file()), None)
        if found is None:
            raise DataError(f"{folder / SETS} holds no list of the split {split}: {lists[0].name}")
        return found, None
    places = [folder / name for name in SPLITS[split]] + [folder]
    return next(((place, place) for place in places if next(place.glob("*.xml"), None)), None)


def read_voc(source: Path, images: Path | None = None, phrases: Mapping[str, str] | None = None) -> Dataset:
    """Read the XML files in the folder ``source``, or those that a list of VOC's ``ImageSets/Main`` names.

    Corners are those of the pixels' edges; VOC's own files count pixels from 1, which their ``database`` tells.
    ``images`` is the image folder (default: ``JPEGImages`` or ``images`` beside the folder of the XML
    files, else that folder).

    Raises:
        DataError: the folder or list is missing, or holds no XML file.
    """
    if source.is_file():
        try:
            lines = read_bytes(source, LIMITS).decode("utf-8-sig", "replace").splitlines()
        except ValueError as error:
            raise DataError(f"{source}: {error}") from error
        folder = source.parents[2] / ANNOTATIONS
        stems = [name for line in lines if line.split() and (name := relative_name(line.split()[0]))]
        files = [folder / f"{stem}.xml" for stem in stems]
    else:
        folder, files = source, sorted(source.glob("*.xml"))
    if not files:
        raise DataError(f"{source} names no XML file")
    places = [folder.parent / PICTURES, folder.parent / "images", folder]
    pictures = images or next(place for place in places if place.is_dir() or place is folder)
    known = {p.stem: p for p in pictures.iterdir() if p.suffix.lower() in SUFFIXES} if pictures.is_dir() else {}
    made = DatasetBuilder(source, phrases)
    for file in files:
        _read(file, pictures, known, made)
    return made.build()


def _read(file: Path, pictures: Path, known: Mapping[str, Path], made: DatasetBuilder) -> None:
    try:
        root = parse_xml(read_bytes(file, LIMITS))
    except ValueError as error:
        made.problems.note("bad annotation file: it is no XML that can be read", f"{file}: {error}")
        return
    name = relative_name((root.findtext("filename") or "").strip())
    named = pictures / PurePosixPath(name).name if name else None
    picture = named if named is not None and named.is_file() else known.get(file.stem, named)
    if picture is None:
        made.problems.note("bad annotation file: its picture is not there", str(file))
        return
    sides = [to_number(root.findtext(f"size/{side}")) for side in ("width", "height")]
    declared = all(side is not None and side >= 1 for side in sides)
    size = (int(sides[0] or 0), int(sides[1] or 0)) if declared else size_of(picture)
    if size is None:
        made.problems.note("bad annotation file: without a size, and its picture cannot be read", str(file))
        return
    first = 1.0 if (root.findtext("source/database") or "").startswith("The VOC") else 0.0
    if (number := made.take_id(file.stem, str(file))) is not None:
        found = [_object(o, f"object {i} of {file.name}", first) for i, o in enumerate(root.iterfind("object"), 1)]
        made.add_image(number, picture, size, [o for o in found if o.name], declared=declared)


def _object(entry: ElementTree.Element, where: str, first: float) -> RawObject:
    """Return an object; ``first`` is the number of the first pixel of a row."""
    name = (entry.findtext("name") or "").strip()
    unclear = any(is_set(entry.findtext(flag)) for flag in FLAGS)
    texts = [entry.findtext(f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
    x1, y1, x2, y2 = map(to_number, texts)
    if x1 is None or y1 is None or x2 is None or y2 is None:
        return RawObject(name, None, where, unclear, problem="bndbox is not four numbers", found=shorten(texts))
    return RawObject(name, (x1 - first, y1 - first, x2, y2), where, unclear)


def parse_xml(raw: bytes) -> ElementTree.Element:
    """Return the root of an XML text.

    Raises:
        ValueError: it is not XML in UTF-8, or declares a document type or entities, with which a small file can become
            very large.
    """
    if b"\0" in raw:
        raise ValueError("it is in UTF-16, which is not read: save it as UTF-8")
    if b"<!" in raw.replace(b"<!--", b"").replace(b"<![CDATA[", b""):
        raise ValueError("it declares a document type or entities, which are not read")
    try:
        return ElementTree.fromstring(raw)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise ValueError(f"it is not valid XML: {error}") from error
