"""What ``acs-ground`` is asked: the images that its arguments name, its phrases, and where the outputs go."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

from acs_core.arguments import clean_phrase, split_text
from acs_core.errors import ImageError, OutputError, PhraseError
from acs_core.output import check_distinct, check_target

READ = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")  # taken from folders
WRITTEN = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
NAME_FORMS = ((1, False), (0, True), (1, True), (2, False), (2, True), (3, False), (3, True))  # folders, with ending
MOST_BYTES = 200  # of a name with folders in it; file systems allow 255, and files beside it have longer names


def find_images(given: Sequence[Path]) -> list[Path]:
    """Return the image files that the arguments of a command line name, each once, in their order.

    A folder stands for the image files in it, by their endings, without subfolders and hidden files, sorted by name; a
    pattern (``shelf/*.jpg``) that is no file itself stands for the files that match it, sorted.

    Raises:
        ImageError: a folder holds no image file, or a pattern matches no file.
    """
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if is_picture(p) and not p.name.startswith("."))
            if not inside:
                raise ImageError(f"the folder {path} holds no image file ({', '.join(READ)})")
            found += inside
        elif glob.has_magic(str(path)) and not path.exists():
            matching = sorted(Path(p) for p in glob.glob(str(path)) if Path(p).is_file())  # noqa: PTH207
            if not matching:
                raise ImageError(f"no file matches {path}")
            found += matching
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def is_picture(path: Path) -> bool:
    """Return whether ``path`` is a file with the ending of a picture that acs reads. Its content is not read."""
    try:
        return path.suffix.lower() in READ and path.is_file()
    except (OSError, ValueError):  # a phrase may be too long for a file name, or have a null character
        return False


def find_phrases(text: str) -> list[str]:
    """Return the cleaned phrases of a text, each once; they are separated by semicolons.

    Raises:
        PhraseError: there is none, or one cannot be used.
    """
    phrases = [clean_phrase(part) for part in split_text(text)]
    if not phrases:
        raise PhraseError("the phrase is empty or has control characters only: name the object to look for, like 'key'")
    return list(dict.fromkeys(phrases))


def picture_names(images: Sequence[Path]) -> list[str]:
    """Return the name of the drawn picture of each image: distinct names that end in ``.png``, in the same order.

    An image whose name no other one has gives its own, ``a.png`` for ``a.jpg``. Images with the same name in different
    folders get the folder in front (``left-a.png``), those that differ in their ending alone keep it (``a.jpg.png``).
    Where that does not tell them apart, as for one file that is named in two ways, they are numbered (``a-2.png``).
    """
    groups: dict[str, list[Path]] = {}
    for image in dict.fromkeys(images):
        groups.setdefault(image.stem, []).append(image)
    names = {group[0]: stem for stem, group in groups.items() if len(group) == 1}
    for stem, group in groups.items():
        if len(group) > 1:
            names.update(zip(group, _distinct_names(stem, group, set(names.values())), strict=True))
    return [f"{names[image]}.png" for image in images]


def _distinct_names(stem: str, group: Sequence[Path], taken: set[str]) -> list[str]:
    paths = [Path(os.path.abspath(image)) for image in group]  # noqa: PTH100  (resolve() would follow links)
    for folders, ending in NAME_FORMS:
        parts = [path.parts[max(1, len(path.parts) - 1 - folders) : -1] for path in paths]
        found = ["-".join((*above, p.name if ending else stem)) for above, p in zip(parts, paths, strict=True)]
        if len({*found} - taken) == len(group) and max(len(os.fsencode(name)) for name in found) <= MOST_BYTES:
            return found
    free = (name for n in count(1) if (name := stem if n == 1 else f"{stem}-{n}") not in taken)
    return list(islice(free, len(group)))


@dataclass(frozen=True)
class Outputs:
    """Files that the command writes.

    Attributes:
        json: file of the results; None for none.
        pictures: the drawn picture of each image; empty for none.
        folder: folder of the pictures, which may have to be made; None for a single picture.
    """

    json: Path | None
    pictures: tuple[Path, ...]
    folder: Path | None

    @classmethod
    def of(cls, images: Sequence[Path], out: Path | None, json: Path | None, read: Iterable[Path]) -> Outputs:
        """Check the outputs before the model is loaded.

        Args:
            images: the image files.
            out: picture, or the folder of the pictures where there are several images.
            json: file of the results.
            read: files that the command reads.

        Raises:
            OutputError: an output may not be written, or two outputs are the same file.
        """
        folder = out if len(images) > 1 else None
        pictures: tuple[Path, ...] = () if out is None else (out,)
        if folder is not None:
            if folder.exists() and not folder.is_dir():
                raise OutputError(f"{folder} is a file: for {len(images)} images, --out names a folder")
            pictures = tuple(folder / name for name in picture_names(images))
        check_distinct(*pictures, json)
        given = list(read)
        for path in (*pictures, json):
            if path is not None and (path == json or folder is None or folder.is_dir()):
                check_target(path, given)
        return cls(json, pictures, folder)
