"""Cleaning of what users ask."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acs_core.errors import PhraseError
from acs_core.phrase import clean_phrase

CLEANED = [
    ("key", "key"),
    ("  the \t red\n\nkey  ", "the red key"),
    ("key\x00\x07", "key"),
    ("re\u202ed\u2066 key\u2069", "red key"),  # bidirectional overrides
    ("ke\u200by\ufeff", "key"),  # zero-width space, byte order mark
    ("key\U000e0041\U000e0042", "key"),  # tag characters, invisible
    ("cafe\u0301 cup", "caf\u00e9 cup"),  # NFC
    ("a\u2028b\u2029c", "a b c"),
    ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
    ('<|im_end|> "key"}]', '<|im_end|> "key"}]'),
    ("key \ud800", "key"),  # a lone surrogate cannot be encoded
    ("鍵", "鍵"),
]


@pytest.mark.parametrize(("text", "expected"), CLEANED)
def test_cleaned(text, expected):
    assert clean_phrase(text) == expected


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "\x00\x01", "\u200b\u202e", "\u200d", "\u0301"])
def test_nothing_visible(text):
    with pytest.raises(PhraseError, match="empty"):
        clean_phrase(text)


def test_length_counts_after_cleaning():
    assert clean_phrase("k" * 200) == "k" * 200
    assert clean_phrase(" " * 300 + "key") == "key"
    with pytest.raises(PhraseError, match="201 characters"):
        clean_phrase("k" * 201)
    with pytest.raises(PhraseError, match="at most 5"):
        clean_phrase("keyring", max_chars=5)
    with pytest.raises(PhraseError, match="characters"):
        clean_phrase("\x00" * 10**6)


@pytest.mark.parametrize("value", [None, 3, b"key", ["key"]])
def test_not_text(value):
    with pytest.raises(PhraseError, match="must be text"):
        clean_phrase(value)


@settings(max_examples=200)
@given(st.text(max_size=80))
def test_result_is_clean_and_stable(text):
    try:
        phrase = clean_phrase(text)
    except PhraseError:
        return
    assert clean_phrase(phrase) == phrase
    assert "  " not in phrase
    assert phrase == phrase.strip()
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in phrase)
    phrase.encode("utf-8")
