from __future__ import annotations

from types import SimpleNamespace

import pytest

from acs_core.arguments import clean_phrase, split_text
from acs_core.errors import PhraseError
from acs_ros.diagnostics.status import show_queries
from acs_ros.node.query_manager import clean_queries

SETTINGS = SimpleNamespace(max_phrase_chars=200, max_queries=3)


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("key", ["key"]),
        ("key; red mug ;", ["key", " red mug "]),
        ("a\nb\n\nc", ["a", "b", "c"]),
        (" ; \n", []),
        ("", []),
    ],
)
def test_texts_are_split_at_semicolons_and_line_ends(text, phrases):
    assert split_text(text) == phrases


def test_phrases_are_cleaned_and_asked_once():
    assert clean_queries([" red  mug", "key", "red mug"], SETTINGS) == ("red mug", "key")
    assert show_queries(("red mug", "key")) == "'red mug', 'key'"


@pytest.mark.parametrize(
    ("phrases", "said"),
    [
        (["key", "\x07"], "phrase 2 of 2: the phrase is empty"),
        (["x" * 201], "the phrase has 201 characters"),
        (["a", "b", "c", "d"], "4 phrases are more than max_queries, which is 3"),
    ],
)
def test_what_cannot_be_asked_is_named(phrases, said):
    with pytest.raises(PhraseError, match=f"^{said}"):
        clean_queries(phrases, SETTINGS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("k" * 10**7, "the query has 10000000 characters"),
        (";" * 10**7, "the query has 10000000 characters"),
        ("k;" * 400_000, "400000 phrases are more than max_queries"),
        ("k" * 20_001, "the phrase has 20001 characters"),
    ],
)
def test_megabytes_are_refused_before_any_work_on_them(text, said, monkeypatch):
    cleaned = []
    monkeypatch.setattr("acs_ros.node.query_manager.clean_phrase", lambda p, n: cleaned.append(p) or clean_phrase(p, n))
    with pytest.raises(PhraseError, match=said):
        clean_queries(split_text(text), SETTINGS)
    assert len(cleaned) <= 1


def test_a_phrase_may_be_there_several_times():
    assert clean_queries(["key"] * 30, SETTINGS) == ("key",)
