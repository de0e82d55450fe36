"""Which LVLM a head file, regressor or calibration belongs to, and whether a loaded LVLM is that one."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Protocol

from acs_core.jsonfile import shorten

log = logging.getLogger(__name__)

MAX_COUNT = 512  # layers, or heads per layer: far above any LVLM, small enough that no file can ask for gigabytes
MAX_NAME = 500  # characters of a model's name or revision: they are repeated in messages and logs
FINGERPRINT_DIGITS = 16


class ModelLike(Protocol):
    """The facts about a loaded LVLM that its files are checked against; ``acs_core.lvlm.base.LVLM`` has them all."""

    @property
    def name(self) -> str:
        """Hub id or folder, as given."""

    @property
    def family(self) -> str:
        """``internvl`` or ``qwen2_5_vl``."""

    @property
    def revision(self) -> str | None:
        """Resolved commit, None for a folder."""

    @property
    def num_layers(self) -> int:
        """Layers L of the language model."""

    @property
    def num_heads(self) -> int:
        """Query heads K per layer."""


@dataclass(frozen=True)
class ModelIdentity:
    """The LVLM a file was made for: hub id or folder name, family, resolved revision (None: not known), and the
    language model's number of layers L and attention heads per layer K."""

    model: str
    family: str
    num_layers: int
    num_heads: int
    revision: str | None = None

    @classmethod
    def of(cls, lvlm: ModelLike) -> ModelIdentity:
        """The identity of a loaded LVLM, to write into a new file. A folder is named by its last part."""
        name = lvlm.name if _is_hub_id(lvlm.name) else _short(lvlm.name)
        return cls(name, lvlm.family, lvlm.num_layers, lvlm.num_heads, lvlm.revision)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelIdentity:
        """Reads the five fields; other keys are ignored.

        Raises:
            ValueError: a field is missing or of the wrong type; the message names it.
        """
        texts = {}
        for key in ("model", "family"):
            value = data.get(key)
            if not isinstance(value, str) or not value or len(value) > MAX_NAME or not value.isprintable():
                raise ValueError(f'field "{key}" must be a name of 1 to {MAX_NAME} characters, got {shorten(value)}')
            texts[key] = value
        counts = {}
        for key in ("num_layers", "num_heads"):
            value = data.get(key)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_COUNT:
                raise ValueError(f'field "{key}" must be a whole number from 1 to {MAX_COUNT}, got {shorten(value)}')
            counts[key] = value
        revision = data.get("revision")
        if revision is not None and not (
            isinstance(revision, str) and len(revision) <= MAX_NAME and revision.isprintable()
        ):
            raise ValueError(f'field "revision" must be a string or null, got {shorten(revision)}')
        return cls(texts["model"], texts["family"], counts["num_layers"], counts["num_heads"], revision)

    def to_dict(self) -> dict[str, Any]:
        """The five fields as JSON values."""
        return {
            "model": self.model,
            "family": self.family,
            "revision": self.revision,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
        }

    def mismatch(self, lvlm: ModelLike, any_weights: bool = False) -> str | None:
        """Why this is not the identity of ``lvlm``, as one sentence part, or None where it fits.

        Family and attention shape must be equal, and so must the names where both are hub ids. A local folder may
        be called anything, so a differing folder name or revision is only logged as a warning. With ``any_weights``
        the file speaks of an architecture, and a differing hub id is only logged too.
        """
        if self.family != lvlm.family:
            return f"it was made for the family {self.family}, the loaded model {lvlm.name} is {lvlm.family}"
        mine, theirs = (self.num_layers, self.num_heads), (lvlm.num_layers, lvlm.num_heads)
        if mine != theirs:
            return (
                f"it was made for {self.model} with {mine[0]} layers x {mine[1]} heads, "
                f"the loaded model {lvlm.name} has {theirs[0]} x {theirs[1]}"
            )
        if not self.same_name(lvlm):
            if not any_weights and _is_hub_id(self.model) and _is_hub_id(lvlm.name):
                return f"it was made for {self.model}, the loaded model is {lvlm.name}"
            log.warning("a file made for %s is used with %s: same shape, another name", self.model, lvlm.name)
        elif self.revision and lvlm.revision and self.revision != lvlm.revision:
            log.warning(
                "a file made for revision %s of %s is used with revision %s", self.revision, self.model, lvlm.revision
            )
        return None

    def same_name(self, lvlm: ModelLike) -> bool:
        """Whether the last part of both names is the same, whatever its case."""
        return _short(self.model).lower() == _short(lvlm.name).lower()


def weights_fingerprint(lvlm: ModelLike) -> str:
    """Tells two LVLMs of the same name apart by their weights.

    For a folder the first 16 hex digits of a SHA-256 over its ``config.json`` and its ``model*.safetensors``, with
    their names, sorted; whether other files lie beside them, a regressor say, makes no difference. For a hub id the
    resolved revision. "" where neither is known: compare only two that are not empty. All weights of the folder are
    read from disk.

    Raises:
        OSError: a file of the folder cannot be read.
    """
    folder = Path(lvlm.name)
    weights = sorted(folder.glob("model*.safetensors"))
    if not folder.is_dir() or not weights:
        return lvlm.revision or ""
    total = hashlib.sha256()
    for path in [folder / "config.json", *weights]:
        if path.is_file():
            with path.open("rb") as file:
                # One digest per file, so that bytes cannot move from the end of one file to the start of the next.
                content = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{path.name}\0{content}\0".encode())
    return total.hexdigest()[:FINGERPRINT_DIGITS]


def _short(name: str) -> str:
    return PurePath(name).name or name


def _is_hub_id(name: str) -> bool:
    looks = name.count("/") == 1 and not name.startswith(("/", ".", "~")) and not name.endswith("/")
    return looks and not Path(name).is_dir()  # "out/run1" may be either
