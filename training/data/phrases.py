"""Phrases that name the objects of an image: their category, with a colour where objects of a category differ in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Protocol, TypeVar


class Named(Protocol):
    """Object with the name of its category, and its colour, "" if unknown."""

    @property
    def name(self) -> str:
        """Category."""

    @property
    def colour(self) -> str:
        """Colour."""


T = TypeVar("T", bound=Named)


def coloured(colour: str, name: str) -> str:
    """Return the phrase for objects of one colour, such as "red cup"."""
    return f"{colour} {name}"


def by_phrase(objects: Iterable[T]) -> dict[str, list[T]]:
    """Return the objects that each phrase names, in their order.

    The name of a category names all its objects. If the colours of all of them are known and differ, each colour gives
    another phrase, such as "red cup".
    """
    named: dict[str, list[T]] = defaultdict(list)
    for o in objects:
        named[o.name].append(o)
    phrases = dict(named)
    for name, found in named.items():
        colours = {o.colour for o in found}
        if len(colours) > 1 and "" not in colours:
            for o in found:
                phrases.setdefault(coloured(o.colour, name), []).append(o)
    return phrases
