"""True boxes out of a COCO file: whose picture is which frame of the bag?

A stamp says it: the field ``stamp`` of an image entry, or the end of its file name, ``SECONDS.NANOSECONDS`` or
``SECONDS_NANOSECONDS`` (``left_1700000000.250000000.png``); ``acs-replay BAG --extract DIR`` writes pictures and a COCO
file that are named so. Labels without stamps can be matched by number (the last number in the file name counts frames
of the bag from 0) or by order (as many images as frames).
"""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acs_core.errors import PhraseError
from acs_core.geometry import Box
from acs_core.phrase import clean_phrase
from acs_ros.bags import BagError
from acs_ros.replay.contents import NS, FrameAt, Labels, show_stamp

MATCHES = ("stamp", "number", "order")
_STAMP = re.compile(r"(?<!\d)(\d{1,10})[._](\d{1,9})$")
_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class CocoImage:
    """A picture of a COCO file with its labels; ``stamp`` None where the file states none. ``size`` is (width, height),
    None where it is not stated."""

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


def read_coco(file: Path) -> tuple[CocoImage, ...]:
    """The pictures of a COCO instances file, in its order. Crowd regions and empty boxes are left out.

    Raises:
        BagError: the file cannot be read, or is none.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        names = {c["id"]: clean_phrase(c["name"]) for c in content["categories"]}
        labels: dict[Any, list[tuple[str, Box]]] = {image["id"]: [] for image in content["images"]}
        for note in content["annotations"]:
            x, y, w, h = (float(v) for v in note["bbox"])
            if not note.get("iscrowd") and w > 0 and h > 0 and note["image_id"] in labels:
                labels[note["image_id"]].append((names[note["category_id"]], Box(x, y, x + w, y + h)))
        return tuple(
            CocoImage(str(i["file_name"]), _stamp_of(i), _size_of(i), tuple(labels[i["id"]])) for i in content["images"]
        )
    except (OSError, ValueError, KeyError, TypeError, PhraseError) as error:
        raise BagError(f"{file} is not a COCO instances file: {type(error).__name__}: {error}") from error


def _stamp_of(image: dict[str, Any]) -> tuple[int, int] | None:
    given = image.get("stamp")
    if isinstance(given, dict):
        return int(given["sec"]) * NS + int(given["nanosec"]), 1
    return parse_stamp(str(given)) if given is not None else parse_stamp(Path(str(image["file_name"])).stem)


def _size_of(image: dict[str, Any]) -> tuple[int, int] | None:
    return (int(image["width"]), int(image["height"])) if image.get("width") and image.get("height") else None


def match_coco(images: Sequence[CocoImage], frames: Sequence[FrameAt], by: str = "stamp") -> CocoMatch:
    """Give each frame the labels of its picture.

    Raises:
        BagError: nothing matches, or, by order, the numbers differ; says what was compared.
    """
    finders: dict[str, Callable[[], list[FrameAt | None]]] = {
        "stamp": lambda: [_at_stamp(image, ordered, stamps) for image in images],
        "number": lambda: [_at_number(image, frames) for image in images],
        "order": lambda: _in_order(images, frames),
    }
    ordered = sorted(frames, key=lambda f: f.stamp_ns)
    stamps = [f.stamp_ns for f in ordered]
    pairs = list(zip(images, finders[by](), strict=True))
    lost = [image.file_name for image, frame in pairs if frame is None]
    if len(lost) == len(images):
        raise BagError(_nothing(images, frames, by))
    truth: dict[tuple[int, str], Labels] = {}
    sizes: dict[tuple[int, str], tuple[int, int]] = {}
    for image, frame in pairs:
        if frame is not None:
            truth[frame.key] = truth.get(frame.key, ()) + image.labels
            if image.size:
                sizes[frame.key] = image.size
    more = ", ..." if len(lost) > _SHOWN else ""
    note = f"{len(lost)} of {len(images)} labelled pictures match no frame: {', '.join(lost[:_SHOWN])}{more}"
    return CocoMatch(truth, sizes, note if lost else "")


def _at_stamp(image: CocoImage, ordered: Sequence[FrameAt], stamps: Sequence[int]) -> FrameAt | None:
    """The only frame that the stamp, as exact as it is written, can mean."""
    if image.stamp is None:
        return None
    at, unit = image.stamp
    slack = 0 if unit == 1 else unit  # cut or rounded to its last digit
    low, high = bisect.bisect_left(stamps, at - slack), bisect.bisect_right(stamps, at + slack)
    near = sorted(ordered[low:high], key=lambda f: abs(f.stamp_ns - at))
    if len(near) > 1 and abs(near[0].stamp_ns - at) == abs(near[1].stamp_ns - at):
        return None
    return near[0] if near else None


def _at_number(image: CocoImage, frames: Sequence[FrameAt]) -> FrameAt | None:
    numbers = re.findall(r"\d+", Path(image.file_name).stem)
    wanted = int(numbers[-1]) if numbers else -1
    return next((f for f in frames if f.number == wanted), None)


def _in_order(images: Sequence[CocoImage], frames: Sequence[FrameAt]) -> list[FrameAt | None]:
    if len(images) != len(frames):
        raise BagError(f"--coco-match order needs as many images as frames: {len(images)} images, {len(frames)} frames")
    return list(frames)


def _nothing(images: Sequence[CocoImage], frames: Sequence[FrameAt], by: str) -> str:
    if not images or not frames:
        return f"nothing to match: {len(images)} labelled pictures and {len(frames)} frames"
    first = images[0]
    shown = show_stamp(first.stamp[0]) if first.stamp else "no stamp in it"
    return (
        f"none of {len(images)} labelled pictures matches a frame by {by}: the first is {first.file_name} ({shown}), "
        f"the bag has stamps from {frames[0].stamp} to {frames[-1].stamp}; name the pictures after their stamps "
        '(SECONDS.NANOSECONDS.png), give each image a field "stamp", or use --coco-match number or order'
    )
