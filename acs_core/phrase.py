"""Cleans the phrase a user asks for. It comes from outside (a topic, a shell, a web form) and is data only.

What is removed here cannot be seen by a person: control characters, bidirectional overrides, invisible format
characters. Text that looks like a special token or like JSON stays as it is; the prompt builder
(:mod:`acs_core.lvlm.prompt`) makes sure that it stays text.
"""

from __future__ import annotations

import unicodedata

from acs_core.errors import PhraseError

# Joiners are format characters too, but Persian, Indic scripts and emoji cannot be written without them.
_JOINERS = "\u200c\u200d"
MAX_PHRASE_CHARS = 200  # enough to name an object, too short for a story
_VISIBLE = "LNPS"  # Unicode major categories: letters, numbers, punctuation, symbols


def clean_phrase(text: str, max_chars: int = MAX_PHRASE_CHARS) -> str:
    """The phrase in NFC, on one line, with single blanks and without control or invisible format characters.

    Cleaning a clean phrase changes nothing.

    Raises:
        PhraseError: not a string, nothing visible left, or longer than ``max_chars`` characters after cleaning.
    """
    if not isinstance(text, str):
        raise PhraseError(f"the phrase must be text, got {type(text).__name__}: send the name of an object")
    if len(text) > 100 * max_chars:  # refuse before spending time on it
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
    return "" if category in ("Cf", "Cs") and char not in _JOINERS else char


def _too_long(length: int, max_chars: int) -> str:
    return f"the phrase has {length} characters, at most {max_chars} are allowed: name the object in a few words"
