"""Checks of function arguments: each returns the value in its plain Python type.

All but :func:`clean_phrase` and :func:`split_text` raise TypeError for a value of a wrong type and ValueError for a
wrong value. The message names the argument, says what is allowed, and quotes the given value, shortened. NumPy's
integers, floats and bools are accepted like Python's.
"""

from __future__ import annotations

import difflib
import math
import numbers
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from acs_core.errors import PhraseError
from acs_core.plain_text import JOINERS, shorten

MAX_PHRASE_CHARS = 200  # enough to name an object
_VISIBLE = "LNPS"  # Unicode major categories: letters, numbers, punctuation, symbols

T = TypeVar("T")
MAX_SEED = 2**63 - 1  # of a torch generator
MAX_NUMPY_SEED = 2**32 - 1  # of numpy's and scikit-learn's generators
MAX_COUNT = 2**31 - 1  # of counts without a limit of their own
MAX_TEXT = 4096  # characters of a name or path
MAX_TEXT_CHARS = 1_000_000  # of all phrases of a text: far more than the highest limits allow


def whole(name: str, value: object, low: int = 0, high: int = MAX_COUNT) -> int:
    """Return ``value`` as an int from ``low`` to ``high``; bools and floats such as 3.0 are refused."""
    allowed = f"must be a whole number from {spelled(low)} to {spelled(high)}"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} {allowed}, got {described(value)}")
    number = int(value)
    if not low <= number <= high:
        raise ValueError(f"{name} {allowed}, got {described(value)}")
    return number


def real(name: str, value: object, low: float, high: float, above: bool = False) -> float:
    """Return ``value`` as a finite float from ``low`` to ``high``; with ``above``, ``low`` itself is excluded."""
    start = f"above {low:g}, at most {high:g}" if above else f"from {low:g} to {high:g}"
    allowed = f"must be a number {start}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} {allowed}, got {described(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not low <= number <= high or (above and number == low):  # also true for NaN
        raise ValueError(f"{name} {allowed}, got {described(value)}")
    return number


def coordinate(name: str, value: Any) -> float:
    """Return ``value`` as a number that may be infinite or NaN; an int up to 2^31 - 1 stays an int."""
    kept: float = value
    if type(value) is int and abs(value) <= MAX_COUNT:
        return kept
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {described(value)}")
    try:
        return float(value)
    except OverflowError:
        return math.inf if kept > 0 else -math.inf


def flag(name: str, value: object) -> bool:
    """Return ``value`` as a bool; 0, 1 and None are refused."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {described(value)}")
    return bool(value)


def text(name: str, value: object, most: int = MAX_TEXT) -> str:
    """Return ``value`` as a str of 1 to ``most`` characters without NUL."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, got {described(value)}")
    if not 1 <= len(value) <= most or "\0" in value:
        raise ValueError(f"{name} must have 1 to {most} characters, none of them NUL, got {described(value)}")
    return str(value)


def one_of(name: str, value: object, choices: Sequence[str]) -> str:
    """Return ``value`` as one of the strings ``choices``."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {', '.join(choices)}, got {described(value)}")
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {described(value)}")
    return str(value)


def path(name: str, value: object) -> Path:
    """Return ``value``, a str or ``os.PathLike``, as a Path; "" is refused."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a path (text or os.PathLike), got {described(value)}")
    named = os.fspath(value)
    if not isinstance(named, str):
        raise TypeError(f"{name} must be a path in text, not in bytes, got {described(named)}")
    return Path(text(name, named))


def instance(name: str, value: object, kinds: type[T] | tuple[type, ...], allowed: str) -> T:
    """Return ``value`` if it is an instance of ``kinds``, which the message calls ``allowed``."""
    if not isinstance(value, kinds):
        raise TypeError(f"{name} must be {allowed}, got {described(value)}")
    return value  # type: ignore[return-value]


