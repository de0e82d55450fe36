"""Every public entry says which argument is wrong, what was given and what is allowed."""

import decimal
import math
import unicodedata
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acs_core.arguments import clean_phrase, described, function, items, known, path, real, whole
from acs_core.artifacts.calibration import Calibration
from acs_core.artifacts.heads import HeadFile
from acs_core.artifacts.identity import ModelIdentity
from acs_core.errors import AcsError, OptionError, PhraseError
from acs_core.geometry import Box
from acs_core.grounder import Grounder
from acs_core.image import read_image
from acs_core.lvlm import load_lvlm
from acs_core.request import MAX_PHRASES, GroundingRequest, GroundOptions
from acs_core.selection.registry import AcsFree, check_name
from acs_core.types import SamplingConfig, SecondLook

IMAGE = np.zeros((40, 60, 3), np.uint8)
NAN, INF = float("nan"), float("inf")
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


def ask(phrases=("key",), **options):
    return GroundingRequest.of(IMAGE, phrases, options)


def load(**options):
    return Grounder.from_pretrained(**{"model": "owner/no-such-model", **options})


TABLE = [
    # call, exception, words of the message
    (
        lambda: SamplingConfig(temperature=1e-40),
        ValueError,
        "temperature must be a number from 0.0001 to 10000, got 1e-40",
    ),
    (lambda: SamplingConfig(temperature=INF), ValueError, "temperature must be.*got inf"),
    (lambda: SamplingConfig(temperature=NAN), ValueError, "temperature must be.*got nan"),
    (lambda: SamplingConfig(temperature=10**400), ValueError, "temperature must be.*a whole number of 1329 bits"),
    (lambda: SamplingConfig(temperature="hot"), TypeError, "temperature must be.*got 'hot'"),
    (lambda: SamplingConfig(temperature=True), TypeError, "temperature must be.*got True"),
    (lambda: SamplingConfig(temperature=decimal.Decimal(1)), TypeError, "temperature must be.*decimal.Decimal"),
    (
        lambda: SamplingConfig(seed=2**64),
        ValueError,
        r"seed must be a whole number from 0 to 2\^63 - 1, got 18446744073709551616",
    ),
    (lambda: SamplingConfig(seed="a"), TypeError, "seed must be a whole number.*got 'a'"),
    (lambda: SamplingConfig(seed=-1), ValueError, "seed must be.*got -1"),
    (lambda: SamplingConfig(seed=10**5000), ValueError, "seed must be.*a whole number of 16610 bits"),
    (lambda: SamplingConfig(num_samples=3.0), TypeError, "num_samples must be a whole number from 1 to 1024, got 3.0"),
    (lambda: SamplingConfig(num_samples=0), ValueError, "num_samples must be"),
    (lambda: SamplingConfig(top_p=0), ValueError, "top_p must be a number above 0, at most 1, got 0"),
    (lambda: SamplingConfig(top_k=-1), ValueError, "top_k must be a whole number from 0"),
    (lambda: SamplingConfig(max_new_tokens=None), TypeError, "max_new_tokens must be.*got None"),
    (lambda: SamplingConfig(auto="yes"), TypeError, "auto must be True or False, got 'yes'"),
    (lambda: ask("key"), TypeError, "phrases must be a list or tuple of phrases.*ground.*got 'key'"),
    (lambda: ask(b"key"), TypeError, "phrases must be a list or tuple"),
    (lambda: ask({"key": 1}), TypeError, "phrases must be a list or tuple"),
    (lambda: ask(p for p in ["key"]), TypeError, "phrases must be a list or tuple.*generator"),
    (lambda: ask([]), ValueError, "phrases must hold 1 to 256 phrases"),
    (lambda: ask(["key"] * (MAX_PHRASES + 1)), ValueError, "phrases must hold 1 to 256 phrases.*got 257"),
    (lambda: ask(["key", 5]), TypeError, r"phrases\[1\] must be text, got 5"),
    (lambda: ask([["key"]]), TypeError, r"phrase must be text, got \['key'\]"),
    (
        lambda: ask(samplings=SamplingConfig()),
        TypeError,
        r"ground\(\) has no argument 'samplings' \(did you mean sampling\?\)",
    ),
    (
        lambda: ask(start=0.0),
        TypeError,
        r"ground\(\) has no argument 'start'; there are sampling, samples, temperature, seed, speculation",
    ),
    (
        lambda: ask(sampling={"num_samples": 3}),
        TypeError,
        "sampling must be a SamplingConfig or None, got {'num_samples'",
    ),
    (lambda: ask(multiple=1), TypeError, "multiple must be True or False, got 1"),
    (lambda: ask(min_score=NAN), ValueError, "min_score must be a number from 0 to 1, got nan"),
    (lambda: ask(min_votes=2**64), ValueError, "min_votes must be a whole number from 1 to"),
    (lambda: ask(deadline_ms=0), ValueError, "deadline_ms must be a number above 0"),
    (lambda: ask(deadline_ms=INF), ValueError, "deadline_ms must be.*got inf"),
    (lambda: ask(deadline_ms="1"), TypeError, "deadline_ms must be a number"),
    (lambda: ask(second_look=2), TypeError, "second_look must be True, False or a SecondLook, got 2"),
    (lambda: ask(with_attention=None), TypeError, "with_attention must be True or False, got None"),
    (lambda: ask(should_stop=True), TypeError, "should_stop must be a function or None, got True"),
    (lambda: ask(on_stage="stage"), TypeError, "on_stage must be a function or None, got 'stage'"),
    (lambda: SecondLook(zoom="2"), TypeError, "zoom must be a number"),
    (lambda: SecondLook(samples=1.5), TypeError, "samples must be a whole number"),
    (lambda: load(selector="best"), ValueError, "unknown selector 'best': choose one of acs-free"),
    (lambda: load(selector=["acs-free"]), TypeError, r"selector must be one of acs-free.*got \['acs-free'\]"),
    (lambda: load(model=None), TypeError, "model must be a path.*got None"),
    (lambda: load(model=""), ValueError, "model must have 1 to 4096 characters"),
    (lambda: load(model=b"m"), TypeError, "model must be a path"),
    (lambda: load(heads=3), TypeError, "heads must be a path.*got 3"),
    (lambda: load(regressor=""), ValueError, "regressor must have 1 to"),
    (lambda: load(joint_model=3), TypeError, "joint_model must be a path"),
    (lambda: load(calibration=True), TypeError, "calibration must be a path.*got True"),
    (lambda: load(revision=1), TypeError, "revision must be text, got 1"),
    (lambda: load(device=0), TypeError, "device must be text, got 0"),
    (lambda: load(device="tpu"), OptionError, "unknown device 'tpu': use auto, cpu, cuda"),
    (lambda: load(dtype="float8"), OptionError, "unknown dtype 'float8': use auto, float32"),
    (lambda: load(dtype=np.float32), TypeError, "dtype must be text"),
    (lambda: load(quantization="2bit"), OptionError, "unknown quantization '2bit': use none, 8bit"),
    (lambda: load(temperature=1), TypeError, "temperature"),
    (lambda: load_lvlm("m", device=None), TypeError, "device must be text, got None"),
    (lambda: check_name(5), TypeError, "selector must be one of acs-free"),
    (lambda: AcsFree("heads.json"), TypeError, "heads must be a HeadFile, got 'heads.json'"),
    (lambda: HeadFile.load(None), TypeError, "path must be a path.*got None"),
    (lambda: Calibration.load(""), ValueError, "path must have 1 to"),
    (lambda: read_image(7), TypeError, "path must be a path.*got 7"),
    (lambda: read_image("a\0b"), ValueError, "path must have.*none of them NUL"),
    (lambda: ModelIdentity("m", "f", 0, 4), ValueError, "num_layers must be a whole number from 1 to 512, got 0"),
    (lambda: ModelIdentity("m", "f", 4, "4"), TypeError, "num_heads must be a whole number"),
    (lambda: ModelIdentity("", "f", 4, 4), ValueError, "model must have 1 to"),
    (lambda: Box("1", 2, 3, 4), TypeError, "x1 must be a number, got '1'"),
    (lambda: Box(1, 2, 3, None), TypeError, "y2 must be a number, got None"),
    (lambda: GroundingRequest.of(IMAGE.astype(float), ["key"], {}), AcsError, "image must hold uint8.*got float64"),
    (
        lambda: GroundingRequest.of(IMAGE[..., 0], ["key"], {}),
        AcsError,
        r"image must have the shape \(H, W, 3\), got \(40, 60\)",
    ),
    (lambda: GroundingRequest.of(7, ["key"], {}), AcsError, "image must be a path, .* or a numpy array.*not a int"),
]


