"""Parameter files of ROS 2: the nodes that a file names, and what it holds for one of them.

rcl takes from a file what is for the node and ignores the rest without a word. Files are read here to name what is
wrong with one in a line, and to tell the names meant for this node from those that it shares with others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from acs_core.artifacts.json_io import Limits, read_bytes
from acs_core.plain_text import join_some, nearest, one_line, shorten

LIMITS = Limits(2**20, 20_000)
MAX_DEPTH = 20
MAX_WHY = 300  # characters of what the YAML parser says
PARAMETERS = "ros__parameters"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
LAUNCH_MADE = "launch_params_"  # how launch_ros names the files of the values that a launch file gives directly


@dataclass(frozen=True)
class ParameterSection:
    """Parameters of a file for one node or pattern.

    Attributes:
        node: Full name of the node, or a pattern: ``*`` stands for one part of a name and ``**`` for any number.
        values: The values by name; names of nested mappings are joined by dots.
    """

    node: str
    values: Mapping[str, Any]

    def applies_to(self, node: str) -> bool:
        """Whether rcl gives the values to the node of the full name ``node``."""
        parts = re.split(r"(/\*\*|/\*)", self.node)
        wild = {"/**": r"(/\w+)*", "/*": r"(/\w+)"}
        return re.fullmatch("".join(wild.get(part, re.escape(part)) for part in parts), node) is not None

    @property
    def is_shared(self) -> bool:
        """Whether nodes of several names may be meant."""
        return self.node.rpartition("/")[2] in ("*", "**")


@dataclass(frozen=True)
class ParameterFile:
    """A parameter file. ``sections`` are in the order in which later values replace earlier ones."""

    path: Path
    sections: tuple[ParameterSection, ...]

    @classmethod
    def read(cls, path: Path) -> ParameterFile:
        """Read ``path``.

        Raises:
            ValueError: there is no such file, or it is no parameter file; names the file and what is wrong.
        """
        if not path.exists():
            raise ValueError(f"there is no parameter file {path}")
        try:
            found: dict[str, dict[str, Any]] = {}
            for document in _documents(read_bytes(path, LIMITS)):
                for node, values in _sections(document, ""):
                    found.setdefault(node, {}).update(_flat(values, ""))
        except (ValueError, yaml.YAMLError, RecursionError) as error:
            raise ValueError(f"{path} is no parameter file: {one_line(str(error), MAX_WHY)}") from error
        return cls(path, tuple(ParameterSection(node, values) for node, values in found.items()))

    @property
    def is_launch_made(self) -> bool:
        """Whether launch_ros wrote the file, for values that a launch file gives directly."""
        return self.path.name.startswith(LAUNCH_MADE)

    def of(self, node: str) -> tuple[ParameterSection, ...]:
        """The sections for the node of the full name ``node``."""
        return tuple(section for section in self.sections if section.applies_to(node))

    def values_for(self, node: str) -> dict[str, Any]:
        """The values for the node of the full name ``node``."""
        return {name: value for section in self.of(node) for name, value in section.values.items()}

    def problem_for(self, node: str) -> str:
        """Message if nothing in the file is for the node of the full name ``node``, with the names that it has; else
        ""."""
        if self.of(node):
            return ""
        names = [section.node for section in self.sections]
        near = nearest(node, names)
        others = [near, *(name for name in names if name != near)] if near else names
        return f"nothing in {self.path} is for {node}; it names {join_some(others) or 'no node'}"


def full_name(node: str) -> str:
    """``node`` with a leading slash."""
    return node if node.startswith("/") else f"/{node}"


def _documents(raw: bytes) -> Iterator[Any]:
    """The documents of YAML without aliases, with which a few lines can expand to billions of values."""
    text = raw.decode()
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=LOADER)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(
                f"line {event.start_mark.line + 1} has an alias (*{event.anchor}), which ROS does not read"
            )
        if depth > MAX_DEPTH or count > LIMITS.max_values:
            raise ValueError(f"it holds more than {LIMITS.max_values:,} values, or {MAX_DEPTH} in one another")
    yield from yaml.load_all(text, Loader=LOADER)


def _sections(value: Any, node: str) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Each node's full name or pattern, and its parameters, of the mapping ``value`` below the key ``node``."""
    if value is None and not node:
        return
    if not isinstance(value, Mapping):
        where = shorten(node.lstrip("/")) if node else shorten(value)
        raise ValueError(f"{where} is neither the name of a node with {PARAMETERS} nor a namespace")
    for key, inner in value.items():
        if key == PARAMETERS and node:
            if not isinstance(inner, Mapping):
                raise ValueError(f"{PARAMETERS} of {shorten(node)} must hold names with values")
            yield node, inner
        else:
            part = str(key).strip("/")
            yield from _sections(inner, f"{node}/{part}" if part else node)


def _flat(values: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
