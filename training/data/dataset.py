"""Annotated images as all readers return them, whatever the format: images, their objects, and the unusable entries.

A reader of a format gives :class:`DatasetBuilder` the images and :class:`RawObject` of its files; the builder checks
the boxes, asks for categories by phrases, and counts what it leaves out.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from acs_core.geometry import Box
from acs_core.pixels import MOST_BITS
from acs_core.plain_text import shorten

SMALL = (0.001, 0.01)  # share of the image's area, paper section 5.1
MAX_NUMBER = 1e12  # of sizes and coordinates
MAX_PATH = 1000  # characters of an image's file name
MAX_ID = 2**53  # collections store image ids as float64
ID_DIGITS = 13  # hexadecimal digits of an id that is made from a text: below MAX_ID
OVERHANG = 2.0  # pixels by which annotated boxes commonly exceed the image
NAMED = 20  # names that a message lists, at most
_UNSET = ("", "0", "0.0", "false", "no", "none", "null", "unspecified")


@dataclass(frozen=True)
class DatasetObject:
    """One annotated object.

    Attributes:
        name: its category.
        box: box in pixels of the annotation, clipped to the image.
        area: area in square pixels: COCO's ``area``, else that of the box.
        unclear: True if it is undefined whether it counts as one object: crowds and groups, ignored, difficult and
            uncertain ones, depictions and reflections.
        colour: colour of the object, "" if it is unknown: ``attributes.colour`` of its annotation, an extension of
            COCO.
    """

    name: str
    box: Box
    area: float
    unclear: bool = False
    colour: str = ""


@dataclass(frozen=True)
class DatasetImage:
    """One annotated image.

    Attributes:
        id: image id, 0 to 2^53.
        file: path of the image.
        size: (width, height) in pixels that the boxes refer to.
        objects: valid annotations.
        doubtful: categories whose true boxes are not all known: with an invalid annotation, or not exhaustively
            annotated (LVIS).
        bits: number of bits that the values of a 16-bit image use: the field "bits" of its entry, an extension of COCO.
        absent: categories that are known to be absent; None if all categories without an object are.
        declared: whether ``size`` is from the annotations; else it is that of the upright picture.
    """

    id: int
    file: Path
    size: tuple[int, int]
    objects: tuple[DatasetObject, ...]
    doubtful: frozenset[str] = frozenset()
    bits: int = MOST_BITS
    absent: frozenset[str] | None = None
    declared: bool = True


@dataclass
class Problems:
    """Unusable entries by kind, each with its count and its first example."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)

    def note(self, kind: str, example: str, name: str = "") -> None:
        """Count one more problem of ``kind``. ``name`` is listed, where each is to be named."""
        self.counts[kind] += 1
        self.examples.setdefault(kind, example)
        if name:
            self.names.setdefault(kind, []).append(name)

    def lines(self) -> list[str]:
        """Return one line per kind, the most frequent first."""
        lines = []
        for kind, count in self.counts.most_common():
            names = self.names.get(kind, [])
            more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
            listed = f"; all: {', '.join(names[:NAMED])}{more}" if len(names) > 1 else ""
            lines.append(f"{count} x {kind} (the first: {self.examples[kind]}{listed})")
        return lines

    def dominant(self) -> str:
        """Return the most frequent problem as the end of a message, "" without any."""
        lines = self.lines()
        return f"; left out {lines[0]}" if lines else ""


@dataclass(frozen=True)
class Dataset:
    """Content of annotations: category ``names``, ``images``, and ``problems``; ``file`` is the file or folder."""

    file: Path
    names: tuple[str, ...]
    images: tuple[DatasetImage, ...]
    problems: Problems


@dataclass(frozen=True)
class RawObject:
    """An annotation as a reader found it.

    Attributes:
        name: category as the file writes it.
        corners: (x1, y1, x2, y2) in pixels; None if they cannot be used, for the reason ``problem``.
        where: place of the annotation, for messages.
        unclear: as in :class:`DatasetObject`.
        area: as in :class:`DatasetObject`; None for that of the box.
        problem: why there are no corners.
        found: what stands in their place, for messages.
        colour: as in :class:`DatasetObject`.
    """

    name: str
    corners: tuple[float, float, float, float] | None
    where: str
    unclear: bool = False
    area: float | None = None
    problem: str = ""
    found: Any = None
    colour: str = ""