@pytest.mark.parametrize(("call", "error", "words"), TABLE)
def test_what_is_wrong_is_named(call, error, words):
    with pytest.raises(error, match=words) as caught:
        call()
    assert "Asked" not in str(caught.value) and len(str(caught.value)) < 400


def test_numpy_scalars_are_kept_as_python_numbers():
    config = SamplingConfig(
        np.int64(3), np.float32(0.5), np.float64(0.25), np.uint8(7), np.int16(9), np.int64(2**62), np.True_, np.False_
    )
    assert config == SamplingConfig(3, 0.5, 0.25, 7, 9, 2**62, True, False)
    kinds = [int, float, float, int, int, int, bool, bool]
    assert [type(getattr(config, f.name)) for f in fields(config)] == kinds
    asked = ask(min_score=np.float32(0.5), min_votes=np.int8(3), deadline_ms=np.int64(5), multiple=np.bool_(True))
    assert (asked.min_score, asked.min_votes, asked.deadline_ms, asked.multiple) == (0.5, 3, 5.0, True)
    assert type(Box(np.float32(1), 2, 3, 4).x1) is float


def test_limits_are_allowed():
    assert SamplingConfig(1, 1e-4, 1.0, 0, 1, 0) and SamplingConfig(1024, 1e4, 1e-9, 2**31 - 1, 8192, 2**63 - 1)
    assert math.isnan(Box(NAN, 0, INF, 1).x1)  # a model may answer so; clip() finds no box in it
    assert path("file", Path("a")) == path("file", "a") and function("stop", None) is None


