"""The pictures that an embedded model learns from: rendered once, as a COCO data set, and read again and again."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

import cv2
import numpy as np

from acs_core.geometry import Box
from training.errors import DataError
from training.scene import WORLD_VERSION, SceneObject, WorldConfig
from training.synth import write_coco
from training.tiny.data import Pictures


@dataclass(frozen=True)
class Shelf:
    """Pictures of one ``size`` (width, height): their ``files``, and what each shows."""

    size: tuple[int, int]
    files: tuple[Path, ...]
    objects: tuple[tuple[SceneObject, ...], ...]

    def read(self, index: Sequence[int]) -> Pictures:
        """The pictures with these numbers on the shelf.

        Raises:
            DataError: a file is missing or no picture.
        """
        pixels = []
        for i in index:
            read = cv2.imread(str(self.files[i]), cv2.IMREAD_COLOR)
            if read is None:
                raise DataError(f"{self.files[i]} is missing or no picture: delete its folder, it is rendered again")
            pixels.append(cv2.cvtColor(read, cv2.COLOR_BGR2RGB))
        return Pictures(np.stack(pixels), tuple(self.objects[i] for i in index))


def stock(
    folder: Path,
    stream: int,
    count: int,
    objects: tuple[int, int],
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    waiting: Callable[[str], None] = lambda why: None,
) -> tuple[Shelf, ...]:
    """``count`` pictures of the training world with (fewest, most) ``objects``, one shelf a size, largest first;
    rendered into ``folder`` unless they are there, or after ``waiting`` for another run that does it. Runs may share a
    folder, at the same time too: what is in it depends on the arguments alone.

    Raises:
        DataError: ``folder`` holds a damaged data set.
    """
    place = folder / f"world{WORLD_VERSION}-{stream}-{objects[0]}-{objects[1]}-objects-{count}"
    file = place / "instances.json"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{place.name}.lock").open("w") as lock:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            waiting(f"another run renders {place}: waiting for it")
            flock(lock, LOCK_EX)
        if not file.exists():
            config = WorldConfig(min_objects=objects[0], max_objects=objects[1])
            write_coco(place, "train", count, config, workers, progress, stream)
    try:
        content = json.loads(file.read_text())
        names = {c["id"]: str(c["name"]) for c in content["categories"]}
        shown: dict[int, list[SceneObject]] = defaultdict(list)
        for a in content["annotations"]:
            x, y, w, h = a["bbox"]
            shown[a["image_id"]].append(SceneObject(names[a["category_id"]], Box(x, y, x + w, y + h), a["area"]))
        by_size = defaultdict(list)
        for image in content["images"]:
            by_size[image["width"], image["height"]].append(image)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file} is damaged ({type(error).__name__} {error}): delete its folder") from error
    shelves = [
        Shelf(
            size,
            tuple(place / "images" / image["file_name"] for image in images),
            tuple(tuple(shown[image["id"]]) for image in images),
        )
        for size, images in by_size.items()
    ]
    return tuple(sorted(shelves, key=lambda s: (-len(s.files), s.size)))
