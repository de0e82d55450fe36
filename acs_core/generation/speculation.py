"""Drafts of the tokens that a model probably writes next, learned from what it has written.

Most tokens of an answer are certain: the brackets, keys and commas of ``[{"bbox_2d": [``, the label, the end. A draft
of them costs a dictionary look-up each. :mod:`acs_core.generation.generate` runs the newest token of each response
together with its draft in one forward, selects the token at every place as if there were no draft, each with the random
number that its place has, and keeps what was selected up to and including the first token that differs from the draft.
The responses are those of decoding token by token, up to the rounding of products of other sizes; only the number of
forwards differs.

(Speculative decoding with a draft model, Leviathan et al. 2023, arXiv:2211.17192, accepts a draft with a probability;
here both ways draw with the same random number, so that not only the distribution but the response is the same.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from acs_core.lvlm.base import LVLM

MOST = 15  # tokens of a draft: with the newest token 16, the largest width of a recorded step
ORDERS = (16, 10, 7, 4)  # numbers of symbols before a token that predict it; the largest known one counts
_LEAST = 0.25  # share of the answers in which a draft must have gone on as it does
_CONTEXTS = 8192  # that are kept; the oldest go first
_MOST_COUNTED = 200  # per context; then all counts are halved, so that a model may change its template
_TAUGHT = 4  # responses of a batch that are learned from: the others hardly differ in their template
_SEEN = 96  # tokens before a token that are looked at

# Symbols beside token ids. A number is one symbol, whatever its digits.
_BEGIN, _END, _NUMBER = -1, -2, -3
_PHRASE = -10  # and below: one for each way to tokenise the phrase

# What models write in answer to the prompt, from test/helpers/answers/recorded.json: "{b}" is a box with its label. The
# first one counts most, so that a model's first answer is drafted as one of them and not as a mixture.
_BOX = '{{"bbox_2d": [{n}, {n}, {n}, {n}], "label": "{p}"}}'
_TEMPLATES = (
    "[{b}]",
    "[{b}]",
    "[{b}]",
    "[{b}, {b}]",
    "```json\n[\n\t{b}\n]\n```",
    "```json\n[\n\t{b},\n\t{b}\n]\n```",
    "[\n  {b}\n]",
)
_NUMBERS = ("27", "951", "8063", "64", "385", "1209")  # no digit of them is likely enough for a draft
_OBJECT, _TEMPLATE_WEIGHT = "object", 0.02  # of an answer; all templates together count less than one answer

_Context = tuple[tuple[int, ...], int]


class AnswerDrafts:
    """Predictor of the next tokens of the responses of one model.

    It counts which token follows the last symbols of a response: a symbol is a token, a number, or the phrase. It
    begins with some common templates. What it predicts changes no response, so nothing breaks where it learns nonsense.

    Args:
        tokenizer: tokenizer of transformers.
        end_ids: ids of the tokens that end a response.
    """

    def __init__(self, tokenizer: Any, end_ids: Iterable[int]) -> None:
        self._tokenizer, self._end_ids = tokenizer, frozenset(end_ids)
        self._counts: dict[_Context, dict[int, float]] = {}
        self._digits: dict[int, bool] = {}
        self._phrases: dict[str, tuple[tuple[int, ...], ...]] = {}
        self._drafted: dict[tuple[_Context, str], list[int]] = {}  # since the counts last changed
        for template in _TEMPLATES:
            for number in _NUMBERS:
                text = template.format(b=_BOX.format(n=number, p=_OBJECT))
                self._learn(self._ids(text), True, _OBJECT, _TEMPLATE_WEIGHT)

    def learn(self, responses: Sequence[Sequence[int]], finished: Sequence[bool], phrase: str) -> None:
        """Count the tokens of some of ``responses`` to a prompt about ``phrase``; their ids are without the end token,
        which ``finished`` ones have."""
        for ids, ended in list(zip(responses, finished, strict=True))[:_TAUGHT]:
            self._learn(ids, ended, phrase, 1.0)

    def _learn(self, ids: Sequence[int], finished: bool, phrase: str, weight: float) -> None:
        self._drafted.clear()
        history, run = [_BEGIN], 0
        for symbol in (*self._symbols(ids, phrase), *([_END] if finished else [])):
            for context in _contexts(history, run):
                self._count(context, symbol, weight)
            run = self._append(history, run, symbol)

    def draft(self, ids: Sequence[int], phrase: str, most: int = MOST) -> list[int]:
        """Return up to ``most`` tokens that probably follow the tokens ``ids`` of a response, possibly none."""
        late = ids[-_SEEN:]
        history, run = ([] if len(late) < len(ids) else [_BEGIN]), 0
        for symbol in self._symbols(late, phrase):
            run = self._append(history, run, symbol)
        # Only these symbols count, and most rows of a step share them: digits are no symbols of their own.
        known = (tuple(history[-max(ORDERS) :]), run), phrase
        if known not in self._drafted:
            if len(self._drafted) >= _CONTEXTS:
                self._drafted.clear()
            self._drafted[known] = self._draft_after(history, run, phrase)
        return self._drafted[known][:most]

    def _draft_after(self, history: list[int], run: int, phrase: str) -> list[int]:
        """Return up to MOST tokens that probably follow ``history`` and ``run`` digits."""
        ways = self._phrase_ids(phrase)
        drafted: list[int] = []
        certainty = 1.0
        while len(drafted) < MOST:
            symbol, share = self._likeliest(history, run)
            certainty *= share
            if symbol == _END or certainty < _LEAST or _PHRASE - symbol >= len(ways):
                break  # the last where a tokenizer writes this phrase in fewer ways than an earlier one
            drafted += ways[_PHRASE - symbol] if symbol <= _PHRASE else [symbol]
            run = self._append(history, run, symbol)
        return drafted[:MOST]

    def _likeliest(self, history: Sequence[int], run: int) -> tuple[int, float]:
        for context in _contexts(history, run):
            counts = self._counts.get(context)
            if counts:
                symbol = max(counts, key=counts.__getitem__)
                return symbol, counts[symbol] / sum(counts.values())
        return _END, 0.0

    def _count(self, context: _Context, symbol: int, weight: float) -> None:
        counts = self._counts.get(context)
        if counts is None:
            if len(self._counts) >= _CONTEXTS:
                del self._counts[next(iter(self._counts))]
            counts = self._counts[context] = {}
        counts[symbol] = counts.get(symbol, 0.0) + weight
        if sum(counts.values()) > _MOST_COUNTED:
            self._counts[context] = {s: c / 2 for s, c in counts.items() if c >= 1}

    def _append(self, history: list[int], run: int, symbol: int) -> int:
        """Add ``symbol`` to ``history``; return the number of digits that it now ends with, which are added as one
        number when the next symbol comes."""
        if symbol >= 0 and self._is_digit(symbol):
            return run + 1
        if run:
            history.append(_NUMBER)
        history.append(symbol)
        return 0

    def _symbols(self, ids: Sequence[int], phrase: str) -> Iterator[int]:
        ways = self._phrase_ids(phrase)
        beginnings = {way[0] for way in ways}
        i = 0
        while i < len(ids):
            way = None
            if ids[i] in beginnings:
                way = next((w for w, own in enumerate(ways) if tuple(ids[i : i + len(own)]) == own), None)
            yield ids[i] if way is None else _PHRASE - way
            i += 1 if way is None else len(ways[way])

    def _phrase_ids(self, phrase: str) -> tuple[tuple[int, ...], ...]:
        """Return the ids of the phrase at the start of a word and after a blank."""
        if phrase not in self._phrases:
            if len(self._phrases) >= 256:
                self._phrases.clear()
            ways = dict.fromkeys(self._ids(text) for text in (phrase, f" {phrase}"))
            self._phrases[phrase] = tuple(way for way in ways if way)
        return self._phrases[phrase]

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _is_digit(self, token: int) -> bool:
        if token not in self._digits:
            self._digits[token] = self._tokenizer.decode([token]).strip().isdigit()
        return self._digits[token]


def _contexts(history: Sequence[int], run: int) -> Iterator[_Context]:
    """Yield the contexts of a place, the longest first."""
    for length in dict.fromkeys(min(order, len(history)) for order in ORDERS):
        yield tuple(history[len(history) - length :]), run


def drafts_of(lvlm: LVLM) -> AnswerDrafts:
    """Return the drafts of a model, which its calls share and teach; the caller holds the model's lock."""
    kept = lvlm.learned
    if "drafts" not in kept:
        kept["drafts"] = AnswerDrafts(lvlm.tokenizer, lvlm.eos_ids)
    return kept["drafts"]
