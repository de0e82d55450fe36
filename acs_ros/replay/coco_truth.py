"""True boxes from a COCO file, with its pictures matched to the frames of a bag.

Pictures are matched by stamp: the field ``stamp`` of an image entry, or the end of its file name,
``SECONDS.NANOSECONDS`` or ``SECONDS_NANOSECONDS`` (``left_1700000000.250000000.png``). ``acs-replay BAG --extract DIR``
writes pictures and a COCO file named so. Pictures without stamps can be matched by number (the last number in the file
name counts frames of the bag from 0) or by order (as many images as frames).
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acs_core.arguments import clean_phrase
from acs_core.artifacts.json_io import COCO, read_json
from acs_core.errors import PhraseError
from acs_core.geometry import Box
from acs_core.plain_text import join_some, shorten
from acs_ros.bags.frames import FrameAt, show_stamp
from acs_ros.bags.truth_pairing import Labels, sorted_labels
from acs_ros.conversions.images import NS
from acs_ros.errors import BagError

MATCHES = ("stamp", "number", "order")
_STAMP = re.compile(r"(?<!\d)(\d{1,10})[._](\d{1,9})$")
_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class LabelledImage:
    """A picture of a COCO file with its labels. ``stamp`` (nanoseconds, precision) and ``size`` (width, height)
    are None where the file states none."""

    file_name: str
    stamp: tuple[int, int] | None
    size: tuple[int, int] | None
    labels: Labels


@dataclass(frozen=True)
class CocoMatch:
    """``truth`` has the labels, and ``sizes`` the labelled (width, height), of each frame's stamp and frame_id.
    ``note`` says what did not match, as a sentence, or is empty."""

    truth: dict[tuple[int, str], Labels]
    sizes: dict[tuple[int, str], tuple[int, int]]
    note: str = ""


def parse_stamp(text: str) -> tuple[int, int] | None:
    """Nanoseconds of a stamp at the end of ``text``, and the nanoseconds of its last digit; None without one.

    Nine digits behind the point are nanoseconds; fewer are a decimal fraction, so "12.5" is 12.500000000.
    """
    found = _STAMP.search(text)
    if found is None:
        return None
    seconds, fraction = found.groups()
    return int(seconds) * NS + int(fraction.ljust(9, "0")), 10 ** (9 - len(fraction))


def read_coco(file: Path) -> tuple[LabelledImage, ...]:
    """The pictures of a COCO instances file, in its order. Crowd regions and empty boxes are left out.

    Raises:
        BagError: the file cannot be read, or is none.
    """
    try:
        content = read_json(file, COCO, nan=True)
        names = {_key(c, "id", where): _name_of(c, where) for where, c in _entries(content, "categories")}
        images = [(_key(image, "id", where), where, image) for where, image in _entries(content, "images")]
        labels: dict[str | int, list[tuple[str, Box]]] = {key: [] for key, *_ in images}
        for where, note in _entries(content, "annotations"):
            image, box, category = _key(note, "image_id", where), _box_of(note, where), _key(note, "category_id", where)
            if category not in names:
                raise ValueError(f'{where}: no category has the "category_id" {shorten(category)}')
            if not note.get("iscrowd") and box is not None and image in labels:
                labels[image].append((names[category], box))
        return tuple(
            LabelledImage(str(_get(i, "file_name", where)), _stamp_of(i, where), _size_of(i, where), tuple(labels[key]))
            for key, where, i in images
        )
    except ValueError as error:
        raise BagError(f"--coco: {file} is not a COCO instances file: {error}") from error


def _entries(content: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects in the list ``name`` of the file, each with its place for messages."""
    if not isinstance(content, dict):
        raise ValueError(f"it must hold one JSON object, not {shorten(content)}")
    found = _get(content, name, "it")
    if not isinstance(found, list):
        raise ValueError(f'"{name}" must be a list, got {shorten(found)}')
    for number, entry in enumerate(found):
        if not isinstance(entry, dict):
            raise ValueError(f'"{name}"[{number}] must be an object, got {shorten(entry)}')
        yield f'"{name}"[{number}]', entry


def _get(entry: dict[str, Any], key: str, where: str) -> Any:
    if key not in entry:
        raise ValueError(f'{where} has no "{key}"')
    return entry[key]


def _key(entry: dict[str, Any], key: str, where: str) -> str | int:
    value = _get(entry, key, where)
    if not isinstance(value, (str, int)):
        raise ValueError(f'{where}: "{key}" must be a number or a text, got {shorten(value)}')
    return value


def _name_of(category: dict[str, Any], where: str) -> str:
    try:
        return clean_phrase(_get(category, "name", where))
    except PhraseError as error:
        raise ValueError(f'{where}: "name": {error}') from error


