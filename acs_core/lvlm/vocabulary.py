"""Words that a model's tokenizer has no tokens for."""

from __future__ import annotations

from itertools import groupby
from typing import Any

LEAST_LETTERS = 3


def spelled_out(tokenizer: Any, phrase: str) -> tuple[str, ...]:
    """Return the parts of ``phrase`` that ``tokenizer`` spells out letter by letter, at least three letters long.

    The large models have tokens for whole words and parts of words. The embedded models have tokens for the things that
    they know, and spell out all other words: they were not trained on them.
    """
    letters = ((token, len(token) == 1 and token.isascii() and token.isalpha()) for token in tokenizer.tokenize(phrase))
    runs = ("".join(token for token, _ in run) for alone, run in groupby(letters, key=lambda part: part[1]) if alone)
    return tuple(run for run in runs if len(run) >= LEAST_LETTERS)
