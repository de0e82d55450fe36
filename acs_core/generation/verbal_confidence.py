"""Confidences that a model writes beside its boxes, in words of its own: ``"confidence": 0.9``, ``score=85%``, or as a
fifth number after the box.

The prompt does not ask for them (paper appendix D), but some models write them. They are what the model says, not what
it computed, and known to be too high.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_KEYED = re.compile(
    r"""
    \b(?:confidence|score|probability|certainty|conf)(?:[ _](?:score|level))?["']?
    \s{0,8}+(?:[:=]|\bis\b)\s{0,8}+["']?
    (?P<number>[0-9]{1,3}+(?:\.[0-9]{1,12}+)?+|\.[0-9]{1,12}+)\s?(?P<percent>%)?(?![0-9A-Za-z]|\.[0-9]|\s?/)
    """,
    re.IGNORECASE | re.VERBOSE,
)
# "[x1, y1, x2, y2, 0.9]": after the fourth number, whose first digit is where the search begins.
_FIFTH = re.compile(
    r"""
    [0-9.]++["']?\s{0,8}+,\s{0,8}+["']?
    (?P<number>0?\.[0-9]{1,12}+|[01](?:\.[0-9]{1,12}+)?+)["']?\s{0,8}+[\])]
    """,
    re.VERBOSE,
)
_REACH = 120  # characters between a box and its confidence, outside of braces


@dataclass(frozen=True)
class BoxPlace:
    """Place of a box in a response: index of the first character of its first and of its last number."""

    first: int
    last: int


def stated_confidences(text: str, boxes: Sequence[BoxPlace]) -> list[float | None]:
    """Return the confidence that ``text`` states for each of ``boxes``, in [0, 1]; None where it states none.

    A confidence with a key belongs to the box in the same braces; outside of braces, to the nearest box before it. A
    number above 1 is read as a percentage if it is at most 100. A box with two confidences keeps the first.

    Args:
        text: the response.
        boxes: places of its boxes, in the order of the text.
    """
    found: list[float | None] = [None] * len(boxes)
    if not boxes:
        return found
    for i, box in enumerate(boxes):
        fifth = _FIFTH.match(text, box.last)
        if fifth:
            found[i] = _share(fifth["number"], None)
    for match in _KEYED.finditer(text):
        value = _share(match["number"], match["percent"])
        owner = _owner(text, match.start(), boxes)
        if value is not None and owner is not None and found[owner] is None:
            found[owner] = value
    return found


def _share(number: str, percent: str | None) -> float | None:
    value = float(number)
    value = value / 100 if percent or value > 1 else value
    return value if value <= 1 else None


def _owner(text: str, place: int, boxes: Sequence[BoxPlace]) -> int | None:
    """Return the index of the box that a confidence at ``place`` belongs to; None if there is no such box."""
    start, end = text.rfind("{", 0, place), text.find("}", place)
    if start > text.rfind("}", 0, place) and end >= 0:
        return next((i for i, box in enumerate(boxes) if start < box.first and box.last < end), None)
    before = [i for i, box in enumerate(boxes) if box.last < place]
    return before[-1] if before and place - boxes[before[-1]].last <= _REACH else None
