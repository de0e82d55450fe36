"""``--extract``: the frames of a bag as pictures, with a COCO file to label them in."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import PIL.Image
from rich.console import Console
from rich.text import Text

from acs_core.errors import ImageError
from acs_core.image import MAX_PIXELS
from acs_ros.bags import BagError
from acs_ros.replay.contents import FrameAt
from acs_ros.replay.material import look_at, topics_of
from acs_ros.replay.progress import steps
from acs_ros.replay.replies import picture, recorded
from acs_ros.replay.storage import Bag


def extract(bag: Bag, options: argparse.Namespace, console: Console) -> int:
    """Write ``images/STAMP.png`` for every frame and ``instances.json`` that lists them; the exit code.

    An ``instances.json`` that is there already may have labels in it, and is not touched.

    Raises:
        BagError: there are no frames, or the folder is in use.
        OSError: a file cannot be written.
    """
    folder: Path = options.extract
    if (folder / "instances.json").exists():
        raise BagError(f"{folder / 'instances.json'} exists already: it may have labels in it; name another folder")
    contents, topics = look_at(bag, options), topics_of(bag, options)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    bad = 0
    with steps("writing frames", len(contents.frames)) as advance:
        for frame, data in recorded(bag, topics, contents.frames):
            try:
                image = picture(data, topics, MAX_PIXELS)
            except ImageError:
                bad += 1
                continue
            name = _name(frame, entries)
            PIL.Image.fromarray(image).save(folder / "images" / name)
            height, width = image.shape[:2]
            entries.append(
                {"id": len(entries) + 1, "file_name": name, "width": width, "height": height, "stamp": frame.stamp}
            )
            advance()
    content = {"images": entries, "categories": [], "annotations": []}
    (folder / "instances.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    notes = [*bag.notes, *([f"{bad} frames cannot be decoded"] if bad else [])]
    for note in notes:
        console.print(Text(f"note: {note}", "yellow"), soft_wrap=True)
    console.print(Text(f"{len(entries)} frames in {folder / 'images'}; label them in {folder / 'instances.json'}"))
    console.print(Text(f"(the category is the phrase), then: acs-replay {bag.path} --coco {folder / 'instances.json'}"))
    return 0


def _name(frame: FrameAt, entries: list[dict[str, Any]]) -> str:
    name = f"{frame.stamp}.png"
    return name if all(e["file_name"] != name for e in entries[-1:]) else f"{frame.number:06d}_{name}"
