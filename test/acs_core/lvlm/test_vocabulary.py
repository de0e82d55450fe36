import pytest

from acs_core.lvlm.vocabulary import spelled_out
from training.tiny.tokenizer import build_tokenizer

EMBEDDED = build_tokenizer(["key", "light bulb", "shoe"], {"image_token": "<image>"})


@pytest.mark.parametrize(
    ("phrase", "unknown"),
    [
        ("key", ()),
        ("Keys", ()),
        ("light bulb", ()),
        ("red shoe", ()),
        ("zebra", ("zebra",)),
        ("red zebra", ("zebra",)),
        ("light", ("light",)),  # a part of a name is no name
        ("the key", ("the",)),
        ("an ox", ()),  # too short to tell
        ("", ()),
    ],
)
def test_words_that_an_embedded_model_spells_out(phrase, unknown):
    assert spelled_out(EMBEDDED, phrase) == unknown


class WholeWords:
    """A tokenizer with a token for each word, as those of large models have for most."""

    def tokenize(self, text):
        return text.split()


def test_a_tokenizer_with_tokens_for_words_spells_nothing_out():
    assert spelled_out(WholeWords(), "a red zebra") == ()
