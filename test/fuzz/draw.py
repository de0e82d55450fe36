"""Decisions of a case, drawn from its bytes, and the mutations that are made of them.

A case is a byte string. What it decides is read from its first bytes, so that a coverage-guided engine can change one
decision and keep the others; when they are used up, a generator seeded by the whole case goes on. A case is therefore
the same wherever it runs.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")

NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 255, 256, 1000, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64, -(2**63), 10**400),
    *(0.5, -0.0, 1e-9, 5e-324, 1e9, 1e308, float("inf"), float("-inf"), float("nan")),
)
TEXTS = (
    *("", " ", "\x00", "\ud800", "\u202e", "\u200b", "\ufeff", "\U000e0041", "e\u0301", "鍵", "🔑", "\r\n", ";"),
    *("<|im_end|>", "<|im_start|>", "<IMG_CONTEXT>", "<|image_pad|>", "<|vision_start|>", "<image>", "{{ 7 }}"),
    *("../../etc/passwd", "/dev/zero", "a/" * 300, "a" * 5000, '"}], [{"bbox_2d": [0, 0, 1, 1]', "%s%n", "{0}", "NaN"),
)


class FuzzedData:
    """Reads decisions from ``case``."""

    def __init__(self, case: bytes) -> None:
        self._case, self._at = case, 0
        self._later: random.Random | None = None

    def _next(self, count: int) -> int:
        if self._at + count <= len(self._case):
            value = int.from_bytes(self._case[self._at : self._at + count], "little")
            self._at += count
            return value
        if self._later is None:
            self._later = random.Random(self._case)
        return self._later.getrandbits(8 * count)

    def integer(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``."""
        span = high - low + 1
        return low + self._next(max(1, ((span - 1).bit_length() + 7) // 8)) % span

    def pick(self, choices: Sequence[T]) -> T:
        """One of ``choices``."""
        return choices[self.integer(0, len(choices) - 1)]

    def chance(self, one_in: int) -> bool:
        """True once in ``one_in`` times."""
        return self.integer(1, one_in) == one_in

    def raw(self, most: int) -> bytes:
        """Up to ``most`` bytes, as they come."""
        length = self.integer(0, most)
        return self._next(length).to_bytes(length, "little") if length else b""

    def text(self, most: int = 40) -> str:
        """A text of pieces that have caused trouble somewhere, and of arbitrary characters."""
        if self.chance(2):
            return "".join(self.pick(TEXTS) for _ in range(self.integer(0, 4)))
        return self.raw(most).decode("utf-8", "replace")

    def value(self, depth: int = 2) -> Any:
        """Any JSON value, and numbers that JSON has no words for."""
        kind = self.integer(0, 8)
        if kind <= 2:
            return self.pick(NUMBERS)
        if kind == 3:
            return self.integer(-5, 2000)
        if kind == 4:
            return self.text()
        if kind == 5:
            return self.pick((None, True, False))
        if kind == 6:
            return nested(self.pick((3, 50, 900, 970, 990, 2000)))
        if depth and kind == 7:
            return [self.value(depth - 1) for _ in range(self.integer(0, 4))]
        return {self.text(8): self.value(depth - 1) for _ in range(self.integer(0, 3))} if depth else []


def nested(depth: int) -> list[Any]:
    """``[[[...]]]``."""
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


def change_json(draw: FuzzedData, data: Any, changes: int) -> Any:
    """``data`` with ``changes`` fields anywhere in it removed, replaced, doubled or swapped; it is changed in place."""
    for _ in range(changes):
        places = _places(data)
        if not places:
            return data
        where, key = draw.pick(places)
        action = draw.integer(0, 5)
        if action == 0:
            del where[key]
        elif action == 1 and isinstance(where, list):
            where.insert(key, where[key])
        elif action == 2:
            other, other_key = draw.pick(places)
            where[key] = other[other_key] if other_key in _keys(other) and other[other_key] is not where else None
        elif action == 3 and isinstance(where, dict):
            where[draw.text(8)] = draw.value()
        elif action == 4 and isinstance(where[key], int | float) and not isinstance(where[key], bool):
            old = where[key]
            half = old / 2 if abs(old) < 2**60 else 0
            where[key] = draw.pick((-old, old + 1, old * 1000, str(old)[:50], half))
        else:
            where[key] = draw.value()
    return data


def _keys(container: Any) -> Any:
    return range(len(container)) if isinstance(container, list) else container


def _places(data: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) below ``data``, not deeper than a few levels and not more than some hundred."""
    found: list[tuple[Any, Any]] = []
    level = [data]
    for _ in range(5):
        below = []
        for container in level:
            if isinstance(container, list | dict):
                for key in list(_keys(container))[:100]:
                    found.append((container, key))
                    below.append(container[key])
        level = below[:200]
    return found


def change_bytes(draw: FuzzedData, data: bytes, changes: int) -> bytes:
    """``data`` with ``changes`` bits flipped, pieces cut, doubled, overwritten or inserted."""
    made = bytearray(data)
    for _ in range(changes):
        size = len(made)
        at, length = draw.integer(0, size), draw.integer(0, 16)
        action = draw.integer(0, 6)
        if action == 0 and at < size:
            made[at] ^= 1 << draw.integer(0, 7)
        elif action == 1:
            del made[at : at + length]
        elif action == 2:
            made[at:at] = made[at : at + length] * draw.integer(1, 4)
        elif action == 3:
            made[at : at + length] = draw.raw(16)
        elif action == 4:
            made[at : at + 4] = draw.pick((0, 1, 255, 2**16, 2**31, 2**32 - 1)).to_bytes(
                4, draw.pick(("big", "little"))
            )
        elif action == 5:
            del made[at:]
        else:
            made[at:at] = draw.raw(16)
    return bytes(made)
