"""Number of forwards that N responses take token by token and with drafts (:mod:`acs_core.generation.speculation`).

The answers are either forced, in the tokens of Qwen's vocabulary, on a model of random weights, or drawn by a model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from acs_core.bench.subject import random_lvlm, random_prompts
from acs_core.generation.generate import Generations, generate
from acs_core.generation.prefill import prefill
from acs_core.generation.sample import sample_responses
from acs_core.generation.speculation import AnswerDrafts
from acs_core.generation.token_sampler import TeacherForcing
from acs_core.lvlm.base import LVLM
from acs_core.lvlm.loading import DTYPES, pick_device
from acs_core.lvlm.shapes import FIRST_WORD
from acs_core.types import SamplingConfig

# The tokens, of the vocabulary that Qwen2.5, Qwen3 and InternVL3 share, of two forms of answers; "#" is a number, of
# which each digit is a token, and "@" the phrase.
FORMS = {
    "in a code block": (
        *("```", "json", "\n", "[\n", "\t", '{"', "bbox", "_", "2", "d", '":', " ["),
        *("#", ",", " ", "#", ",", " ", "#", ",", " ", "#", "],"),
        *(' "', "label", '":', ' "', "@", '"}\n', "]\n", "```"),
    ),
    "indented": (
        *("[\n", " ", ' {"', "bbox", "_", "2", "d", '":', " ["),
        *("#", ",", " ", "#", ",", " ", "#", ",", " ", "#", "],"),
        *(' "', "label", '":', ' "', "@", '"}\n', "]"),
    ),
}
PHRASES = {"cup": ("cup",), "traffic light": ("traffic", " light")}


@dataclass(frozen=True)
class ForwardsRow:
    """Forwards of the language model, prefill not counted, for the same N responses.

    Attributes:
        answers: what the responses are.
        tokens: mean number of tokens of a response, with its end token.
        plain: forwards token by token.
        drafted: forwards with drafts.
        same: whether all responses are the same both ways.
    """

    answers: str
    tokens: float
    plain: int
    drafted: int
    same: bool

    @property
    def ratio(self) -> float:
        """``plain`` divided by ``drafted``."""
        return self.plain / self.drafted

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return {**vars(self), "ratio": self.ratio}


class PieceTokenizer:
    """Tokenizer of the few tokens of :data:`FORMS` and :data:`PHRASES`, with the part of the interface of transformers
    that :class:`acs_core.generation.speculation.AnswerDrafts` uses.

    Text is split at the longest tokens. A character that is in no token is the id after the last one.
    """

    def __init__(self) -> None:
        pieces = {p for form in FORMS.values() for p in form} | {p for own in PHRASES.values() for p in own}
        self.pieces = sorted((pieces - {"#", "@"}) | set("0123456789"), key=lambda p: (-len(p), p))
        self._ids = {piece: FIRST_WORD + i for i, piece in enumerate(self.pieces)}
        self._pattern = re.compile("|".join(map(re.escape, self.pieces)) + "|(?s:.)")

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        """Return the ids of ``text`` as ``input_ids``."""
        found = self._pattern.findall(text)
        return {"input_ids": [self._ids.get(piece, FIRST_WORD + len(self.pieces)) for piece in found]}

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``."""
        pieces = [*self.pieces, "\ufffd"]
        return "".join(pieces[i - FIRST_WORD] for i in ids)


def forced_text(form: str, phrase: str, chance: np.random.Generator, least: int = 20) -> str:
    """Return an answer of the form ``form`` about ``phrase`` with random coordinates from ``least`` to 999."""
    numbers = iter(chance.integers(least, 1000, 4).tolist())
    return "".join(str(next(numbers)) if p == "#" else phrase if p == "@" else p for p in FORMS[form])


def forced_forwards(shape: str, device: str, dtype: str, samples: int) -> list[ForwardsRow]:
    """Force ``samples`` answers of each form on a model of random weights, after one call with other numbers and
    another phrase.

    Raises:
        BenchError: there is no such shape.
    """
    lvlm = random_lvlm(shape, pick_device(device), DTYPES["float32" if dtype == "auto" else dtype])
    tokenizer = PieceTokenizer()
    chance = np.random.default_rng(0)
    (prompt,) = random_prompts(lvlm, 16)

    def write(phrase: str, texts: Sequence[str], drafts: AnswerDrafts | None) -> Generations:
        asked = replace(prompt, phrase=phrase)
        ids = [tokenizer(text)["input_ids"] for text in texts]
        state = prefill(lvlm, [asked], drafts=drafts)
        draw = TeacherForcing(ids, lvlm.eos_ids[0])
        return generate(lvlm, state, draw, len(ids), max(map(len, ids)) + 1, drafts=drafts)[0]

    rows = []
    for form in FORMS:
        drafts = AnswerDrafts(tokenizer, lvlm.eos_ids)

        write("cup", [forced_text(form, "cup", chance) for _ in range(samples)], drafts)
        texts = [forced_text(form, "traffic light", chance) for _ in range(samples)]
        plain = _counted(lvlm, partial(write, "traffic light", texts, None))
        rows.append(_row(f"forced, {form}", plain, _counted(lvlm, partial(write, "traffic light", texts, drafts))))
    return rows


def drawn_forwards(lvlm: LVLM, image: np.ndarray, phrase: str, samples: int, calls: int) -> list[ForwardsRow]:
    """Sample ``samples`` responses about ``image`` (H, W, 3) in each of ``calls`` calls with seeds from 0 on: what each
    call takes as the first one, and then what it takes after the others."""
    prompt = lvlm.prepare(image, phrase)
    rows = []
    for fresh in (True, False):
        found = []
        for seed in range(calls):
            if fresh:
                lvlm.learned.clear()
            config = SamplingConfig(num_samples=samples, seed=seed)
            plain = _counted(lvlm, partial(sample_responses, lvlm, prompt, replace(config, speculation=False)))
            found.append(_row("", plain, _counted(lvlm, partial(sample_responses, lvlm, prompt, config))))
        rows.append(
            ForwardsRow(
                f"drawn, {calls} " + ("first calls" if fresh else "calls after others about the picture"),
                float(np.mean([row.tokens for row in found])),
                sum(row.plain for row in found),
                sum(row.drafted for row in found),
                all(row.same for row in found),
            )
        )
    return rows


def _row(answers: str, plain: tuple[Generations, int], drafted: tuple[Generations, int]) -> ForwardsRow:
    ids, finished = plain[0].response_ids, plain[0].finished
    same = (ids, finished) == (drafted[0].response_ids, drafted[0].finished)
    tokens = [len(own) + done for own, done in zip(ids, finished, strict=True)]
    return ForwardsRow(answers, float(np.mean(tokens)), plain[1], drafted[1], same)


def _counted(lvlm: LVLM, write: Callable[[], Generations]) -> tuple[Generations, int]:
    """Return what ``write`` returns, and the number of forwards of the language model without the prefill."""
    count: list[None] = []
    hook = lvlm.text_model.register_forward_hook(lambda *_: count.append(None))
    try:
        return write(), len(count) - 1
    finally:
        hook.remove()
