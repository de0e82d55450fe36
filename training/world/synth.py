"""Export of the rendered world as a COCO data set, which all commands read like any other."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np

from acs_core.output_folder import OutputFolder
from training.world.scene import SPLIT_SEEDS, WORLD_VERSION, WRITTEN, SceneObject, WorldConfig, check_split
from training.world.sprites import category_names
from training.world.world import World

MADE = ("images/*", "instances.json")
WORTH_WORKERS = 200  # images; for fewer, starting processes takes longer than rendering


def write_coco(
    folder: Path,
    split: str,
    count: int,
    config: WorldConfig | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    stream: int = WRITTEN,
) -> Path:
    """Render ``count`` images of ``split`` into ``folder``: ``images/*.jpg`` and ``instances.json``, whose path is
    returned.

    As in COCO, ``area`` is the number of visible pixels, and ``bbox`` [x, y, width, height] in pixels. Painted objects
    have ``attributes``, such as {"colour": "red"}. The same split, count and ``stream`` (:mod:`training.world.scene`)
    give the same files for any number of ``workers`` (processes; by default one per core, and none for a few images); a
    larger count begins with the same images. A data set of an earlier call in ``folder`` is replaced when the new one
    is complete.

    Raises:
        ValueError: unknown split, or a count or number of workers below 1.
        OutputError: ``folder`` holds anything but such a data set, or another process is writing it.
        OSError: an image cannot be written.
    """
    check_split(split)
    if count < 1:
        raise ValueError(f"--images must be at least 1, got {count}")
    if workers is not None and workers < 1:
        raise ValueError(f"--workers must be at least 1, got {workers}")
    if workers is None:
        workers = (os.cpu_count() or 1) if count >= WORTH_WORKERS else 1
    file = folder / "instances.json"
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(category_names())]
    ids = {str(c["name"]): i + 1 for i, c in enumerate(categories)}
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    with (
        OutputFolder(folder, "acs-train synth", replaces=MADE) as out,
        out.stage(*MADE) as staged,
        _mapper(workers) as run,
    ):
        (staged / "images").mkdir()
        for i, (name, size, objects) in enumerate(run(partial(_write_scene, staged, split, config, stream), count)):
            images.append({"id": i + 1, "file_name": name, "width": size[0], "height": size[1]})
            for o in objects:
                annotations.append(_annotation(len(annotations) + 1, i + 1, ids[o.name], o))
            progress(i + 1, count)
        content = {
            "info": {"description": f"acs rendered world, split {split}", "version": WORLD_VERSION},
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
        (staged / file.name).write_text(json.dumps(content))
    return file


def _annotation(number: int, image: int, category: int, o: SceneObject) -> dict[str, object]:
    box = [o.box.x1, o.box.y1, o.box.width, o.box.height]
    attributes = {"attributes": {"colour": o.colour}} if o.colour else {}
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "area": o.area,
        "iscrowd": 0,
        **attributes,
    }


Written = tuple[str, tuple[int, int], tuple[SceneObject, ...]]  # file name, (width, height), objects


def _write_scene(folder: Path, split: str, config: WorldConfig | None, stream: int, index: int) -> Written:
    world = _world(split, config)
    scene = world.scene([stream, index])
    name = f"{split}_{index:06d}.jpg"
    low, high = world.config.jpeg_quality
    quality = int(np.random.default_rng([SPLIT_SEEDS[split], stream, index, 1]).integers(low, high + 1))
    path = folder / "images" / name
    picture = cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR)
    path.write_bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())
    return name, (scene.image.shape[1], scene.image.shape[0]), scene.objects


@cache
def _world(split: str, config: WorldConfig | None) -> World:
    """Return the world of ``split``, created once per process: drawing its sources takes a second."""
    return World(split, config)


Run = Callable[[Callable[[int], Written], int], Iterator[Written]]


def _start_worker() -> None:
    """Set up a worker process: one thread, and SIGINT is left to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


@contextmanager
def _mapper(workers: int) -> Iterator[Run]:
    """Yield a function that calls another with 0, 1, ..., count - 1 and yields the results in this order."""
    if workers == 1:
        yield lambda job, count: map(job, range(count))
        return
    # spawn: a forked child of a process whose libraries run threads can hang
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield lambda job, count: pool.map(job, range(count), chunksize=16)
    finally:
        pool.shutdown(cancel_futures=True)
