"""Rendered training images: rendered on demand, or once as a COCO data set that is read again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acs_core.output_folder import OutputFolder
from training.data.coco import read_coco
from training.data.dataset import DatasetImage
from training.data.pictures import read_picture
from training.errors import DataError
from training.world.photographs import fingerprint
from training.world.scene import WORLD_VERSION, SceneObject, WorldConfig
from training.world.synth import write_coco
from training.world.world import World


@dataclass(frozen=True)
class Pictures:
    """Images of one size: ``pixels`` (B, H, W, 3) uint8, and the ``objects`` of each."""

    pixels: np.ndarray
    objects: tuple[tuple[SceneObject, ...], ...]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return int(self.pixels.shape[2]), int(self.pixels.shape[1])


def render(
    world: World,
    stream: int,
    numbers: Iterable[int],
    size: tuple[int, int],
    objects: tuple[int, int] | None = None,
) -> Pictures:
    """Render the images ``numbers`` of one of the streams of ``world`` (:mod:`training.world.scene`).

    Args:
        world: the world.
        stream: the stream.
        numbers: numbers of the images.
        size: (width, height) in pixels.
        objects: (minimum, maximum) number of objects.
    """
    scenes = [world.scene([stream, n], size=size, objects=objects) for n in numbers]
    return Pictures(np.stack([s.image for s in scenes]), tuple(s.objects for s in scenes))


@dataclass(frozen=True)
class ImagePool:
    """Image files of one ``size`` (width, height), and the ``objects`` of each."""

    size: tuple[int, int]
    files: tuple[Path, ...]
    objects: tuple[tuple[SceneObject, ...], ...]

    def read(self, index: Sequence[int]) -> Pictures:
        """Read the images with these indices.

        Raises:
            DataError: a file is missing or not an image.
        """
        try:
            pixels = [read_picture(self.files[i]) for i in index]
        except DataError as error:
            raise DataError(f"{error}: delete its folder, it is rendered again") from error
        return Pictures(np.stack(pixels), tuple(self.objects[i] for i in index))


def image_pools(
    folder: Path,
    stream: int,
    count: int,
    objects: tuple[int, int],
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    waiting: Callable[[str], None] = lambda why: None,
    *,
    lookalikes: float = WorldConfig.lookalike_share,
    colours: float = WorldConfig.colour_share,
    backgrounds: Path | None = None,
) -> tuple[ImagePool, ...]:
    """Return ``count`` images of the training world as pools, one for each size, the largest first.

    The images are rendered into ``folder`` unless they exist. Their content depends on the arguments alone, so that
    several runs may share the folder, also at the same time: one of them renders, the others wait.

    Args:
        folder: folder of the data set.
        stream: stream of the world.
        count: number of images.
        objects: (minimum, maximum) number of objects per image.
        workers: number of rendering processes.
        progress: called with (done, total) while this run renders.
        waiting: called with a message while another run renders.
        lookalikes: share of the images in which some objects are look-alikes of another.
        colours: share of the images in which objects of one category differ in colour.
        backgrounds: folder of photographs that are further backgrounds.

    Raises:
        DataError: ``folder`` holds a damaged data set.
        OutputError: ``folder`` holds files that acs did not write.
    """
    paint = f"-{colours:g}-coloured" if colours else ""
    alike = "" if lookalikes == WorldConfig.lookalike_share else f"-{lookalikes:g}-alike"
    photos = f"-{fingerprint(backgrounds)}-photographs" if backgrounds else ""
    place = folder / f"world{WORLD_VERSION}-{stream}-{objects[0]}-{objects[1]}-objects{alike}{paint}{photos}-{count}"
    file = place / "instances.json"
    with OutputFolder(folder, "acs-train tiny --pictures", wait=lambda: waiting(f"another run renders into {folder}")):
        if not file.exists():
            config = WorldConfig(
                min_objects=objects[0],
                max_objects=objects[1],
                lookalike_share=lookalikes,
                colour_share=colours,
                backgrounds=backgrounds,
            )
            write_coco(place, "train", count, config, workers, progress, stream)
    by_size: dict[tuple[int, int], list[DatasetImage]] = defaultdict(list)
    data = read_coco(file)
    if data.problems.counts:
        raise DataError(f"{file} is damaged ({data.problems.lines()[0]}): delete its folder")
    for image in data.images:
        by_size[image.size].append(image)
    pools = [
        ImagePool(
            size,
            tuple(image.file for image in images),
            tuple(tuple(SceneObject(o.name, o.box, o.area, o.colour) for o in image.objects) for image in images),
        )
        for size, images in by_size.items()
    ]
    return tuple(sorted(pools, key=lambda s: (-len(s.files), s.size)))
