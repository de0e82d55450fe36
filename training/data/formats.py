"""The formats of annotations that are read, and how a path is taken for one of them.

A new format is a module with a function that finds its files in a folder and one that reads them, and a row of
``FORMATS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from acs_core.artifacts.json_io import read_json
from training.data.coco import find_coco, read_coco
from training.data.dataset import Dataset
from training.data.open_images import find_open_images, read_open_images
from training.data.voc import find_voc, read_voc
from training.data.yolo import find_yolo, read_yolo
from training.errors import DataError

SplitName = Literal["train", "val"]
Found = tuple[Path, Path | None]  # annotations, image folder


@dataclass(frozen=True)
class DataFormat:
    """A format of annotations.

    Attributes:
        name: its name.
        suffixes: suffixes of its annotation file; empty if a folder holds one for each picture.
        find: returns annotations and images of a split in a folder, or None.
        read: reads a source.
        splits: whether one file names all splits.
    """

    name: str
    suffixes: tuple[str, ...]
    find: Callable[[Path, str], Found | None]
    read: Callable[[DataSource], Dataset]
    splits: bool = False


@dataclass(frozen=True)
class DataSource:
    """Annotations that a command reads.

    Attributes:
        format: their format.
        file: annotation file, or folder of annotation files.
        images: image folder; None for the usual one of the format.
        split: "train" or "val".
        phrases: phrases by category, where they are not the categories' names.
    """

    format: DataFormat
    file: Path
    images: Path | None
    split: str
    phrases: Mapping[str, str]

    @property
    def name(self) -> str:
        """Name of the annotations in collections: "val/instances.json"."""
        name = f"{self.file.resolve().parent.name}/{self.file.name}"
        return f"{name} ({self.split})" if self.format.splits else name

    def read(self) -> Dataset:
        """Read the annotations.

        Raises:
            DataError: they are missing or damaged, or hold no image that can be used; the message ends with the most
                frequent problem.
        """
        data = self.format.read(self)
        if not data.images:
            raise DataError(
                f"{self.file} ({self.format.name}) holds no image that can be used{data.problems.dominant()}"
            )
        return data


FORMATS = (
    DataFormat("COCO", (".json",), find_coco, lambda s: read_coco(s.file, s.images, s.phrases)),
    DataFormat("YOLO", (".yaml", ".yml"), find_yolo, lambda s: read_yolo(s.file, s.images, s.phrases, s.split), True),
    DataFormat("Pascal VOC", (), find_voc, lambda s: read_voc(s.file, s.images, s.phrases)),
    DataFormat("Open Images", (".csv",), find_open_images, lambda s: read_open_images(s.file, s.images, s.phrases)),
)


def locate(
    path: Path, images: Path | None = None, split: SplitName = "train", phrases: Path | None = None
) -> DataSource:
    """Return the annotations that ``path`` stands for: an annotation file, or the folder of a data set.

    Args:
        path: annotation file or folder.
        images: image folder, where not the usual one of the format.
        split: side of the data set, where ``path`` holds several.
        phrases: file of :func:`read_phrases`.

    Raises:
        DataError: ``path`` is of no known format.
    """
    words = read_phrases(phrases) if phrases else {}
    if path.is_dir():
        for one in FORMATS:
            if found := one.find(path, split):
                return DataSource(one, found[0], images or found[1], split, words)
        raise DataError(_unknown_folder(path, split))
    for one in FORMATS:
        if path.suffix.lower() in one.suffixes:
            return DataSource(one, path, images, split, words)
    if path.suffix.lower() == ".txt" and (path.parent.parent.parent / "Annotations").is_dir():
        return DataSource(FORMATS[2], path, images, split, words)
    if not path.exists():
        raise DataError(f"{path} does not exist")
    raise DataError(f"{path} is of no known format ({_known()}); of Pascal VOC, name the folder")


def read_phrases(file: Path) -> dict[str, str]:
    """Return the phrases by category in a JSON object, {"tvmonitor": "television"}.

    Raises:
        DataError: the file cannot be read, or holds anything else.
    """
    try:
        content = read_json(file)
    except ValueError as error:
        raise DataError(f"phrases {file}: {error}") from error
    texts = isinstance(content, dict) and all(isinstance(v, str) and v.strip() for v in content.values())
    if not texts:
        raise DataError(f'phrases {file}: it should hold one JSON object of texts, {{"tvmonitor": "television"}}')
    return dict(content)


def _known() -> str:
    return ", ".join(f"{one.name}: {' or '.join(one.suffixes) or 'a folder of .xml'}" for one in FORMATS)


def _unknown_folder(path: Path, split: str) -> str:
    inside = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in path.iterdir())
    shown = ", ".join(inside[:5]) + (", ..." if len(inside) > 5 else "")
    return (
        f"{path} holds no {split} side of a data set in a known layout ({_known()}); it holds {shown or 'nothing'}"
        ": name the annotation file"
    )
