"""The safetensors files that acs makes for one LVLM: their metadata, and reading them without trusting their
content."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open

from acs_core import arguments
from acs_core.artifacts.identity import ModelIdentity, ModelInfo
from acs_core.artifacts.json_io import LFS_POINTER, open_file, parse_object, refuse_pointer
from acs_core.errors import ArtifactError
from acs_core.plain_text import shorten

SCHEMA_VERSION = 1
MAX_SIDE = 256  # of an attention map
T = TypeVar("T")


@dataclass(frozen=True)
class Origin:
    """Origin of a file.

    Attributes:
        identity: the LVLM it was made for.
        map_size: (h, w) of its attention maps.
        made_by: how it was made.
    """

    identity: ModelIdentity
    map_size: tuple[int, int]
    made_by: str = ""


@dataclass(frozen=True)
class TensorFile:
    """A kind of file: ``what`` it is called in messages, the metadata ``key`` that tells it from others, the size that
    none exceeds, the error it is refused with, a sentence on where to get one, and the selector to use ``instead`` of
    the one that reads it."""

    what: str
    key: str
    max_bytes: int
    error: type[ArtifactError]
    advice: str
    instead: str

    def metadata(self, origin: Origin, **more: object) -> dict[str, str]:
        """Return the metadata of a new file; ``more`` are further JSON values."""
        data = {"schema_version": SCHEMA_VERSION, **origin.identity.to_dict(), "map_size": list(origin.map_size)}
        # safetensors metadata holds strings only, hence one JSON text under one key
        return {self.key: json.dumps(data | more | {"made_by": origin.made_by})}

    def read(
        self,
        path: str | Path,
        framework: str,
        make: Callable[[Origin, Mapping[str, Any], Any], T],
        lvlm: ModelInfo | None = None,
    ) -> T:
        """Returns what ``make`` makes of the file's origin, all fields of its metadata and the open safetensors file,
        whose arrays are of ``framework`` ("np" or "pt"). With ``lvlm`` the file must have been made for it.

        Raises:
            ArtifactError: as ``error``: unreadable, too large, damaged, without our metadata, or ``make`` raised a
                ValueError; the message names the file, says what is wrong and ends with ``advice``. Or it was made for
                another model; the message says what differs.
            TypeError, ValueError: ``path`` is no path, or an empty one.
        """
        path = arguments.path("path", path)
        try:
            with open_file(path) as opened:
                size = os.fstat(opened.fileno()).st_size
                refuse_pointer(opened.read(len(LFS_POINTER)))
            if size > self.max_bytes:
                raise ValueError(f"it is larger than {self.max_bytes >> 20} MiB, which no {self.what} needs")
            with safe_open(str(path), framework=framework) as file:
                fields = self._fields(file.metadata())
                origin = _origin(fields)
                made = make(origin, fields, file)
        except OSError as error:
            problem = f" cannot be read: {error.strerror or error}"
            raise self.error(f"{self.what} {path}{problem}. {self.advice}") from error
        except SafetensorError as error:
            problem = f" is damaged or no safetensors file ({str(error)[:200]})"
            raise self.error(f"{self.what} {path}{problem}. {self.advice}") from error
        except ValueError as error:
            raise self.error(f"{self.what} {path}: {error}. {self.advice}") from error
        difference = None if lvlm is None else origin.identity.mismatch(lvlm)
        if difference:
            raise self.error(
                f"this {self.what} does not fit: {difference}. A {self.what} serves one LVLM only: make one with "
                f"`acs-train build`, or use the selector {self.instead}"
            )
        return made

    def _fields(self, metadata: Mapping[str, str] | None) -> dict[str, Any]:
        text = (metadata or {}).get(self.key)
        if text is None:
            raise ValueError(f"it has no {self.key} metadata, so it is not one of ours")
        try:
            return parse_object(text.encode(), SCHEMA_VERSION)
        except ValueError as error:
            raise ValueError(f"its {self.key} metadata cannot be used: {error}") from error


def _origin(fields: Mapping[str, Any]) -> Origin:
    identity = ModelIdentity.from_dict(fields)
    size = fields.get("map_size")
    if (
        not isinstance(size, list)
        or len(size) != 2
        or not all(isinstance(v, int) and not isinstance(v, bool) and 1 <= v <= MAX_SIDE for v in size)
    ):
        raise ValueError(f'field "map_size" must be two whole numbers from 1 to {MAX_SIDE}, got {shorten(size)}')
    made_by = fields.get("made_by", "")
    if not isinstance(made_by, str):
        raise ValueError('field "made_by" must be a string')
    return Origin(identity, (size[0], size[1]), made_by)
