"""Image-category pairs, the questions of paper section 5.1, with their true boxes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from acs_core.geometry import Box
from acs_core.pixels import MOST_BITS
from acs_core.selection.second_look import Window
from training.data.coco import read_coco
from training.data.dataset import SMALL, Dataset, DatasetImage
from training.data.phrases import by_phrase, coloured
from training.data.pictures import read_picture
from training.errors import DataError

# Share of the image's area that an object's box covers; a share on a border belongs to the smaller kind.
SIZES = {"small": SMALL, "medium": (0.01, 0.05), "large": (0.05, 1.0)}
ABSENT = "absent"  # kind of the pairs whose image does not show what is asked for
WRONG_COLOUR = 0.2
CALIBRATION_SHARE = 0.2  # of the pairs of a data set, at most
Objects = Literal["single", "several", "any"]


@dataclass(frozen=True)
class Pair:
    """An image and the category to find in it.

    Attributes:
        image_id: id of the image.
        file: path of the image.
        category: the phrase: name of the category, or a colour and that name (:mod:`training.data.phrases`).
        truth: all boxes of the category in pixels of the image, or of the enlarged ``window`` if there is one.
        kind: kind of pair ("small", "several large", ...); "" if the kind was not chosen.
        window: part of the image that is enlarged for a second look (:class:`acs_core.selection.second_look.Window`);
            None for the whole image.
        bits: number of bits that the values of a 16-bit image use.
        size: (width, height) in pixels of the image that ``truth`` refers to; None if it is not known.
        picture: first digits of the SHA-256 of the image file; "" if it is not known.
    """

    image_id: int
    file: Path
    category: str
    truth: tuple[Box, ...]
    kind: str = ""
    window: Window | None = None
    bits: int = MOST_BITS
    size: tuple[int, int] | None = None
    picture: str = ""

    @property
    def key(self) -> str:
        """Identifier of the pair in all files."""
        return f"{self.image_id}:{self.category}"

    def read(self) -> np.ndarray:
        """Read the image, or its window, (H, W, 3) uint8 RGB.

        Raises:
            DataError: the file is missing, not an image, or of another size than the true boxes refer to.
        """
        picture = read_picture(self.file, self.bits)
        if self.size not in (None, (width := picture.shape[1], height := picture.shape[0])):
            raise DataError(f"{self.file} has {width} x {height} pixels, its boxes are of {self.size} pixels")
        return picture if self.window is None else self.window.enlarged(picture)

    def within(self, window: Window) -> Pair:
        """Return the pair for ``window`` alone."""
        return replace(self, truth=tuple(window.to_window(box) for box in self.truth), window=window)


def choose_pairs(
    data: Dataset,
    sizes: Sequence[str] = ("small",),
    objects: Objects = "single",
    limit: int | None = None,
    seed: int = 0,
) -> list[Pair]:
    """Return the pairs of ``data`` whose objects all have one of the given sizes, in the order of image id and
    category.

    Unclear objects, invalid annotations and categories that are not exhaustively annotated disqualify a pair, since its
    true boxes are not all known.

    Args:
        data: the annotations.
        sizes: keys of ``SIZES``.
        objects: ``single`` for one object of the category, ``several`` for more, or ``any``.
        limit: maximum number of pairs; if there are more, they are drawn with ``seed``.
        seed: seed of the draw.

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
            f"small is {SMALL[0]:.1%} to {SMALL[1]:.0%} of the image's area{data.problems.dominant()}"
        )
    return drawn_of(found, limit, seed)


def drawn_of(pairs: Sequence[Pair], limit: int | None, seed: int = 0) -> list[Pair]:
    """Return ``pairs`` in the order of image id and category; of more than ``limit``, so many, drawn with ``seed``."""
    if limit is not None and limit < len(pairs):
        drawn = np.random.default_rng(seed).permutation(len(pairs))[:limit]
        pairs = [pairs[i] for i in drawn]
    return sorted(pairs, key=lambda p: (p.image_id, p.category))


