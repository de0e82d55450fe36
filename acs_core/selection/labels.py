"""Comparison of a label that a model gave to a box with the phrase that was asked for."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_WORD = re.compile(r"[^\W_]+")
_STOP_WORDS = frozenset(
    (
        "a",
        "an",
        "the",
        "of",
        "in",
        "on",
        "at",
        "to",
        "and",
        "or",
        "with",
        "by",
        "for",
        "from",
        "is",
        "are",
        "this",
        "that",
    )
)
# Labels that name no kind of object, and the placeholders of the prompt.
_GENERIC = frozenset(
    (
        "object",
        "item",
        "thing",
        "target",
        "label",
        "name",
        "box",
        "bbox",
        "region",
        "area",
        "instance",
        "unknown",
        "none",
    )
)
_GENERIC_CJK = frozenset(("物体", "物體", "物品", "目标", "目標", "对象", "對象"))
_CJK_PARTICLES = frozenset("的一个個只把这這那了在和与與")
_IRREGULAR = {
    "people": "person",
    "men": "man",
    "children": "child",
    "mice": "mouse",
    "geese": "goose",
    "feet": "foot",
    "teeth": "tooth",
}
# Endings of plurals, and what each may stand for in the singular.
_ENDINGS = (("ies", ("y", "ie")), ("ves", ("f", "fe", "ve")), ("men", ("man",)), ("es", ("", "e")), ("s", ("",)))


def names_something_else(label: str, phrase: str) -> bool:
    """Return whether ``label`` certainly names another kind of object than ``phrase``.

    They do so if both have words, in the same script, and share none. Case, plural, articles and numbers do not count;
    a word that may be the plural of several ("axes" of "ax" and "axe") is compared as each of them. A label without
    content ("object", "") names nothing else; Chinese and Japanese are compared by characters. Words of one meaning
    ("pedestrian", "person") are different words.
    """
    mine, asked = _words(label), _words(phrase)
    if not mine or not asked or not _forms_of(mine).isdisjoint(_forms_of(asked)):
        return False
    if not _forms("".join(mine)).isdisjoint(_forms("".join(asked))):  # "firetrucks", "fire truck"
        return False
    return not {_script(word) for word in mine}.isdisjoint(_script(word) for word in asked)


def _words(text: str) -> list[str]:
    """The content words of a text, and each of its CJK characters."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    if plain.strip() in _GENERIC_CJK:
        return []
    words: list[str] = []
    for word in _WORD.findall(plain):
        if any(map(_is_cjk, word)):
            words += [c for c in word if _is_cjk(c) and c not in _CJK_PARTICLES]
        elif word not in _STOP_WORDS and not word.isnumeric() and _GENERIC.isdisjoint(_forms(word)):
            words.append(word)
    return words


def _forms_of(words: Iterable[str]) -> frozenset[str]:
    return frozenset().union(*map(_forms, words))


def _forms(word: str) -> frozenset[str]:
    """The word, and everything that it may be the plural of."""
    found = {word, _IRREGULAR.get(word, word)}
    for end, singulars in _ENDINGS:
        if len(word) > len(end) + 1 and word.endswith(end):
            found |= {word.removesuffix(end) + singular for singular in singulars}
    return frozenset(found)


def _is_cjk(char: str) -> bool:
    return "\u3040" <= char <= "\u30ff" or "\u3400" <= char <= "\u9fff"


def _script(word: str) -> str:
    """Name of the script of a word, from that of its first character."""
    return "CJK" if _is_cjk(word[0]) else unicodedata.name(word[0], "").partition(" ")[0]
