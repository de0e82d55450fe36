"""Writes the rendered world as a COCO data set, so that every command reads it as it reads the real one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from training.sprites import load_sprites
from training.world import WorldConfig, render_scene

# The embedded models train on seeds of their own (training.tiny.train); no split shares a picture with another.
SPLIT_SEEDS = {"train": 101, "val": 102, "test": 103}


def write_coco(
    folder: Path,
    split: str,
    count: int,
    config: WorldConfig | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Renders ``count`` pictures of ``split`` into ``folder``: ``images/*.png`` and ``instances.json``, whose path is
    returned. ``area`` is the number of visible pixels, ``bbox`` [x, y, width, height] in pixels, as in COCO.

    The same split and count give the same files; a larger count begins with the same pictures.

    Raises:
        ValueError: unknown split, or a count below 1.
    """
    if split not in SPLIT_SEEDS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLIT_SEEDS)}")
    if count < 1:
        raise ValueError(f"--images must be at least 1, got {count}")
    config = config or WorldConfig()
    sprites = load_sprites()
    categories = [{"id": i + 1, "name": s.name} for i, s in enumerate(sprites)]
    ids = {c["name"]: c["id"] for c in categories}
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for i in range(count):
        scene = render_scene(np.random.default_rng([SPLIT_SEEDS[split], i]), sprites, config)
        name = f"{split}_{i:06d}.png"
        if not cv2.imwrite(str(folder / "images" / name), cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR)):
            raise OSError(f"cannot write {folder / 'images' / name}")
        images.append({"id": i + 1, "file_name": name, "width": config.size, "height": config.size})
        for o in scene.objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i + 1,
                    "category_id": ids[o.name],
                    "bbox": [o.box.x1, o.box.y1, o.box.width, o.box.height],
                    "area": o.area,
                    "iscrowd": 0,
                }
            )
        progress(i + 1, count)
    file = folder / "instances.json"
    info = {"description": f"acs rendered world, split {split}"}
    content = {"info": info, "images": images, "annotations": annotations, "categories": categories}
    file.write_text(json.dumps(content))  # last: its presence says that all pictures are there
    return file
