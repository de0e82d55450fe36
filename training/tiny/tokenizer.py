"""The embedded models' tokenizer: byte-level, so that any phrase can be asked, with the world's few fixed texts as
one token each, so that a prompt is two dozen tokens long and a small model can learn on a CPU.

Every digit is a token of its own, as in Qwen's and InternVL's tokenizers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from acs_core.lvlm.prompt import localization_prompt

END = "<|im_end|>"
PAD = "<|endoftext|>"
_ANSWER_TEXTS = ('[{"bbox_2d": [', ", ", '], "label": "', '"}, {"bbox_2d": [', '"}]', "[]")
_CHAT_TEXTS = ("user\n", "assistant\n", "\n")


def chat_template(image: str) -> str:
    """A Jinja chat template of the form that both families use, with ``image`` in a picture's place."""
    return (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '" + image + "' }}"
        "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


def build_tokenizer(names: Sequence[str], image_tokens: Mapping[str, str]) -> PreTrainedTokenizerFast:
    """A tokenizer in which each of ``names`` is one token, everywhere it stands as a word of its own.

    ``image_tokens`` are the family's special tokens around pictures, by the attribute under which its processor looks
    them up.
    """
    prompt_texts = [text for text in localization_prompt("\0").split("\0") if text]
    texts = sorted({*prompt_texts, *_ANSWER_TEXTS, *_CHAT_TEXTS}, key=lambda t: (-len(t), t))
    vocabulary = [PAD, END, "<|im_start|>", *image_tokens.values()]
    vocabulary += sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary += [_as_bytes(text) for text in (*texts, *sorted(names))]
    ids = {text: i for i, text in enumerate(dict.fromkeys(vocabulary))}

    # no merges: a piece that is in the vocabulary as a whole is one token, any other falls to its bytes
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[], ignore_merges=True))
    words = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
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


def _as_bytes(text: str) -> str:
    """``text`` in the printable alphabet in which byte-level vocabularies are written."""
    return "".join(
        p for p, _ in pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    )


def _escape(text: str) -> str:
    return re.escape(text).replace("\\\n", "\\n")