def _box_of(note: dict[str, Any], where: str) -> Box | None:
    """Box of an annotation; None for one without an area."""
    value = _get(note, "bbox", where)
    if not (isinstance(value, list) and len(value) == 4 and all(isinstance(v, (int, float)) for v in value)):
        raise ValueError(f'{where}: "bbox" must be four numbers, x, y, width and height, got {shorten(value)}')
    try:
        x, y, w, h = map(float, value)
    except OverflowError:
        raise ValueError(f'{where}: "bbox" has a number that is too large: {shorten(value)}') from None
    return Box(x, y, x + w, y + h) if w > 0 and h > 0 and math.isfinite(x + y + w + h) else None


def _stamp_of(image: dict[str, Any], where: str) -> tuple[int, int] | None:
    given = image.get("stamp")
    if isinstance(given, dict):
        if not all(type(given.get(part)) is int for part in ("sec", "nanosec")):
            raise ValueError(f'{where}: "stamp" must have whole numbers as "sec" and "nanosec", got {shorten(given)}')
        return given["sec"] * NS + given["nanosec"], 1
    return parse_stamp(str(given)) if given is not None else parse_stamp(Path(str(image["file_name"])).stem)


def _size_of(image: dict[str, Any], where: str) -> tuple[int, int] | None:
    size = image.get("width"), image.get("height")
    if not all(size):
        return None
    try:
        return int(size[0]), int(size[1])  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f'{where}: "width" and "height" must be numbers, got {shorten(list(size))}') from None


def match_coco(images: Sequence[LabelledImage], frames: Sequence[FrameAt], by: str = "stamp") -> CocoMatch:
    """Assign each frame the labels of its picture. ``by`` is one of MATCHES.

    Raises:
        BagError: nothing matches, or, by order, the numbers differ; says what was compared.
    """
    finders: dict[str, Callable[[], list[FrameAt | None]]] = {
        "stamp": lambda: [_at_stamp(image, ordered, stamps) for image in images],
        "number": lambda: [_at_number(image, frames) for image in images],
        "order": lambda: _in_order(images, frames),
    }
    ordered = sorted(frames, key=lambda f: f.key[0])
    stamps = [f.key[0] for f in ordered]
    pairs = list(zip(images, finders[by](), strict=True))
    lost = [image.file_name for image, frame in pairs if frame is None]
    if len(lost) == len(images):
        raise BagError(_nothing(images, frames, by))
    truth: dict[tuple[int, str], Labels] = {}
    sizes: dict[tuple[int, str], tuple[int, int]] = {}
    differing: dict[tuple[int, str], str] = {}
    for image, frame in pairs:
        if frame is None:
            continue
        if sorted_labels(truth.setdefault(frame.key, image.labels)) != sorted_labels(image.labels):
            differing[frame.key] = image.file_name
        if image.size:
            sizes[frame.key] = image.size
    shown = join_some(lost, _SHOWN)
    notes = (
        [f"{len(lost)} of {len(images)} labelled pictures match none of the {len(frames)} frames: {shown}"]
        if lost
        else []
    )
    if differing:
        shown = join_some(list(differing.values()), _SHOWN)
        notes.append(f"{len(differing)} frames have several labelled pictures that differ, and are left out: {shown}")
    return CocoMatch({k: v for k, v in truth.items() if k not in differing}, sizes, "; ".join(notes))


def _at_stamp(image: LabelledImage, ordered: Sequence[FrameAt], stamps: Sequence[int]) -> FrameAt | None:
    """The only frame within the precision of the written stamp, None where there is none or several."""
    if image.stamp is None:
        return None
    at, unit = image.stamp
    slack = 0 if unit == 1 else unit  # cut or rounded to its last digit
    low, high = bisect.bisect_left(stamps, at - slack), bisect.bisect_right(stamps, at + slack)
    near = sorted(ordered[low:high], key=lambda f: abs(f.key[0] - at))
    if len(near) > 1 and abs(near[0].key[0] - at) == abs(near[1].key[0] - at):
        return None
    return near[0] if near else None


def _at_number(image: LabelledImage, frames: Sequence[FrameAt]) -> FrameAt | None:
    numbers = re.findall(r"\d+", Path(image.file_name).stem)
    wanted = int(numbers[-1]) if numbers else -1
    return next((f for f in frames if f.number == wanted), None)


def _in_order(images: Sequence[LabelledImage], frames: Sequence[FrameAt]) -> list[FrameAt | None]:
    if len(images) != len(frames):
        raise BagError(f"--coco-match order needs as many images as frames: {len(images)} images, {len(frames)} frames")
    return list(frames)


def _nothing(images: Sequence[LabelledImage], frames: Sequence[FrameAt], by: str) -> str:
    if not images or not frames:
        return f"nothing to match: {len(images)} labelled pictures and {len(frames)} frames"
    first = images[0]
    shown = show_stamp(first.stamp[0]) if first.stamp else "no stamp in it"
    begin, end = show_stamp(frames[0].key[0]), show_stamp(frames[-1].key[0])
    return (
        f"none of {len(images)} labelled pictures matches a frame by {by}: the first is {first.file_name} ({shown}), "
        f"the bag has stamps from {begin} to {end}; name the pictures after their stamps "
        '(SECONDS.NANOSECONDS.png), give each image a field "stamp", or use --coco-match number or order'
    )
