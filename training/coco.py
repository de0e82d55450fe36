"""Reading COCO-style annotations: which image is asked for which category, and what the true boxes are."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from acs_core.geometry import Box
from training.errors import DataError

SMALL = (0.001, 0.01)  # share of the image's area, paper section 5.1


@dataclass(frozen=True)
class Pair:
    """An image asked for a category. ``truth`` are all its boxes of that category, in pixels."""

    image_id: int
    file: Path
    category: str
    truth: tuple[Box, ...]

    @property
    def key(self) -> str:
        """Names the pair in every file we write."""
        return f"{self.image_id}:{self.category}"

    def read(self) -> np.ndarray:
        """The picture, (H, W, 3) uint8 RGB.

        Raises:
            DataError: the file is missing or no picture.
        """
        image = cv2.imread(str(self.file), cv2.IMREAD_COLOR)
        if image is None:
            raise DataError(f"{self.file} is missing or no readable picture")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def load_pairs(
    annotations: Path, images: Path | None = None, *, area: tuple[float, float] = SMALL, multiple: bool = False
) -> list[Pair]:
    """The image-category pairs of a COCO ``instances.json`` in the order of image id and category.

    ``images`` is the picture folder (default: ``images`` beside the annotations). A pair qualifies when the box of
    its only object covers a share of the image within ``area``; with ``multiple``, when it has two or more objects,
    all within ``area``. Crowd regions disqualify a pair, since nobody can say what the right boxes are.

    Raises:
        DataError: the file is missing, damaged, or holds no such pair.
    """
    content = _read(annotations)
    folder = images or annotations.parent / "images"
    try:
        names = {c["id"]: str(c["name"]) for c in content["categories"]}
        sizes = {i["id"]: (str(i["file_name"]), float(i["width"]), float(i["height"])) for i in content["images"]}
        grouped: dict[tuple[int, str], list[tuple[Box, bool]]] = defaultdict(list)
        for a in content["annotations"]:
            x, y, w, h = (float(v) for v in a["bbox"])
            grouped[a["image_id"], names[a["category_id"]]].append((Box(x, y, x + w, y + h), bool(a.get("iscrowd"))))
        pairs = []
        for (image_id, name), found in sorted(grouped.items()):
            file_name, width, height = sizes[image_id]
            boxes = tuple(box for box, _ in found)
            share = [box.area / (width * height) for box in boxes]
            right_count = len(boxes) > 1 if multiple else len(boxes) == 1
            if right_count and not any(crowd for _, crowd in found) and all(area[0] <= s <= area[1] for s in share):
                pairs.append(Pair(image_id, folder / file_name, name, boxes))
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(f"{annotations} is not in COCO's format: {type(error).__name__} {error}") from error
    if not pairs:
        raise DataError(f"{annotations} holds no pair of the wanted kind (area share {area[0]}-{area[1]})")
    return pairs


def load_absent(annotations: Path, limit: int, images: Path | None = None, seed: int = 0) -> list[Pair]:
    """Up to ``limit`` images, each with a random category that it does not show; ``truth`` is empty.

    Raises:
        DataError: the file is missing, damaged, or every image shows every category.
    """
    content = _read(annotations)
    folder = images or annotations.parent / "images"
    rng = np.random.default_rng(seed)
    try:
        names = {c["id"]: str(c["name"]) for c in content["categories"]}
        shown: dict[int, set[int]] = defaultdict(set)
        for a in content["annotations"]:
            shown[a["image_id"]].add(a["category_id"])
        pairs = []
        for image in content["images"][:limit]:
            absent = [name for i, name in sorted(names.items()) if i not in shown[image["id"]]]
            if absent:
                pairs.append(Pair(image["id"], folder / str(image["file_name"]), str(rng.choice(absent)), ()))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{annotations} is not in COCO's format: {type(error).__name__} {error}") from error
    if not pairs:
        raise DataError(f"{annotations} holds no image without some category: nothing absent can be asked for")
    return pairs


def _read(annotations: Path) -> dict[str, Any]:
    try:
        content = json.loads(annotations.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"annotations {annotations} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"annotations {annotations} are not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{annotations} is not in COCO's format: it should hold one JSON object")
    return content