def split_pairs(
    pairs: Sequence[Pair], limit: int | None, calibration: int, seed: int = 0
) -> tuple[list[Pair], list[Pair]]:
    """Divide ``pairs`` by image into those to train on, at most ``limit``, and those to calibrate on.

    Images are drawn with ``seed`` for the calibration until they have ``calibration`` pairs or a fifth of all.
    """
    by_image: dict[int, list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_image[pair.image_id].append(pair)
    wanted = min(calibration, int(len(pairs) * CALIBRATION_SHARE))
    fresh: list[Pair] = []
    rest: list[Pair] = []
    numbers = sorted(by_image)
    for k in np.random.default_rng(seed).permutation(len(numbers)):
        (fresh if len(fresh) < wanted else rest).extend(by_image[numbers[k]])
    in_order = drawn_of(rest, None)
    return drawn_of(in_order, limit, seed), drawn_of(fresh, calibration, seed)


def load_pairs(
    annotations: Path, images: Path | None = None, *, area: tuple[float, float] = SMALL, multiple: bool = False
) -> list[Pair]:
    """Read the pairs of an ``instances.json`` in the order of image id and category: those whose only object covers a
    share of the image within ``area``; with ``multiple``, those of two or more objects, all within ``area``.

    Raises:
        DataError: the file is missing, damaged, or holds no such pair.
    """
    pairs = _of_kind(read_coco(annotations, images), area, multiple, "")
    if not pairs:
        raise DataError(f"{annotations} holds no pair of the wanted kind (area share {area[0]}-{area[1]})")
    return pairs


def load_absent(annotations: Path, limit: int, images: Path | None = None, seed: int = 0) -> list[Pair]:
    """Read up to ``limit`` images, each paired with a random category that it does not show; ``truth`` is empty.

    Raises:
        DataError: the file is missing, damaged, or every image shows every category.
    """
    return choose_absent(read_coco(annotations, images), limit, seed)


def choose_absent(data: Dataset, limit: int, seed: int = 0, images: Collection[int] | None = None) -> list[Pair]:
    """Return up to ``limit`` pairs of an image and something that it does not show; ``truth`` is empty.

    Each image gets a first phrase before any gets a second; images are drawn with ``seed`` where there are more than
    ``limit``. Pairs are in the order of the images. A phrase is a category, or, with probability WRONG_COLOUR where
    the colours of objects are known, the name of an object with the colour of another.

    Args:
        data: the annotations.
        limit: maximum number of pairs.
        seed: seed of the draw.
        images: ids of the images to use; None for all.

    Raises:
        DataError: every image shows every category.
    """
    rng = np.random.default_rng(seed)
    colours = sorted({o.colour for image in data.images for o in image.objects if o.colour})
    unused = {
        image.id: _absent_phrases(image, data.names, colours, rng)
        for image in data.images
        if images is None or image.id in images
    }
    drawn: list[tuple[int, Pair]] = []
    while len(drawn) < limit and any(unused.values()):
        for k in rng.permutation(len(data.images)).tolist():
            image = data.images[k]
            if unused.get(image.id) and len(drawn) < limit:
                phrase = unused[image.id].pop()
                drawn.append((k, Pair(image.id, image.file, phrase, (), ABSENT, bits=image.bits, size=image.size)))
    pairs = [pair for _, pair in sorted(drawn, key=lambda found: found[0])]
    if not pairs:
        raise DataError(f"{data.file} holds no image without some category: nothing absent can be asked for")
    return pairs


def _absent_phrases(
    image: DatasetImage, names: Sequence[str], colours: Sequence[str], rng: np.random.Generator
) -> list[str]:
    """Return phrases for what ``image`` does not show, in random order."""
    shown = {o.name for o in image.objects} | image.doubtful
    known = names if image.absent is None else [name for name in names if name in image.absent]
    categories = [name for name in known if name not in shown]
    rng.shuffle(categories)
    own = {(o.name, o.colour) for o in image.objects}
    painted = sorted({o.name for o in image.objects if o.colour and (o.name, "") not in own})
    others = [coloured(c, name) for name in painted for c in colours if (name, c) not in own]
    rng.shuffle(others)
    found = []
    while categories:
        found.append((others if others and rng.random() < WRONG_COLOUR else categories).pop())
    return found


def _of_kind(data: Dataset, area: tuple[float, float], several: bool, kind: str) -> list[Pair]:
    pairs = []
    for image in data.images:
        unclear = {o.name for o in image.objects if o.unclear} | image.doubtful
        for phrase, found in by_phrase(image.objects).items():
            share = [o.box.area / (image.size[0] * image.size[1]) for o in found]
            # except for the first kind, the lower border belongs to the kind below
            inside = all(area[0] <= s <= area[1] and (s > area[0] or area[0] <= SMALL[0]) for s in share)
            if (len(found) > 1) == several and inside and found[0].name not in unclear:
                truth = tuple(o.box for o in found)
                pairs.append(Pair(image.id, image.file, phrase, truth, kind, None, image.bits, image.size))
    return sorted(pairs, key=lambda p: (p.image_id, p.category))


def _name(size: str, several: bool) -> str:
    return f"several {size}" if several else size
