"""Head files: the attention heads that ACS-Free reads for each coordinate of one LVLM (paper section 4.4, appendix
F)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acs_core import arguments
from acs_core.artifacts.identity import ModelIdentity, ModelInfo
from acs_core.artifacts.json_io import number, read_object
from acs_core.errors import HeadFileError
from acs_core.output import write_text
from acs_core.plain_text import shorten
from acs_core.types import COORDINATES

SCHEMA_VERSION = 1
MAX_MADE_BY = 8000  # characters of free text
MAX_GAP = 50.0  # nats; the entropy of a map of n cells is at most log(n)


@dataclass(frozen=True)
class Head:
    """One attention head.

    Attributes:
        layer, head: 0-based indices.
        entropy_gap: Delta-H in nats (section 4.3): mean entropy of low-IoU minus high-IoU candidates; above 0 if low
            entropy indicates a good box. None if it was not measured.
    """

    layer: int
    head: int
    entropy_gap: float | None = None


@dataclass(frozen=True)
class HeadFile:
    """The discriminative heads D_c of one LVLM.

    Attributes:
        identity: the LVLM it was made for.
        kind: "heads" (selected individually by an entropy analysis) or "layers" (all heads of ``layers``).
        heads: one non-empty tuple of heads for each of x1, y1, x2, y2.
        layers: 0-based layers; not empty for kind "layers".
        made_by: how the file was made: command, data, thresholds.

    Raises:
        HeadFileError: a head is outside the model or listed twice, or a coordinate has no head.
    """

    identity: ModelIdentity
    kind: str
    heads: tuple[tuple[Head, ...], ...]
    layers: tuple[int, ...] = ()
    made_by: str = ""

    @property
    def map_size(self) -> None:
        """None: entropies are those of the model's own maps, whatever their size."""
        return None

    def __post_init__(self) -> None:
        if self.kind not in ("heads", "layers"):
            raise HeadFileError(f'field "kind" must be "heads" or "layers", got {shorten(self.kind)}')
        if len(self.heads) != len(COORDINATES):
            raise HeadFileError(f'field "heads" needs one list for each of {", ".join(COORDINATES)}')
        if self.kind == "layers" and not self.layers:
            raise HeadFileError('field "layers" must name at least one layer when "kind" is "layers"')
        if self.kind == "layers" and set(self.pairs()) != {_all_heads(self.layers, self.identity.num_heads)}:
            raise HeadFileError('field "heads" must hold every head of "layers" when "kind" is "layers"')
        for layer in self.layers:
            self._check_index("layers", "layer", layer, self.identity.num_layers)
        for coordinate, heads in zip(COORDINATES, self.heads, strict=True):
            where = f"heads.{coordinate}"
            if not heads:
                raise HeadFileError(f'field "{where}" lists no head')
            for head in heads:
                self._check_index(where, "layer", head.layer, self.identity.num_layers)
                self._check_index(where, "head", head.head, self.identity.num_heads)
            if len({(h.layer, h.head) for h in heads}) != len(heads):
                raise HeadFileError(f'field "{where}" lists a head twice')

    def _check_index(self, where: str, what: str, value: int, count: int) -> None:
        if not 0 <= value < count:
            raise HeadFileError(
                f'field "{where}": {what} {value} is outside the model, which has {what}s 0 to {count - 1}'
            )

    @classmethod
    def from_layers(cls, identity: ModelIdentity, layers: Sequence[int], made_by: str = "") -> HeadFile:
        """Return a file of kind "layers": every head of the given 0-based layers, for all four coordinates."""
        chosen = tuple(Head(*pair) for pair in _all_heads(layers, identity.num_heads))
        return cls(identity, "layers", (chosen,) * len(COORDINATES), tuple(layers), made_by)

    @classmethod
    def load(cls, path: str | Path) -> HeadFile:
        """Read and check a head file.

        Raises:
            HeadFileError: the file is unreadable, damaged, of another schema version, or has a wrong field; the message
                names it.
            TypeError: ``path`` is not a path.
            ValueError: ``path`` is empty.
        """
        path = arguments.path("path", path)
        try:
            data = read_object(path, SCHEMA_VERSION)
            return cls.from_dict(data)
        except (HeadFileError, ValueError) as error:
            raise HeadFileError(
                f"head file {path}: {error}. Build a new one with `acs-train build`, or pass another with heads=..."
            ) from error

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HeadFile:
        """Return the file that :meth:`to_dict` converted. For kind "layers", ``heads`` may be missing.

        Raises:
            HeadFileError, ValueError: a field is missing or wrong; the message names it.
        """
        identity = ModelIdentity.from_dict(data)
        made_by = data.get("made_by", "")
        if not isinstance(made_by, str) or len(made_by) > MAX_MADE_BY:
            raise HeadFileError(f'field "made_by" must be a string of at most {MAX_MADE_BY} characters')
        kind = data.get("kind")
        layers = tuple(_integer(v, "layers") for v in _list(data.get("layers", []), "layers", identity.num_layers))
        if kind == "layers" and "heads" not in data:
            return cls.from_layers(identity, layers, made_by)
        table = data.get("heads")
        if not isinstance(table, Mapping) or set(table) != set(COORDINATES):
            raise HeadFileError(f'field "heads" must be an object with exactly the keys {", ".join(COORDINATES)}')
        limit = identity.num_layers * identity.num_heads
        heads = tuple(
            tuple(_head(entry, f"heads.{c}[{i}]") for i, entry in enumerate(_list(table[c], f"heads.{c}", limit)))
            for c in COORDINATES
        )
        return cls(identity, kind if isinstance(kind, str) else shorten(kind), heads, layers, made_by)

    def to_dict(self) -> dict[str, Any]:
        """Return the file as JSON values. For kind "layers", ``heads`` is left out unless their entropy gaps are
        known."""
        data: dict[str, Any] = {"schema_version": SCHEMA_VERSION, **self.identity.to_dict(), "kind": self.kind}
        data |= {"made_by": self.made_by, "layers": list(self.layers)}
        if self.kind == "heads" or any(h.entropy_gap is not None for heads in self.heads for h in heads):
            data["heads"] = {
                c: [{"layer": h.layer, "head": h.head, "entropy_gap": h.entropy_gap} for h in heads]
                for c, heads in zip(COORDINATES, self.heads, strict=True)
            }
        return data

    def save(self, path: str | Path) -> None:
        """Write the file as indented JSON, atomically.

        Raises:
            OSError: the file cannot be written.
        """
        write_text(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")

    def check(self, lvlm: ModelInfo) -> None:
        """Check that the file was made for ``lvlm``.

        Files of kind "heads" were measured on one set of weights, so a model with another hub id is refused. Files of
        kind "layers" are valid for all models of the same family and attention shape; another name is only logged.

        Raises:
            HeadFileError: it was not; the message says what differs.
        """
        problem = self.identity.mismatch(lvlm, any_weights=self.kind == "layers")
        if problem:
            raise HeadFileError(
                f"this head file does not fit: {problem}. Use the head file of that model, or build one with "
                "`acs-train build`"
            )

    def pairs(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Return the ``(layer, head)`` pairs of each coordinate, as :class:`acs_core.attention.AttentionNeeds` takes
        them."""
        return tuple(tuple((h.layer, h.head) for h in heads) for heads in self.heads)


def _all_heads(layers: Sequence[int], num_heads: int) -> tuple[tuple[int, int], ...]:
    return tuple((layer, head) for layer in layers for head in range(num_heads))


def _list(value: Any, where: str, limit: int) -> list[Any]:
    if not isinstance(value, list):
        raise HeadFileError(f'field "{where}" must be a list, got {shorten(value)}')
    if len(value) > limit:
        raise HeadFileError(f'field "{where}" has {len(value)} entries, the model allows at most {limit}')
    return value


def _integer(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise HeadFileError(f'field "{where}" must hold whole numbers, got {shorten(value)}')
    return value


def _head(entry: Any, where: str) -> Head:
    if not isinstance(entry, Mapping):
        raise HeadFileError(f'field "{where}" must be an object with layer, head and entropy_gap, got {shorten(entry)}')
    layer = _integer(entry.get("layer"), f"{where}.layer")
    head = _integer(entry.get("head"), f"{where}.head")
    gap = None if entry.get("entropy_gap") is None else number(entry, "entropy_gap", f"{where}: ")
    if gap is not None and abs(gap) > MAX_GAP:
        raise HeadFileError(f'field "{where}.entropy_gap" is {gap:g} nats, entropies differ by at most {MAX_GAP:g}')
    return Head(layer, head, gap)
