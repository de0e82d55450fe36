"""Sanitising of text from files, messages and models for display: no control characters, one line, bounded length.

All text for a terminal, a log or /diagnostics passes through here: in the messages of
:class:`acs_core.errors.AcsError`, the consoles of :mod:`acs_core.terminal`, and the node's logger and status.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sized
from itertools import islice

MOST = 10  # items of a list in a message
MAX_ITEM = 100  # characters of an item
MAX_MESSAGE = 2000  # characters of an error message
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Joiners are format characters too, but Persian, Indic scripts and emoji cannot be written without them.
JOINERS = "\u200c\u200d"
# C0 and C1 controls control a terminal, format characters (bidirectional overrides) reorder displayed text, separators
# break lines, surrogates cannot be encoded.
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def printable(text: str, keep: str = "") -> str:
    """Return ``text`` with U+FFFD for each control, invisible format or separator character and lone surrogate.

    Characters in ``keep`` are kept. The length does not change.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(REPLACEMENT if _is_hidden(c) and c not in keep else c for c in text)


def one_line(text: str, most: int = MAX_MESSAGE) -> str:
    """Return ``text`` on one printable line of at most ``most`` characters, with single blanks; truncated with
    "..."."""
    # Truncated first, so that the cost does not depend on the length of the text.
    line = printable(" ".join(text[: 4 * most + 1].split()))
    return line if len(line) <= most and len(text) <= 4 * most else line[: most - 3] + "..."


def log_text(text: str) -> str:
    """Return ``text`` printable, with all lines but the first indented, so that none can pass for a log line."""
    first, *rest = text.splitlines() or [""]
    return "\n".join([printable(first), *(f"    {printable(line)}" for line in rest)])


def join_some(items: Iterable[object], most: int = MOST, total: int | None = None) -> str:
    """Return the first ``most`` of ``items`` on one line, and the number of the others: "a, b and 2,998 more".

    Args:
        items: the items; each is truncated to :data:`MAX_ITEM` characters.
        most: maximum number of items.
        total: number of items, if ``items`` has no length.
    """
    if total is None:
        items = items if isinstance(items, Sized) else list(items)
        total = len(items)
    shown = ", ".join(one_line(str(item), MAX_ITEM) for item in islice(items, most))
    return shown if total <= most else f"{shown} and {total - most:,} more"


def shorten(value: object, limit: int = 60) -> str:
    """Return ``repr(value)``, truncated to ``limit`` characters for an error message."""
    try:
        text = repr(value[: limit + 1] if isinstance(value, str) else value)
    except RecursionError:
        text = f"a {type(value).__name__}, nested too deeply"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def nearest(name: str, known: Iterable[str], most: int = 1, likeness: float = 0.6) -> str:
    """Return the ``most`` names of ``known`` most like ``name`` as "a or b"; "" if none is at least that alike.

    ``likeness`` is the share of the characters of both that they have in common, in [0, 1], as difflib counts it.
    """
    return " or ".join(difflib.get_close_matches(name[:MAX_ITEM], list(known), most, likeness))


def _is_hidden(char: str) -> bool:
    return unicodedata.category(char) in _HIDDEN and char not in JOINERS
