"""Tokenizer of the embedded models: byte-level, so that any phrase can be encoded, with one token for each fixed text
of prompt and answer, and for each name and colour. A prompt then has about two dozen tokens, and a small model can be
trained on a CPU.

Every digit is a token of its own, as in the tokenizers of Qwen and InternVL. Capitals and plurals of the names are
read as the names ("Keys" as "key"), and capitals of the colours as the colours, since the models are trained with these
alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from acs_core.lvlm.prompt import localization_prompt
from training.world.colours import COLOURS

END = "<|im_end|>"
PAD = "<|endoftext|>"
_ANSWER_TEXTS = ('[{"bbox_2d": [', ", ", '], "label": "', '"}, {"bbox_2d": [', '"}]', "[]")
SAME_PLURAL = ("broccoli", "scissors")
_CHAT_TEXTS = ("user\n", "assistant\n", "\n")


def chat_template(image: str) -> str:
    """Return a Jinja chat template in the form of both families, with ``image`` as the image placeholder."""
    return (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '" + image + "' }}"
        "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


def build_tokenizer(names: Sequence[str], image_tokens: Mapping[str, str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer in which each of ``names``, or its plural, and each colour of the rendered world is one token
    wherever it is a separate word.

    ``image_tokens`` are the family's special tokens around images, by the attribute name that its processor uses.
    """
    prompt_texts = [text for text in localization_prompt("\0").split("\0") if text]
    texts = sorted({*prompt_texts, *_ANSWER_TEXTS, *_CHAT_TEXTS}, key=lambda t: (-len(t), t))
    vocabulary = [PAD, END, "<|im_start|>", *image_tokens.values()]
    vocabulary += sorted(pre_tokenizers.ByteLevel.alphabet())
    # colours last: all other tokens keep the ids that they have in models from before there were colours
    vocabulary += [_as_bytes(text) for text in (*texts, *sorted(names), *sorted(COLOURS))]
    ids = {text: i for i, text in enumerate(dict.fromkeys(vocabulary))}

    # no merges: a piece in the vocabulary is one token, any other is split into bytes
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[], ignore_merges=True))
    forms = {_forms(name): name for name in names} | {rf"(?i)\b{colour}\b": colour for colour in COLOURS}
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(Regex(k), word) for k, word in forms.items()])
    words = "|".join(re.escape(word) for word in sorted([*names, *COLOURS], key=len, reverse=True))
    pieces = "|".join([*(_escape(text) for text in texts), rf"\b(?:{words})\b", r"(?<!_)\d"])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, extra_special_tokens=dict(image_tokens)
    )
    fast.add_tokens([AddedToken("<|im_start|>", special=True)], special_tokens=True)
    return fast


def plural(name: str) -> str:
    """Return the English plural of ``name``, as far as the categories of the rendered world need it."""
    if name in SAME_PLURAL:
        return name
    if name.endswith(("s", "x", "ch", "sh")):
        return name + "es"
    return name[:-1] + "ies" if name.endswith("y") and name[-2] not in "aeiou" else name + "s"


def _forms(name: str) -> str:
    """Return a pattern for ``name`` and its plural in any case, as separate words."""
    return rf"(?i)\b(?:{re.escape(name)}|{re.escape(plural(name))})\b"


def _as_bytes(text: str) -> str:
    """Return ``text`` in the printable alphabet of byte-level vocabularies."""
    return "".join(
        p for p, _ in pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    )


def _escape(text: str) -> str:
    return re.escape(text).replace("\\\n", "\\n")
