"""Reads boxes out of what a model wrote, however it wrote them. Nothing is evaluated, nothing raises.

One pass over the text, one token at a time: labels, other strings, numbers, brackets, words. Four numbers make a box
when they stand in brackets or after a box key (``bbox_2d``, ``x1`` ...), as ``[x1, y1, x2, y2]`` or as
``(x1, y1), (x2, y2)``; each number may be quoted. Numbers inside labels are not read, and whatever does not fit is
passed over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

# Every repetition is possessive or bounded (a label has at most 400 characters), so that each character is looked at a
# bounded number of times.
_TOKEN = re.compile(
    r"""
    (?P<q>["'])(?:label|name|category|class|object|description)(?P=q)\s{0,20}+:\s{0,20}+
        (?P=q)(?P<label>(?:(?!(?P=q))[^\\\n]|\\.|(?P=q)(?!\s{0,20}+(?:[,}\]]|\Z|\n))){0,400}+)(?P=q)
  | (?P<key>["']?\b(?:bbox(?:_2d)?|box(?:_2d)?|bounding_box|x_?1|y_?1|x_?2|y_?2|[xy]_?m(?:in|ax))\b["']?\s{0,20}+[:=])
  | (?P<n>["']?)(?<![\w.])(?P<number>[-+]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][-+]?+[0-9]++)?+(?![\w]))(?P=n)
  | (?P<string>"[^"\n\[\](){}]{0,400}+")
  | (?P<open>[\[(])
  | (?P<close>[\])])
  | (?P<brace>[{}])
  | (?P<gap>[\s,]++)
  | (?P<word>\w++)
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_POINT_KEY = re.compile(r"\b[xy]_?(?:[12]|m(?:in|ax))")

_ABSENT = re.compile(
    r"\b(?:no|not|none|cannot|can't|isn't|aren't|unable|without)\b[^.\n]{0,80}?"
    r"\b(?:visible|found|present|detected|see|any|instances?|objects?|there)\b"
    r"|\b(?:there|image)\b[^.\n]{0,40}?\b(?:is|are|contains?|has)\s+(?:no|not)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ParsedBox:
    """One box as written: its four numbers in order, where in the text each begins (its sign or first digit), and its
    label ("" if none). ``closed`` is False when the text ends right after the fourth number, which may be cut."""

    values: tuple[float, float, float, float]
    starts: tuple[int, int, int, int]
    label: str = ""
    closed: bool = True


def parse_response(text: str, max_boxes: int = 64) -> list[ParsedBox]:
    """The boxes in ``text`` in the order written, at most ``max_boxes``. Takes any text, in linear time."""
    reader = _Reader()
    for match in _TOKEN.finditer(text):
        reader.take(match, len(text))
        if len(reader.boxes) >= max_boxes:
            break
    return reader.boxes


def says_absent(text: str) -> bool:
    """Whether a response without boxes says that the object is not there: an empty list, or words to that effect."""
    bare = re.sub(r"```(?:json)?", "", text[:2000]).strip().strip(".").lower()
    if re.sub(r"\s", "", bare) in ("[]", "{}", "[{}]", "null", "none", "[null]", "()"):
        return True
    return "[]" in bare.replace(" ", "") or bool(_ABSENT.search(bare))


class _Reader:
    """Boxes found so far, and what the text around the present token allows."""

    def __init__(self) -> None:
        self.boxes: list[ParsedBox] = []
        self._numbers: list[tuple[float, int]] = []  # the group being read: values and where they begin
        self._anchored = False  # a bracket or a box key opened the group
        self._half = False  # the group is "(x1, y1)", closed; a bracket with its other half may follow
        self._first: list[tuple[float, int]] = []  # that half, while the bracket after it is read
        self._done = False  # the group gave its box; further numbers (a confidence) are passed over
        self._label = ""  # of the object being read, when it comes before the box
        self._object = 0  # index of its first box

    def take(self, match: re.Match[str], length: int) -> None:
        kind = match.lastgroup
        if kind == "number":
            self._number(float(match["number"]), match.start("number"), closed=match.end() < length)
        elif kind == "gap":
            return
        elif kind == "open":
            first = self._numbers if self._half else []
            self._reset(anchored=True)
            self._first = first
        elif kind == "close":
            self._close()
        elif kind == "key":
            if not (_POINT_KEY.search(match["key"]) and self._anchored and self._numbers):
                self._reset(anchored=True)
        elif kind == "label":
            self._name(match["label"])
        elif kind == "brace":
            self._reset()
            self._label, self._object = "", len(self.boxes)
        else:  # strings, words and signs between numbers break a group
            self._reset()

    def _number(self, value: float, start: int, closed: bool) -> None:
        if self._half:  # "(x1, y1) 3": no bracket, so nothing that completes it
            self._reset()
        if not self._anchored or self._done:
            return
        self._numbers.append((value, start))
        if len(self._numbers) == 4:
            self._add(self._numbers, closed)
            self._numbers, self._done = [], True

    def _close(self) -> None:
        numbers, first, pair = self._numbers, self._first, len(self._numbers) == 2 and not self._half
        self._reset()
        # "(x1, y1), (x2, y2)" is known to be a box only now: "(x, y) [x1, y1, x2, y2]" is a point and a box.
        if pair and first:
            self._add(first + numbers, closed=True)
        elif pair:
            self._numbers, self._half = numbers, True

    def _add(self, numbers: list[tuple[float, int]], closed: bool) -> None:
        (a, i), (b, j), (c, k), (d, m) = numbers
        self.boxes.append(ParsedBox((a, b, c, d), (i, j, k, m), self._label, closed))

    def _name(self, label: str) -> None:
        self._reset()
        self._label = label
        for i in range(self._object, len(self.boxes)):
            if not self.boxes[i].label:
                self.boxes[i] = replace(self.boxes[i], label=label)
        self._object = len(self.boxes)

    def _reset(self, anchored: bool = False) -> None:
        self._numbers, self._first = [], []
        self._anchored, self._half, self._done = anchored, False, False
