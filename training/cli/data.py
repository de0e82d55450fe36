"""Data sets of the commands: the questions that their annotations give, and what is said about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from training.cli.console import err
from training.cli.options import Objects, Size

if TYPE_CHECKING:
    from training.collection.store import Collection
    from training.data.dataset import Dataset, Problems
    from training.data.formats import DataSource
    from training.data.pairs import Pair


def sides_of(
    coco: Path | None,
    train: tuple[Path | None, Path | None],
    calibration: tuple[Path | None, Path | None],
    phrases: Path | None = None,
) -> tuple[DataSource, DataSource | None]:
    """Return the annotations to train on, and those to calibrate on if they are others.

    Args:
        coco: folder of a data set.
        train: annotations and image folder to train on.
        calibration: annotations and image folder to calibrate on.
        phrases: file of phrases by category.
    """
    from training.data.formats import locate

    if coco and (train[0] or calibration[0]):
        raise typer.BadParameter("says where everything is; leave --train and --calibration out", param_hint="--coco")
    if not coco and train[0] is None:
        raise typer.BadParameter("name the data: --coco FOLDER, or --train", param_hint="--coco")
    file, images = (coco, None) if coco else train
    first = locate(file or Path(), images, "train", phrases)
    return first, locate(calibration[0], calibration[1], "val", phrases) if calibration[0] else None


def read_data(source: DataSource) -> Dataset:
    """Read annotations; their problems are printed."""
    data = source.read()
    for line in data.problems.lines():
        err.print(f"{source.file.name}: left out {line}", style="yellow", markup=False)
    return data


def pairs_of(
    source: DataSource,
    sizes: Sequence[Size],
    objects: Objects,
    limit: int | None,
    seed: int,
    absent_share: float = 0.0,
) -> list[Pair]:
    """Return the pairs to sample, with boxes in pixels of their pictures, followed by pairs about absent objects, which
    are ``absent_share`` of all. Problems of annotations and pictures are printed."""
    from training.data.pairs import choose_pairs

    data = read_data(source)
    chosen = choose_pairs(data, [str(s) for s in sizes], objects.value, limit, seed)
    return fitted_pairs(source, data, [*chosen, *_absent(data, chosen, absent_share, seed)])


def _absent(data: Dataset, chosen: Sequence[Pair], share: float, seed: int) -> list[Pair]:
    """Return pairs about objects that the images of ``chosen`` do not show, ``share`` of all; none, with a warning, if
    each image shows every category."""
    from training.data.pairs import choose_absent
    from training.errors import DataError

    wanted = round(share / (1 - share) * len(chosen))
    if not wanted:
        return []
    try:
        return choose_absent(data, wanted, seed, {pair.image_id for pair in chosen})
    except DataError as error:
        err.print(f"no questions about absent objects: {error}", style="yellow", markup=False)
        return []


def pairs_of_store(source: DataSource, collection: Collection) -> list[Pair]:
    """Return the pairs of ``source`` that ``collection`` was made of, with boxes in pixels of their pictures."""
    from training.data.pairs import ABSENT, Pair, choose_pairs

    data = read_data(source)
    keys = set(collection.manifest.get("pairs", ()))
    found = {pair.key: pair for pair in choose_pairs(data, tuple(Size), "any") if pair.key in keys}
    images = {image.id: image for image in data.images}
    for key, kind in zip(collection.manifest.get("pairs", ()), collection.manifest.get("kinds", ()), strict=False):
        number, _, phrase = key.partition(":")
        if kind == ABSENT and key not in found and (image := images.get(int(number))):
            found[key] = Pair(image.id, image.file, phrase, (), ABSENT, bits=image.bits, size=image.size)
    return fitted_pairs(source, data, list(found.values()))


def both_sides_of(
    source: DataSource,
    sizes: Sequence[Size],
    objects: Objects,
    limit: int,
    calibration_limit: int,
    seed: int,
    absent_share: float = 0.0,
) -> tuple[list[Pair], list[Pair]]:
    """Return pairs to train on and pairs of other images to calibrate on, from one side of a data set. Of the latter,
    ``absent_share`` ask for absent objects."""
    from training.data.pairs import choose_pairs, split_pairs

    data = read_data(source)
    chosen = choose_pairs(data, [str(s) for s in sizes], objects.value)
    train, fresh = split_pairs(chosen, limit, calibration_limit, seed)
    images = {pair.image_id for pair in train}
    both = fitted_pairs(source, data, [*train, *fresh, *_absent(data, fresh, absent_share, seed)])
    return [p for p in both if p.image_id in images], [p for p in both if p.image_id not in images]


def without_trained(train: Sequence[Pair], fresh: Sequence[Pair], same_data: bool) -> list[Pair]:
    """Return the pairs of ``fresh`` whose pictures are not among those of ``train``; how many are left out is printed.
    ``same_data``: whether both are from the same annotations, so that equal image ids are the same image."""
    pictures = {pair.picture for pair in train if pair.picture}
    numbers = {pair.image_id for pair in train} if same_data else set()
    kept = [pair for pair in fresh if pair.picture not in pictures and pair.image_id not in numbers]
    if left := len(fresh) - len(kept):
        err.print(
            f"{left} of {len(fresh)} calibration questions left out: their pictures are trained on", style="yellow"
        )
    return kept


def fitted_pairs(source: DataSource, data: Dataset, pairs: Sequence[Pair], notes: Problems | None = None) -> list[Pair]:
    """Return ``pairs`` with their boxes in pixels of their pictures; what was done to them is printed, and noted in
    ``notes``."""
    from training.data.dataset import Problems
    from training.data.pictures import fit_to_pictures

    notes = Problems() if notes is None else notes
    kept = fit_to_pictures(pairs, data.images, notes)
    for line in notes.lines():
        err.print(f"{source.file.name}: {line}", style="yellow", markup=False)
    return kept
