"""Reader of YOLO data sets: a ``data.yaml`` with the names, and a text file of boxes for each picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from acs_core.artifacts.json_io import Limits, read_bytes
from acs_core.plain_text import one_line, shorten
from training.data.dataset import Dataset, DatasetBuilder, RawObject, to_number
from training.data.pictures import size_of
from training.data.voc import SPLITS, SUFFIXES
from training.errors import DataError

LIMITS = Limits(64 << 20, 10_000_000)
YAML_LIMITS = Limits(1 << 20, 100_000)
FILES = ("data.yaml", "data.yml", "dataset.yaml")
MARGIN = 0.01  # share of a side by which boxes commonly exceed the image


def find_yolo(folder: Path, split: str) -> tuple[Path, None] | None:
    """Return the ``data.yaml`` in ``folder``; None if there is none."""
    del split  # the file names the folders of all splits
    return next(((folder / name, None) for name in FILES if (folder / name).is_file()), None)


def read_yolo(
    file: Path, images: Path | None = None, phrases: Mapping[str, str] | None = None, split: str = "train"
) -> Dataset:
    """Read the pictures of a split of ``file``. Boxes are shares of the upright picture, as Ultralytics reads them;
    polygons become the box around them.

    ``images`` is the folder that the paths in the file start from (default: the folder of the file). Leading parts of
    these paths that do not exist there are dropped; nothing outside of the folder is read.

    Raises:
        DataError: the file is missing, not such a file, or the pictures of the split are not found.
    """
    content = _yaml(file)
    names = _names(content.get("names"), file)
    entry = next((content[name] for name in SPLITS[split] if content.get(name)), None)
    if entry is None:
        raise DataError(f"{file} names no pictures of the split {split}: it should hold {split}: FOLDER")
    made = DatasetBuilder(file, phrases)
    for name in names.values():
        made.add_category(name)
    folder = images or file.parent
    pose = content.get("kpt_shape") is not None
    pictures = [*_pictures(folder, content.get("path"), entry, file)]
    stems = Counter(picture.stem for picture in pictures)
    for picture in pictures:
        size = size_of(picture)
        if size is None:
            made.problems.note("picture that cannot be read", str(picture))
            continue
        place = picture.relative_to(folder).as_posix()
        name = picture.stem if stems[picture.stem] == 1 else place
        if (number := made.take_id(name, place)) is not None:
            labels = _labels_of(picture)
            made.add_image(number, picture, size, _objects(labels, names, size, pose, made), declared=False)
    return made.build()


def _objects(
    file: Path, names: Mapping[int, str], size: tuple[int, int], pose: bool, made: DatasetBuilder
) -> Iterator[RawObject]:
    if not file.is_file():
        return  # a picture without objects
    try:
        lines = read_bytes(file, LIMITS).decode("utf-8-sig", "replace").splitlines()
    except ValueError as error:
        made.problems.note("label file that cannot be read", f"{file}: {error}")
        return
    for row, line in enumerate(lines, 1):
        if not (words := line.split()):
            continue
        where = f"line {row} of {file.name}"
        name = names.get(int(words[0])) if _is_class(words[0]) else None
        if name is None:
            made.problems.note("bad annotation: without a known category", f"{where}: {shorten(line)}")
            continue
        corners = _corners(words[1:5] if pose else words[1:])
        if corners is None:
            problem = "neither x, y, width and height nor a polygon, in shares of the picture"
            yield RawObject(name, None, where, problem=problem, found=line)
            continue
        (x1, y1, x2, y2), (width, height) = corners, size
        yield RawObject(name, (x1 * width, y1 * height, x2 * width, y2 * height), where)


def _is_class(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) < 9


def _corners(words: list[str]) -> tuple[float, float, float, float] | None:
    """Return the corners of a box (x, y, width, height) or around a polygon, as shares; None if it is neither."""
    values = [v for v in map(to_number, words) if v is not None and -MARGIN <= v <= 1 + MARGIN]
    if len(values) != len(words) or len(values) < 4 or len(values) % 2:
        return None
    if len(values) == 4:
        x, y, w, h = values
        return x - w / 2, y - h / 2, x + w / 2, y + h / 2
    return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])


def _pictures(folder: Path, root: Any, entry: Any, file: Path) -> Iterator[Path]:
    """Yield the pictures that an entry of the file names: folders, or text files that list pictures."""
    for one in entry if isinstance(entry, list) else [entry]:
        place = _below(folder, root, one)
        if place is None:
            raise DataError(
                f"{file}: {shorten(one)} is not below {folder}: name the folder that its paths start from with --images"
            )
        if place.is_dir():
            yield from sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES)
            continue
        try:
            lines = read_bytes(place, LIMITS).decode("utf-8-sig", "replace").splitlines()
        except ValueError as error:
            raise DataError(f"{place}: {error}") from error
        for line in filter(None, map(str.strip, lines)):
            yield _below(folder, root, line) or folder / _parts(line)[-1]


def _below(folder: Path, root: Any, name: Any) -> Path | None:
    """Return the existing file or folder ``name`` below ``folder`` or below ``root`` in it, a path of which leading
    parts may be missing; of ``name`` only where it is an absolute path."""
    above, parts = _parts(root), _parts(name)
    if str(name).startswith("/") or str(name)[1:2] == ":":
        above, parts = [*above, *parts[:-2]], parts[-2:]
    places = [folder.joinpath(*above[k:], *parts) for k in range(len(above) + 1)]
    return next((place for place in places if parts and place.exists()), None)


def _parts(path: Any) -> list[str]:
    """Return the parts of a path, without drive, root and steps upwards."""
    words = str(path or "").replace("\\", "/").split("/")
    return [word for word in words if word not in ("", ".", "..") and not word.endswith(":")]


def _labels_of(picture: Path) -> Path:
    """Return the label file of a picture: in ``labels`` where the picture is in ``images``, else beside it."""
    parts = list(picture.parts)
    for k in range(len(parts) - 2, -1, -1):
        if parts[k] == "images":
            parts[k] = "labels"
            return Path(*parts).with_suffix(".txt")
    return picture.with_suffix(".txt")


def _names(value: Any, file: Path) -> dict[int, str]:
    """Return the names of the categories by number, from a list or a mapping."""
    found = dict(enumerate(value)) if isinstance(value, list) else value
    if isinstance(found, dict) and found:
        names = {int(k): v for k, v in found.items() if _is_class(str(k)) and isinstance(v, str) and v.strip()}
        if len(names) == len(found):
            return names
    raise DataError(f'{file} is not a data.yaml of YOLO: it should hold "names", a list, or numbers with names')


def _yaml(file: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, whose scalars all stay texts: a category may be named "no"."""
    import yaml

    try:
        raw = read_bytes(file, YAML_LIMITS)
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(raw, Loader=yaml.BaseLoader)):
            raise ValueError("references (*name) are not read")
        content = _plain(yaml.compose(raw, Loader=yaml.BaseLoader))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{file} is not YAML that can be read: {one_line(str(error))}") from error
    if not isinstance(content, dict):
        raise DataError(f"{file} is not a data.yaml of YOLO: it should hold names and folders")
    return content


def _plain(node: Any) -> Any:
    """Return texts, lists and mappings of texts in place of the nodes of YAML; keys that are no texts are left out."""
    value = getattr(node, "value", None)
    if isinstance(value, list) and node.id == "mapping":
        return {key.value: _plain(below) for key, below in value if isinstance(key.value, str)}
    return [_plain(below) for below in value] if isinstance(value, list) else value