def function(name: str, value: object) -> Callable[..., Any] | None:
    """Return ``value`` if it is callable or None."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a function or None, got {described(value)}")
    return value


def items(name: str, value: object, most: int, of: str, least: int = 1) -> tuple[Any, ...]:
    """Return ``value``, a sequence of ``least`` to ``most`` items, as a tuple; a str is refused."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a list or tuple of {of}, got {described(value)}")
    if not least <= len(value) <= most:
        raise ValueError(f"{name} must hold {least} to {most} {of}, got {len(value)}")
    return tuple(value)


def known(function_name: str, given: Iterable[str], options: Sequence[str]) -> None:
    """Check that every name in ``given`` is among ``options``, the keyword arguments of a function."""
    for name in given:
        if name not in options:
            near = difflib.get_close_matches(str(name), options, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise TypeError(f"{function_name}() has no argument {shorten(name)}{hint}; there are {', '.join(options)}")


def set_fields(record: object, values: Mapping[str, object]) -> None:
    """Set checked ``values`` on a frozen dataclass, from its ``__post_init__``."""
    for name, value in values.items():
        object.__setattr__(record, name, value)


def described(value: object) -> str:
    """Return ``value`` for an error message, shortened, with its type if the value does not show it."""
    if value is None or isinstance(value, (bool, str, dict, list, tuple)):
        return _quoted(value)
    if isinstance(value, int) and abs(value) >= 10**40:  # Python refuses to convert very long integers to text
        return f"a whole number of {value.bit_length()} bits"
    if type(value) in (int, float):
        return _quoted(value)
    return f"{_quoted(value)} ({type(value).__module__}.{type(value).__qualname__})"


def spelled(limit: int) -> str:
    """Return an integer limit as text; large powers of two minus one as "2^k - 1"."""
    power = (limit + 1).bit_length() - 1
    return f"2^{power} - 1" if limit >= 2**31 - 1 and limit + 1 == 2**power else str(limit)


def _quoted(value: object) -> str:
    try:
        return shorten(value)
    except Exception as error:  # from the value's own repr
        return f"a {type(value).__name__} whose repr raises {type(error).__name__}"


def split_text(text: str) -> list[str]:
    """Return the phrases of a text: separated by semicolons or line ends; blank ones are left out.

    Raises:
        PhraseError: the text is longer than any that can be asked.

    >>> split_text("key; red mug")
    ['key', 'red mug']
    """
    if len(text) > MAX_TEXT_CHARS:
        raise PhraseError(f"the query has {len(text)} characters: name the objects in a few words each")
    return [part for part in re.split(r"[;\n]", text) if part.strip()]


def clean_phrase(text: str, max_chars: int = MAX_PHRASE_CHARS) -> str:
    """Return the phrase in NFC, on one line, with single blanks and without control or invisible format characters.

    Phrases come from outside (a topic, a shell, a web form) and are treated as data. Control characters, bidirectional
    overrides and invisible format characters are removed. Text that looks like a special token or JSON is kept:
    :class:`acs_core.lvlm.prompt.PromptBuilder` tokenises it as ordinary text. Cleaning a clean phrase changes nothing.

    Raises:
        PhraseError: it is not a string, has nothing visible, or has more than ``max_chars`` characters after cleaning.
    """
    if not isinstance(text, str):
        raise PhraseError(f"the phrase must be text, got {type(text).__name__}: send the name of an object")
    if len(text) > 100 * max_chars:  # refused before the costly normalisation
        raise PhraseError(_too_long(len(text), max_chars))
    kept = "".join(_replacement(c) for c in unicodedata.normalize("NFC", text))
    phrase = unicodedata.normalize("NFC", " ".join(kept.split()))
    if not any(unicodedata.category(c)[0] in _VISIBLE for c in phrase):
        raise PhraseError("the phrase is empty or has control characters only: name the object to look for, like 'key'")
    if len(phrase) > max_chars:
        raise PhraseError(_too_long(len(phrase), max_chars))
    return phrase


def _replacement(char: str) -> str:
    category = unicodedata.category(char)
    if category in ("Cc", "Zl", "Zp"):
        return " "
    return "" if category in ("Cf", "Cs") and char not in JOINERS else char


def _too_long(length: int, max_chars: int) -> str:
    return f"the phrase has {length} characters, at most {max_chars} are allowed: name the object in a few words"
