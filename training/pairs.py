"""Image-category pairs: which image is asked for which category (paper section 5.1), and what the true boxes are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from acs_core.geometry import Box
from acs_core.second_look import Window
from training.coco import SMALL, CocoData, by_category, read_coco, read_picture
from training.errors import DataError

# Share of the image's area that an object's box covers; a share on a border belongs to the smaller kind.
SIZES = {"small": SMALL, "medium": (0.01, 0.05), "large": (0.05, 1.0)}
Objects = Literal["single", "several", "any"]


@dataclass(frozen=True)
class Pair:
    """An image asked for a category. ``truth`` are all its boxes of that category, in pixels; ``kind`` says which kind
    of pair it is ("small", "several large", ...; "" where nobody asked). With a ``window`` it is the enlarged part of
    the picture that is asked about, and ``truth`` is in the window (:class:`acs_core.second_look.Window`)."""

    image_id: int
    file: Path
    category: str
    truth: tuple[Box, ...]
    kind: str = ""
    window: Window | None = None

    @property
    def key(self) -> str:
        """Names the pair in every file we write."""
        return f"{self.image_id}:{self.category}"

    def read(self) -> np.ndarray:
        """What is asked about, (H, W, 3) uint8 RGB.

        Raises:
            DataError: the file is missing or no picture.
        """
        picture = read_picture(self.file)
        return picture if self.window is None else self.window.enlarged(picture)

    def within(self, window: Window) -> Pair:
        """The same question about ``window`` alone."""
        return replace(self, truth=tuple(window.to_window(box) for box in self.truth), window=window)


def choose_pairs(
    data: CocoData,
    sizes: Sequence[str] = ("small",),
    objects: Objects = "single",
    limit: int | None = None,
    seed: int = 0,
) -> list[Pair]:
    """The pairs of ``data`` whose objects are all of one of the ``sizes`` (keys of ``SIZES``), in the order of image id
    and category: ``single`` with one object of the category, ``several`` with more, or ``any``. If there are more than
    ``limit``, so many of them are drawn with ``seed``.

    Unclear objects and bad annotations disqualify a pair, since nobody can say what the right boxes are.

    Raises:
        DataError: an unknown size, or no such pair.
    """
    unknown = [size for size in sizes if size not in SIZES]
    if unknown or not sizes:
        raise DataError(f"unknown size {', '.join(unknown) or 'none'}: choose of {', '.join(SIZES)}")
    kinds = [(size, several) for size in SIZES if size in sizes for several in (False, True)]
    kinds = [(size, several) for size, several in kinds if objects in ("any", "several" if several else "single")]
    found = [p for size, several in kinds for p in _of_kind(data, SIZES[size], several, _name(size, several))]
    if not found:
        raise DataError(
            f"{data.file} holds no pair of the wanted kind ({', '.join(_name(*k) for k in kinds)}); "
            f"small is {SMALL[0]:.1%} to {SMALL[1]:.0%} of the image's area"
        )
    if limit is not None and limit < len(found):
        drawn = np.random.default_rng(seed).permutation(len(found))[:limit]
        found = [found[i] for i in drawn]
    return sorted(found, key=lambda p: (p.image_id, p.category))


def load_pairs(
    annotations: Path, images: Path | None = None, *, area: tuple[float, float] = SMALL, multiple: bool = False
) -> list[Pair]:
    """The pairs of an ``instances.json`` in the order of image id and category: those whose only object covers a share
    of the image within ``area``; with ``multiple``, those of two or more objects, all within ``area``.

    Raises:
        DataError: the file is missing, damaged, or holds no such pair.
    """
    pairs = _of_kind(read_coco(annotations, images), area, multiple, "")
    if not pairs:
        raise DataError(f"{annotations} holds no pair of the wanted kind (area share {area[0]}-{area[1]})")
    return pairs


def load_absent(annotations: Path, limit: int, images: Path | None = None, seed: int = 0) -> list[Pair]:
    """Up to ``limit`` images, each with a random category that it does not show; ``truth`` is empty.

    Raises:
        DataError: the file is missing, damaged, or every image shows every category.
    """
    data = read_coco(annotations, images)
    rng = np.random.default_rng(seed)
    pairs = []
    for image in data.images[:limit]:
        shown = {o.name for o in image.objects} | image.doubtful
        absent = [name for name in data.names if name not in shown]
        if absent:
            pairs.append(Pair(image.id, image.file, str(rng.choice(absent)), ()))
    if not pairs:
        raise DataError(f"{annotations} holds no image without some category: nothing absent can be asked for")
    return pairs


def _of_kind(data: CocoData, area: tuple[float, float], several: bool, kind: str) -> list[Pair]:
    pairs = []
    for image in data.images:
        for name, found in by_category(image).items():
            share = [o.box.area / (image.size[0] * image.size[1]) for o in found]
            # from the second kind on the lower border belongs to the kind below
            inside = all(area[0] <= s <= area[1] and (s > area[0] or area[0] <= SMALL[0]) for s in share)
            clear = name not in image.doubtful and not any(o.unclear for o in found)
            if (len(found) > 1) == several and inside and clear:
                pairs.append(Pair(image.id, image.file, name, tuple(o.box for o in found), kind))
    return sorted(pairs, key=lambda p: (p.image_id, p.category))


def _name(size: str, several: bool) -> str:
    return f"several {size}" if several else size
