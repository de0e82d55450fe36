"""Standing queries as people write them: one phrase or several, cleaned and checked before anything changes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from acs_core.errors import PhraseError
from acs_core.phrase import clean_phrase
from acs_ros.parameters import Settings

GIVEN_PER_QUERY = 10  # phrases that are looked at for each that may be asked: some may be there twice
MAX_TEXT_CHARS = 1_000_000  # of all phrases together: far more than the highest limits allow to ask


def split_text(text: str) -> list[str]:
    """The phrases of a text: separated by semicolons or line ends; blank ones are left out.

    Raises:
        PhraseError: the text is longer than any that can be asked.

    >>> split_text("key; red mug")
    ['key', 'red mug']
    """
    if len(text) > MAX_TEXT_CHARS:
        raise PhraseError(f"the query has {len(text)} characters: name the objects in a few words each")
    return [part for part in re.split(r"[;\n]", text) if part.strip()]


def clean_queries(phrases: Iterable[str], settings: Settings) -> tuple[str, ...]:
    """The phrases as they are asked, each once, in their order.

    Raises:
        PhraseError: one cannot be asked, or there are more than ``max_queries``; says which.
    """
    given = list(phrases)
    if len(given) > GIVEN_PER_QUERY * settings.max_queries:  # before the work of cleaning each
        raise PhraseError(f"{len(given)} phrases are more than max_queries, which is {settings.max_queries}")
    cleaned: list[str] = []
    for number, phrase in enumerate(given, start=1):
        try:
            cleaned.append(clean_phrase(phrase, settings.max_phrase_chars))
        except PhraseError as error:
            which = f"phrase {number} of {len(given)}: " if len(given) > 1 else ""
            raise PhraseError(f"{which}{error}") from error
    distinct = tuple(dict.fromkeys(cleaned))
    if len(distinct) > settings.max_queries:
        raise PhraseError(f"{len(distinct)} phrases are more than max_queries, which is {settings.max_queries}")
    return distinct


def show_queries(phrases: tuple[str, ...]) -> str:
    """For a person: ``'key', 'red mug'``."""
    return ", ".join(map(repr, phrases))
