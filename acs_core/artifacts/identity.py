"""Identity of the LVLM that a head file, regressor or calibration belongs to, and its comparison with a loaded LVLM."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePath
from typing import Any, Protocol

from acs_core.arguments import set_fields, text, whole
from acs_core.plain_text import shorten

log = logging.getLogger(__name__)

MAX_COUNT = 512  # of layers, or heads per layer: far above any LVLM, but bounds the memory that a file can claim
MAX_WIDTH = 1_000_000  # of hidden states
MAX_NAME = 500  # characters of a model's name or revision, which appear in messages and logs
FINGERPRINT_DIGITS = 16


class ModelInfo(Protocol):
    """Properties of a loaded LVLM that its files are checked against; part of :class:`acs_core.lvlm.base.LVLM`."""

    @property
    def name(self) -> str:
        """Hub id or folder, as given."""

    @property
    def family(self) -> str:
        """Name of the family (``model_type`` of ``config.json``), for example ``internvl``."""

    @property
    def revision(self) -> str | None:
        """Resolved commit; None for a folder."""

    @property
    def num_layers(self) -> int:
        """Number of layers L of the language model."""

    @property
    def num_heads(self) -> int:
        """Number of query heads K per layer."""

    @property
    def hidden_size(self) -> int | None:
        """Width of the language model's hidden states; None if it is unknown."""


