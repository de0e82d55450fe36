import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acs_core.lvlm.prompt import localization_prompt
from training.tiny.tokenizer import build_tokenizer

NAMES = ["key", "teddy bear", "cup"]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(NAMES, {"image_token": "<image>"})


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("key", 1),
        ("teddy bear", 1),
        ("monkey", 6),
        ("205", 3),
        ('[{"bbox_2d": [1, 20, 3, 4], "label": "key"}]', 12),
        ("[]", 1),
        ("é", 2),
    ],
)
def test_names_and_fixed_texts_are_one_token_digits_are_each_their_own(tokenizer, text, tokens):
    assert len(tokenizer(text).input_ids) == tokens


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_prompt_is_short_and_says_the_name_seven_times(tokenizer, name):
    ids = tokenizer(localization_prompt(name)).input_ids
    (word,) = tokenizer(name).input_ids
    assert len(ids) == 15 and ids.count(word) == 7


@settings(max_examples=60)
@given(st.text(st.characters(blacklist_categories=("Cs",)), max_size=30))
def test_any_text_comes_back(text):
    tokenizer = build_tokenizer(NAMES, {})
    text = text.replace("<", "")  # special tokens are written with it, and are not text
    assert tokenizer.decode(tokenizer(text).input_ids, clean_up_tokenization_spaces=False) == text
