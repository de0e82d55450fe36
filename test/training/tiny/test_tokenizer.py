import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acs_core.lvlm.prompt import localization_prompt
from training.tiny.tokenizer import SAME_PLURAL, build_tokenizer, plural
from training.world.sprites import category_names

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
        ("red cup", 3),
        ("Blue Teddy Bears", 3),
        ("bored", 5),
    ],
)
def test_names_and_fixed_texts_are_one_token_digits_are_each_their_own(tokenizer, text, tokens):
    assert len(tokenizer(text).input_ids) == tokens


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_prompt_is_short_and_says_the_name_seven_times(tokenizer, name):
    ids = tokenizer(localization_prompt(name)).input_ids
    (word,) = tokenizer(name).input_ids
    assert len(ids) == 15 and ids.count(word) == 7


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("key", "keys"),
        ("strawberry", "strawberries"),
        ("wine glass", "wine glasses"),
        ("watch", "watches"),
        ("toothbrush", "toothbrushes"),
        ("bus", "buses"),
        ("scissors", "scissors"),
        ("broccoli", "broccoli"),
        ("tv", "tvs"),
    ],
)
def test_plurals(name, expected):
    assert plural(name) == expected


@pytest.mark.parametrize("text", ["Key", "KEYS", "keys", "Teddy Bear", "teddy bears"])
def test_capitals_and_plurals_of_a_name_are_the_name(tokenizer, text):
    name = "key" if "k" in text.lower() else "teddy bear"
    assert tokenizer(f"the {text}.").input_ids == tokenizer(f"the {name}.").input_ids


@pytest.mark.parametrize("text", ["monkeys", "Keystone", "hockey"])
def test_words_that_hold_a_name_stay(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_no_name_is_in_the_prompt_or_is_the_plural_of_another():
    names = category_names()
    tokenizer = build_tokenizer(names, {})
    prompt = localization_prompt("@")
    assert tokenizer.decode(tokenizer(prompt).input_ids, clean_up_tokenization_spaces=False) == prompt
    assert not {plural(n) for n in names if n not in SAME_PLURAL} & {*names}


@settings(max_examples=60)
@given(st.text(st.characters(blacklist_categories=("Cs",)), max_size=30))
def test_any_text_comes_back(text):
    tokenizer = build_tokenizer(NAMES, {})
    text = text.replace("<", "").lower()  # "<" begins special tokens, and names in capitals are read in small letters
    assert tokenizer.decode(tokenizer(text).input_ids, clean_up_tokenization_spaces=False) == text
