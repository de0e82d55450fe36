"""The pictures that an embedded model learns from: rendered once, as a COCO data set, and read again and again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

import numpy as np

from training.coco import CocoImage, read_coco, read_picture
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
        try:
            pixels = [read_picture(self.files[i]) for i in index]
        except DataError as error:
            raise DataError(f"{error}: delete its folder, it is rendered again") from error
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
    by_size: dict[tuple[int, int], list[CocoImage]] = defaultdict(list)
    data = read_coco(file)
    if data.problems.counts:
        raise DataError(f"{file} is damaged ({data.problems.lines()[0]}): delete its folder")
    for image in data.images:
        by_size[image.size].append(image)
    shelves = [
        Shelf(
            size,
            tuple(image.file for image in images),
            tuple(tuple(SceneObject(o.name, o.box, o.area) for o in image.objects) for image in images),
        )
        for size, images in by_size.items()
    ]
    return tuple(sorted(shelves, key=lambda s: (-len(s.files), s.size)))