@dataclass(frozen=True)
class ModelIdentity:
    """Identity of the LVLM that a file was made for.

    Attributes:
        model: hub id or folder name.
        family: name of the model family.
        num_layers: number of layers L of the language model, 1 to 512.
        num_heads: number of attention heads K per layer, 1 to 512.
        revision: resolved commit; None if unknown.
        hidden_size: width of the language model's hidden states, 1 to 1,000,000; it tells apart models with the same
            number of layers and heads. None if unknown, as in files of earlier versions.

    Raises:
        TypeError: a field has the wrong type.
        ValueError: a name is empty or too long, or a number is out of range.
    """

    model: str
    family: str
    num_layers: int
    num_heads: int
    revision: str | None = None
    hidden_size: int | None = None

    def __post_init__(self) -> None:
        checked: dict[str, object] = {
            name: whole(name, getattr(self, name), 1, MAX_COUNT) for name in ("num_layers", "num_heads")
        }
        if self.hidden_size is not None:
            checked["hidden_size"] = whole("hidden_size", self.hidden_size, 1, MAX_WIDTH)
        checked |= {name: text(name, getattr(self, name), MAX_NAME) for name in ("model", "family")}
        if self.revision:  # older files have "" instead of None
            text("revision", self.revision, MAX_NAME)
        set_fields(self, checked)

    @classmethod
    def of(cls, lvlm: ModelInfo) -> ModelIdentity:
        """Return the identity of a loaded LVLM; a folder is named by the last part of its path."""
        name = lvlm.name if _is_hub_id(lvlm.name) else _short(lvlm.name)
        return cls(name, lvlm.family, lvlm.num_layers, lvlm.num_heads, lvlm.revision, lvlm.hidden_size)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelIdentity:
        """Read the six fields from JSON values; other keys are ignored, and ``hidden_size`` may be missing.

        Raises:
            ValueError: a field is missing or wrong; the message names it.
        """
        texts = {}
        for key in ("model", "family"):
            value = data.get(key)
            if not isinstance(value, str) or not value or len(value) > MAX_NAME or not value.isprintable():
                raise ValueError(f'field "{key}" must be a name of 1 to {MAX_NAME} characters, got {shorten(value)}')
            texts[key] = value
        counts = {}
        for key, most in (("num_layers", MAX_COUNT), ("num_heads", MAX_COUNT), ("hidden_size", MAX_WIDTH)):
            value = data.get(key)
            if key == "hidden_size" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                raise ValueError(f'field "{key}" must be a whole number from 1 to {most}, got {shorten(value)}')
            counts[key] = value
        revision = data.get("revision")
        if revision is not None and not (
            isinstance(revision, str) and len(revision) <= MAX_NAME and revision.isprintable()
        ):
            raise ValueError(f'field "revision" must be a string or null, got {shorten(revision)}')
        layers, heads, width = counts["num_layers"], counts["num_heads"], counts.get("hidden_size")
        return cls(texts["model"], texts["family"], layers, heads, revision, width)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, without an unknown ``hidden_size``."""
        data = {
            "model": self.model,
            "family": self.family,
            "revision": self.revision,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
        }
        return data if self.hidden_size is None else data | {"hidden_size": self.hidden_size}

    def mismatch(self, lvlm: ModelInfo, any_weights: bool = False) -> str | None:
        """Return why this is not the identity of ``lvlm``, as part of a sentence; None if it matches.

        Family, attention shape and hidden size must be equal, as far as they are known, and so must the names if both
        are hub ids. The name of a local folder is arbitrary, so a different folder name or revision is only logged as a
        warning. With ``any_weights`` the file belongs to an architecture, and a different hub id is only logged, too.
        """
        if self.family != lvlm.family:
            return f"it was made for the family {self.family}, the model {lvlm.name} is {lvlm.family}"
        mine, theirs = (self.num_layers, self.num_heads), (lvlm.num_layers, lvlm.num_heads)
        if mine != theirs:
            return (
                f"it was made for {self.model} with {mine[0]} layers x {mine[1]} heads, "
                f"the model {lvlm.name} has {theirs[0]} x {theirs[1]}"
            )
        if not self._same_width(lvlm):
            return (
                f"it was made for {self.model} with hidden states of {self.hidden_size} numbers, the model "
                f"{lvlm.name} has as many layers and heads but {lvlm.hidden_size} numbers"
            )
        if not self.same_name(lvlm):
            if not any_weights and _is_hub_id(self.model) and _is_hub_id(lvlm.name):
                return f"it was made for {self.model}, the model is {lvlm.name}"
            _warn_once(f"a file made for {self.model} is used with {lvlm.name}: same shape, another name")
        elif self.revision and lvlm.revision and self.revision != lvlm.revision:
            _warn_once(
                f"a file made for revision {self.revision} of {self.model} is used with revision {lvlm.revision}"
            )
        return None

    def is_same(self, other: ModelIdentity) -> bool:
        """Return whether both are of one model at one revision; an unknown hidden size is equal to any."""
        return self._same_width(other) and replace(self, hidden_size=None) == replace(other, hidden_size=None)

    def same_shape(self, lvlm: ModelInfo | ModelIdentity) -> bool:
        """Return whether family, numbers of layers and heads, and the hidden sizes, where both are known, are equal."""
        mine = (self.family, self.num_layers, self.num_heads)
        return mine == (lvlm.family, lvlm.num_layers, lvlm.num_heads) and self._same_width(lvlm)

    def _same_width(self, other: ModelInfo | ModelIdentity) -> bool:
        return not self.hidden_size or not other.hidden_size or self.hidden_size == other.hidden_size

    def same_name(self, lvlm: ModelInfo) -> bool:
        """Return whether the last parts of both names are equal, ignoring case."""
        return _short(self.model).lower() == _short(lvlm.name).lower()


def weights_fingerprint(lvlm: ModelInfo) -> str:
    """Return a fingerprint of the weights, to distinguish LVLMs of the same name.

    For a folder, the first 16 hex digits of a SHA-256 over the names and contents of its ``config.json`` and
    ``model*.safetensors``; other files do not matter. All weights are read from disk. For a hub id, the resolved
    revision.

    Returns:
        The fingerprint; "" if it is unknown. Compare only fingerprints that are not empty.

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
                # One digest per file, so that moving bytes from one file to the next changes the sum.
                content = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{path.name}\0{content}\0".encode())
    return total.hexdigest()[:FINGERPRINT_DIGITS]


def _short(name: str) -> str:
    return PurePath(name).name or name


def _is_hub_id(name: str) -> bool:
    looks = name.count("/") == 1 and not name.startswith(("/", ".", "~")) and not name.endswith("/")
    return looks and not Path(name).is_dir()  # "out/run1" may be a folder


@cache
def _warn_once(text: str) -> None:
    """Log a warning the first time that this process has it to say: several files of a model, and several checks of
    each, have the same cause."""
    log.warning("%s", text)
