"""The files that `acs-train build` made for one LVLM, in a folder or in a repository of the hub.

Such a place is no model: its ``acs.json`` names the model that the files are for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acs_core.arguments import one_of, whole
from acs_core.artifacts.hub import HubRepository
from acs_core.artifacts.identity import MAX_NAME
from acs_core.artifacts.json_io import read_object
from acs_core.artifacts.model_name import is_hub_id
from acs_core.artifacts.registry import model_names
from acs_core.errors import ModelError
from acs_core.types import COORDINATE_FRAMES, FAMILY_FRAME, LEAST_IMAGE_TOKENS, MAX_IMAGE_TOKENS

BUILT_FILE, BUILT_VERSION = "acs.json", 1
MAX_FILES = 1000  # that one acs.json lists


@dataclass(frozen=True)
class BuiltFiles:
    """A folder or repository of `acs-train build`, and the model that it was built for.

    Attributes:
        place: the folder, or the repository at its commit.
        model: short name, hub id or folder of the model.
        revision: commit of a hub id; None if it is unknown.
        files: names of the files in a repository; None where ``acs.json`` does not list them.
        max_image_tokens: budget of image tokens that the files were made with; None if it is unknown.
        coordinate_frame: frame of coordinates that they were made with, one of
            :data:`acs_core.types.COORDINATE_FRAMES`.
    """

    place: Path | HubRepository
    model: str
    revision: str | None = None
    files: tuple[str, ...] | None = None
    max_image_tokens: int | None = None
    coordinate_frame: str = FAMILY_FRAME

    def folder(self, wanted: Iterable[str]) -> Path:
        """Return the folder that holds the files ``wanted``, as far as there are such files. Those of a repository are
        downloaded into the local cache.

        Raises:
            ModelError: a file that the repository holds cannot be downloaded.
        """
        if isinstance(self.place, Path):
            return self.place
        for file_name in wanted:
            if self.files is None:
                self.place.find(file_name)
            elif file_name in self.files:
                self.place.get(file_name)
        return self.place.get(BUILT_FILE).parent


def built_for(folder: Path) -> BuiltFiles | None:
    """Return the files of a folder of `acs-train build`; None for any other folder.

    Raises:
        ModelError: ``acs.json`` is damaged.
    """
    file = folder / BUILT_FILE
    if not file.is_file() or (folder / "config.json").exists():
        return None
    return _read(file, folder)


def built_in(repository: HubRepository) -> BuiltFiles | None:
    """Return the files of a repository that `acs-train push` made; None for a repository without an ``acs.json``.

    Raises:
        ModelError: ``acs.json`` is damaged, or names a model that only another machine has.
    """
    file = repository.find(BUILT_FILE)
    if file is None:
        return None
    made = _read(file, repository)
    if made.model not in model_names() and not is_hub_id(made.model):
        raise ModelError(
            f"its {BUILT_FILE} names the model {made.model}, which is neither a hub id nor a name shipped with acs: it "
            "has to be uploaded with `acs-train push`, which checks that"
        )
    return made


def built_content(
    model: str,
    revision: str | None,
    files: Iterable[str] | None = None,
    max_image_tokens: int | None = None,
    coordinate_frame: str = FAMILY_FRAME,
) -> dict[str, Any]:
    """Return the content of an ``acs.json`` as JSON values; the arguments are those of :class:`BuiltFiles`."""
    content: dict[str, Any] = {"schema_version": BUILT_VERSION, "model": model, "revision": revision}
    content |= {"max_image_tokens": max_image_tokens, "coordinate_frame": coordinate_frame}
    return content if files is None else content | {"files": sorted(files)}


def _read(file: Path, place: Path | HubRepository) -> BuiltFiles:
    try:
        data = read_object(file, BUILT_VERSION)
    except ValueError as error:
        raise ModelError(f"{file}: {error}. Build the folder again with `acs-train build`") from error
    model, revision = data.get("model"), data.get("revision")
    if not isinstance(model, str) or not _is_name(model) or not isinstance(revision, str | None):
        raise ModelError(f'{file}: fields "model" and "revision" must be a name and a commit or null')
    if revision is not None and not _is_name(revision):
        raise ModelError(f'{file}: field "revision" must be a commit or null')
    return BuiltFiles(place, model, revision, _listed(data, file), *_picture(data, file))


def _picture(data: Mapping[str, Any], file: Path) -> tuple[int | None, str]:
    """Budget of image tokens and frame of coordinates; files of earlier versions lack them."""
    tokens, frame = data.get("max_image_tokens"), data.get("coordinate_frame", FAMILY_FRAME)
    try:
        if tokens is not None:
            tokens = whole("max_image_tokens", tokens, LEAST_IMAGE_TOKENS, MAX_IMAGE_TOKENS)
        return tokens, one_of("coordinate_frame", frame, COORDINATE_FRAMES)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{file}: {error}") from error


def _listed(data: Mapping[str, Any], file: Path) -> tuple[str, ...] | None:
    files = data.get("files")
    if files is None:
        return None
    if (
        not isinstance(files, list)
        or len(files) > MAX_FILES
        or not all(isinstance(name, str) and _is_name(name) for name in files)
    ):
        raise ModelError(f'{file}: field "files" must be a list of at most {MAX_FILES} file names')
    return tuple(files)


def _is_name(text: str) -> bool:
    return 1 <= len(text) <= MAX_NAME and text.isprintable()