class DatasetBuilder:
    """Builder of a :class:`Dataset` from the entries of a file or folder.

    Args:
        file: the annotation file or folder.
        phrases: phrases by category, where a category is not to be asked for by its own name.
    """

    def __init__(self, file: Path, phrases: Mapping[str, str] | None = None) -> None:
        self.problems = Problems()
        self._file, self._phrases = file, dict(phrases or {})
        self._names: dict[str, None] = {}
        self._seen: set[str] = set()
        self._images: list[DatasetImage] = []
        self._ids: dict[int, str] = {}

    def name_of(self, category: str) -> str:
        """Return the phrase that ``category`` is asked for by: that of ``phrases``, else its name with spaces for
        underscores ("bow_(weapon)" becomes "bow (weapon)")."""
        plain = phrase_of(category)
        self._seen |= {category, plain}
        return self._phrases.get(category) or self._phrases.get(plain) or plain

    def add_category(self, category: str) -> None:
        """Add a category of the data set."""
        self._names.setdefault(self.name_of(category))

    def take_id(self, value: Any, what: str) -> int | None:
        """Return the number of the image id ``value``; None, with a problem noted, if it is no id or stands twice."""
        number = image_number(value)
        if number is None:
            self.problems.note("bad image entry: its id is neither a whole number nor a text", what)
            return None
        if number in self._ids:
            self.problems.note("bad image entry: its id stands twice", f"{shorten(value)}: {self._ids[number]}, {what}")
            return None
        self._ids[number] = what
        return number

    def add_image(
        self,
        number: int,
        file: Path,
        size: tuple[int, int],
        found: Iterable[RawObject],
        *,
        doubtful: Iterable[str] = (),
        absent: Iterable[str] | None = None,
        bits: int = MOST_BITS,
        declared: bool = True,
    ) -> None:
        """Add an image with the number of :meth:`take_id`. Invalid boxes are left out and make their category doubtful;
        ``doubtful`` and ``absent`` are categories as the file writes them."""
        objects, doubts = [], {self.name_of(name) for name in doubtful}
        for raw in found:
            self.add_category(raw.name)
            box = self._box(raw, size)
            if box is None:
                doubts.add(self.name_of(raw.name))
                continue
            area = box.area if raw.area is None else raw.area
            objects.append(DatasetObject(self.name_of(raw.name), box, area, raw.unclear, raw.colour))
        gone = None if absent is None else frozenset(self.name_of(name) for name in absent)
        self._images.append(DatasetImage(number, file, size, tuple(objects), frozenset(doubts), bits, gone, declared))

    def build(self) -> Dataset:
        """Return the data set. Phrases of categories that it does not have are noted as problems."""
        for category in self._phrases.keys() - self._seen:
            self.problems.note("phrase of a category that the data set does not have", shorten(category))
        return Dataset(self._file, tuple(self._names), tuple(self._images), self.problems)

    def _box(self, raw: RawObject, size: tuple[int, int]) -> Box | None:
        if raw.corners is None:
            self.problems.note(f"bad annotation: {raw.problem}", f"{raw.where}: {shorten(raw.found)}")
            return None
        x1, y1, x2, y2 = raw.corners
        told = f"{raw.where}: {[round(v, 2) for v in raw.corners]} in {size[0]} x {size[1]}"
        if x2 <= x1 or y2 <= y1:
            self.problems.note("bad annotation: box without area", told)
            return None
        box = Box(x1, y1, x2, y2).clip(*size)
        if box is None:
            self.problems.note("bad annotation: box outside the image", told)
        elif min(x1, y1) < -OVERHANG or x2 > size[0] + OVERHANG or y2 > size[1] + OVERHANG:
            self.problems.note("bad annotation: box partly outside the image", told)
            return None
        return box


def phrase_of(category: str) -> str:
    """Return the words of a category's name: "bow_(weapon)" becomes "bow (weapon)"."""
    return " ".join(category.replace("_", " ").split()) or category


def image_number(value: Any) -> int | None:
    """Return an image id as a number from 0 to 2^53, which collections can store; None if it is no id.

    Whole numbers and texts of up to 15 digits are themselves, also those with leading zeros; other texts get 52 bits of
    their SHA-256, the same in every file.
    """
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        return None
    if isinstance(value, int) and 0 <= value <= MAX_ID:
        return value
    text = str(value) if not isinstance(value, int) or abs(value) < 10**100 else None
    if text is None:
        return None
    if text.isascii() and text.isdecimal() and len(text) <= 15:
        return int(text)
    return int(hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:ID_DIGITS], 16)


def is_set(value: Any) -> bool:
    """Whether a flag of an annotation is set: a number but 0, true, or a text but "0", "no" and the like."""
    return value.strip().lower() not in _UNSET if isinstance(value, str) else bool(value)


def is_number(value: Any) -> bool:
    """Whether ``value`` is a number of sensible size."""
    # Not math.isfinite, which raises OverflowError for an integer that is too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


def to_number(text: Any) -> float | None:
    """Return the number that a text holds; None if it is none of sensible size."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if is_number(value) else None


def relative_name(name: Any) -> str | None:
    """Return a file name with "/" between its parts; None if it is no path inside the image folder.

    A Windows path ("images\\\\a.jpg", "C:\\\\data\\\\images\\\\a.jpg") loses its drive.
    """
    if not isinstance(name, str) or not 0 < len(name) <= MAX_PATH or not name.isprintable():
        return None
    if "\\" in name:
        windows = PureWindowsPath(name)
        name = "/".join(windows.parts[1:] if windows.anchor else windows.parts)
    path = PurePosixPath(name)
    return None if path.is_absolute() or ".." in path.parts or not path.parts else name


def file_below(folder: Path, name: str) -> Path:
    """Return the path of the file ``name`` below ``folder``.

    Objects365 writes ``images/v1/patch8/x.jpg`` and unpacks to ``patch8/x.jpg``: leading folders that do not exist are
    dropped. If no file is found, the full name is kept for the error message.
    """
    parts = PurePosixPath(name).parts
    if len(parts) > 1:
        for k in range(len(parts)):
            if folder.joinpath(*parts[k:]).exists():
                return folder.joinpath(*parts[k:])
    return folder / name
