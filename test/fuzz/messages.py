"""Senseless values of valid types for any ROS message, made from its definition."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from typing import Any

from rosidl_parser.definition import (
    AbstractGenericString,
    AbstractNestedType,
    Array,
    BasicType,
    BoundedSequence,
    NamespacedType,
)

from fuzz.draw import TEXTS
from fuzz.types import class_of

INTEGERS = {f"{sign}int{bits}": (sign, bits) for sign in ("", "u") for bits in (8, 16, 32, 64)}
FLOATS = (0.0, -0.0, 0.5, 1.0, -1.0, 1e-9, 5e-324, 1e9, 3e38, 1e308, float("inf"), float("-inf"), float("nan"))
LENGTHS = (0, 0, 1, 1, 2, 3, 17)  # of sequences
BYTES = (0, 1, 12, 900, 921_600)  # of sequences of bytes: pictures are such
PLAIN = 0.5  # share of fields that get a value with a meaning


class MessageMaker:
    """Fills messages with values drawn by ``rng``.

    Args:
        rng: Source of all decisions; the same state makes the same messages.
        words: Texts with a meaning to the receiver (names, encodings, phrases), drawn about half of the time.
    """

    def __init__(self, rng: random.Random, words: Sequence[str]) -> None:
        self._rng, self._words = rng, tuple(words)
        self._ids = [bytes(rng.randrange(256) for _ in range(16)) for _ in range(4)]

    def make(self, kind: Any) -> Any:
        """A message of the class ``kind`` with every field set."""
        message = kind()
        for name, slot in zip(kind.get_fields_and_field_types(), kind.SLOT_TYPES, strict=True):
            setattr(message, name, self._value(slot))
        return message

    def _value(self, slot: Any) -> Any:
        if isinstance(slot, NamespacedType):
            return self.make(class_of("/".join(slot.namespaced_name())))
        if isinstance(slot, AbstractGenericString):
            return self._text()
        if isinstance(slot, BasicType):
            return self._number(slot.typename)
        if isinstance(slot, AbstractNestedType):
            return self._several(slot)
        raise TypeError(f"no values for fields of type {type(slot).__name__}: add them here")

    def _several(self, slot: AbstractNestedType) -> Any:
        inner, rng = slot.value_type, self._rng
        typename = inner.typename if isinstance(inner, BasicType) else ""
        small = typename in ("uint8", "octet", "int8", "char")
        if isinstance(slot, Array):
            if small and slot.size == 16:  # a goal's id: cancelling and asking for results must meet goals
                return list(rng.choice(self._ids))
            return [self._value(inner) for _ in range(slot.size)]
        count = rng.choice(BYTES if small else LENGTHS)
        if isinstance(slot, BoundedSequence):
            count = min(count, slot.maximum_size)
        if small and count > max(LENGTHS):
            return self._bytes(typename, count)
        return [self._value(inner) for _ in range(count)]

    def _bytes(self, typename: str, count: int) -> Any:
        made = self._rng.randbytes(count)
        if typename == "octet":
            return [made[k : k + 1] for k in range(count)]
        return struct.unpack(f"{count}b", made) if typename == "int8" else made

    def _text(self) -> str:
        rng = self._rng
        if self._words and rng.random() < PLAIN:
            return rng.choice(self._words)
        text = rng.choice(TEXTS) if rng.random() < 0.8 else rng.choice(self._words or TEXTS) + rng.choice(TEXTS)
        # A lone surrogate cannot be sent, so that a message with one is lost.
        return text if rng.random() < 0.02 else text.replace("\ud800", "?")

    def _number(self, typename: str) -> Any:
        rng = self._rng
        if typename == "boolean":
            return rng.random() < 0.5
        if typename == "octet":
            return bytes([rng.randrange(256)])
        if typename in ("float", "double", "long double"):
            return rng.choice(FLOATS) if rng.random() < PLAIN else rng.uniform(0, 2)
        sign, bits = INTEGERS["uint8" if typename in ("char", "wchar") else typename]
        low, high = (0, 2**bits - 1) if sign == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        if rng.random() < PLAIN:
            return rng.randrange(12)
        return rng.choice((low, high, high // 2 + 1, 200 if high >= 200 else 100, rng.randint(low, high)))
