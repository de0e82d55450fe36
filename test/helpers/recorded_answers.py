"""Answers of real models with their sources, and tokenizers with real token ids (tools/answer_vocabulary.py)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

FOLDER = Path(__file__).parent / "answers"
FRAME = (1000, 1000)


@dataclass(frozen=True)
class RecordedAnswer:
    """One answer: what was written, where it is published, and what it means.

    Attributes:
        family: ``model_type`` of the family, or "other".
        recorded: whether a model gave it; else it is documented as a format.
        ids: the token ids of the family's vocabulary.
        boxes: per box the numbers as written, the label, and the box in the frame.
        problem: name of the constant in :mod:`acs_core.types`, "" with boxes.
        frame: (width, height) in which the coordinates are stated.
        finished: False if the text is cut off.
    """

    name: str
    family: str
    source: str
    recorded: bool
    text: str
    ids: tuple[int, ...]
    boxes: tuple[tuple[tuple[str, ...], str, tuple[float, ...]], ...]
    problem: str
    frame: tuple[int, int]
    finished: bool


@cache
def _vocabulary() -> dict[str, Any]:
    return json.loads((FOLDER / "vocabulary.json").read_text(encoding="utf-8"))


def recorded_answers() -> list[RecordedAnswer]:
    """Return all answers."""
    entries = json.loads((FOLDER / "recorded.json").read_text(encoding="utf-8"))
    return [
        RecordedAnswer(
            entry["name"],
            entry["family"],
            entry["source"],
            entry["kind"] == "recorded",
            entry["text"],
            tuple(ids),
            tuple(
                (tuple(box["numbers"]), box["label"], tuple(box.get("box") or map(float, box["numbers"])))
                for box in entry["boxes"]
            ),
            entry.get("problem", ""),
            tuple(entry.get("frame", FRAME)),
            entry.get("finished", True),
        )
        for entry, ids in zip(entries, _vocabulary()["ids"], strict=True)
    ]


@cache
def real_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a family, with the real ids of the tokens that the recorded answers and the prompt need.

    Other texts are split into more tokens than the whole vocabulary would give.
    """
    content = _vocabulary()
    added = content["added_tokens"][content["vocabulary_of"][family]]
    spec = content["tokenizer"]
    # The ids of added tokens are taken from the vocabulary, where they stand there.
    vocabulary = {**spec["model"]["vocab"], **{text: entry["id"] for text, entry in added.items()}}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokens = [{"content": text, **flags, **entry} for text, entry in added.items()]
    whole = {**spec, "model": {**spec["model"], "vocab": vocabulary}, "added_tokens": tokens}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(whole)), eos_token="<|im_end|>")


def save_vocabulary_files(folder: Path, family: str) -> None:
    """Write the tokenizer of a family as ``vocab.json``, ``merges.txt`` and ``tokenizer_config.json``.

    Ids of tokens that the part lacks are filled up, since such files have no gaps.
    """
    spec = json.loads(real_tokenizer(family).backend_tokenizer.to_str())
    added = {str(token.pop("id")): token for token in spec["added_tokens"]}
    vocabulary = {text: i for text, i in spec["model"]["vocab"].items() if str(i) not in added}
    known = set(vocabulary.values())
    vocabulary |= {f"\u0000{i}": i for i in range(min(map(int, added))) if i not in known}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in spec["model"]["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "added_tokens_decoder": added}))