class Unspeakable:
    def __repr__(self):
        raise RuntimeError("no")


def test_whatever_is_given_can_be_quoted():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    for value in (Unspeakable(), nested, "x" * 10**6, 10**10000, [10**10000], np.zeros((500, 500)), {1: Unspeakable()}):
        assert len(described(value)) < 200
        with pytest.raises(TypeError, match=r"^count must be"):
            whole("count", value) if not isinstance(value, int) else whole("count", str)


def test_the_checks_themselves():
    assert (whole("n", np.int8(5)), real("x", 1, 0, 2), items("l", (1, 2), 2, "numbers")) == (5, 1.0, (1, 2))
    known("f", ["a"], ["a", "b"])
    with pytest.raises(TypeError, match=r"f\(\) has no argument 'zz'; there are a, b"):
        known("f", ["zz"], ["a", "b"])


NUMBERS = st.one_of(
    st.integers(), st.floats(), st.just(2**64), st.just(10**400), st.floats(width=32).map(np.float32), st.booleans()
)
SENSELESS = st.one_of(
    NUMBERS,
    st.none(),
    st.text(max_size=20),
    st.binary(max_size=5),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.just(object()),
    st.just(Unspeakable()),
    st.just(np.zeros(3)),
    st.just(SamplingConfig),
    st.complex_numbers(),
)
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def named(names, call):
    """Calls, and makes sure that a refusal is one of ours that names an argument."""
    try:
        return call()
    except (TypeError, ValueError, AcsError) as error:
        assert any(name in str(error) for name in names), error
        return None


@QUICK
@given(st.dictionaries(st.sampled_from([f.name for f in fields(SamplingConfig)]), SENSELESS, min_size=1))
def test_any_sampling_is_usable_or_named(options):
    config = named(options, lambda: SamplingConfig(**options))
    if config is not None:
        assert math.isfinite(config.temperature) and 0 < config.top_p <= 1 and 1 <= config.num_samples <= 1024
        assert config.seed is None or 0 <= config.seed < 2**63


@QUICK
@given(st.dictionaries(st.sampled_from(list(GroundOptions.__annotations__)), SENSELESS), SENSELESS, SENSELESS)
def test_any_question_is_usable_or_named(options, phrases, image):
    named([*options, "phrase", "image"], lambda: GroundingRequest.of(image, phrases, options))
    asked = named([*options, "phrase"], lambda: GroundingRequest.of(IMAGE, ["key"], options))
    if asked is not None:
        assert asked.deadline_ms is None or 0 < asked.deadline_ms < INF
        assert 0 <= asked.min_score <= 1 and asked.min_votes >= 1


MODEL_OPTIONS = [
    "selector",
    "heads",
    "regressor",
    "joint_model",
    "calibration",
    "revision",
    "device",
    "dtype",
    "quantization",
    "prefix_bytes",
]


@QUICK
@given(st.dictionaries(st.sampled_from(MODEL_OPTIONS), SENSELESS, min_size=1))
def test_any_option_of_loading_is_refused_in_words(options):
    names = [*options, "no-such-model"]  # usable options: then it is the model that is missing
    named(names, lambda: load(**options))


@QUICK
@given(st.lists(SENSELESS, min_size=4, max_size=4), st.lists(SENSELESS, min_size=2, max_size=2))
def test_any_box_and_identity_is_usable_or_named(corners, names):
    box = named(["x1", "y1", "x2", "y2"], lambda: Box(*corners))
    if box is not None:
        box.clip(10, 10)
    named(["model", "family", "num_layers", "num_heads"], lambda: ModelIdentity(*names, *corners[:2]))


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
