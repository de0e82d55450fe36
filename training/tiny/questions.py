"""Questions about images and their answers as token ids, with many questions that share one image prefix."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from acs_core.geometry import Box
from acs_core.lvlm.prompt import localization_prompt
from acs_core.types import COORDINATES
from training.data.phrases import by_phrase, coloured
from training.tiny.arch import Arch, frame_scale, token_at
from training.tiny.mistakes import AnswerBox
from training.world.colours import COLOURS
from training.world.world import SceneObject

IGNORED = -100
WRONG_COLOUR = 0.2
UNKNOWN_WORD = 0.2
LETTERS, VOWELS = "abcdefghijklmnopqrstuvwxyz", "aeiou"
MOST_BOXES = 4  # maximum per answer; categories with more objects in an image are not asked for


def in_reading_order(phrase: str, objects: Sequence[SceneObject]) -> list[SceneObject]:
    """Return the objects that ``phrase`` names from top to bottom, the order of answers."""
    return sorted(by_phrase(objects).get(phrase, ()), key=lambda o: (o.box.y1, o.box.x1))


def boxes_text(name: str, boxes: Sequence[Box], size: tuple[int, int], frame: tuple[int, int]) -> str:
    """Return the JSON answer with these ``boxes`` in an image of ``size`` (width, height), in the model's ``frame``."""
    scale = frame_scale(size, frame)
    items = [{"bbox_2d": np.round(scale * box.as_tuple()).astype(int).tolist(), "label": name} for box in boxes]
    return json.dumps(items)


def made_up(rng: np.random.Generator, names: Sequence[str]) -> str:
    """Return a random word that is not in ``names``: of syllables, or, in half of the cases, of any letters. One in ten
    follows a colour."""
    while True:
        if rng.random() < 0.5:
            letters = [str(rng.choice([*part])) for _ in range(rng.integers(1, 4)) for part in (LETTERS, VOWELS)]
            letters += [str(rng.choice([*LETTERS]))] * int(rng.integers(2))
        else:
            letters = rng.choice([*LETTERS], int(rng.integers(3, 10))).tolist()
        word = "".join(letters)
        if word not in names and word not in COLOURS:
            return coloured(str(rng.choice([*COLOURS])), word) if rng.random() < 0.1 else word


@dataclass(frozen=True)
class Turns:
    """Token sequences of B images, each with an image prefix and the questions and answers that share it; T tokens.

    Attributes:
        ids: (B, T) int64 token ids.
        labels: (B, T) int64 targets of the language loss.
        later: (B, T) bool, True for the labels from the first digit of a box's y1 to the token after its y2.
        block: (B, T) int64: 0 for the prefix, then one number per question, -1 for padding.
        positions: (B, T) or (3, B, T) rope positions: every question starts where the prefix ends.
        image: (start, stop) of the image tokens.
        emits: (M, 2) int64 (image, row) pairs of the tokens that open a box, emit the first digit of a coordinate, or
            state that there is no box; those of one image are adjacent.
        keys: (M,) int64 column of the image token with the object's centre, 0 without an object.
    """

    ids: torch.Tensor
    labels: torch.Tensor
    later: torch.Tensor
    block: torch.Tensor
    positions: torch.Tensor
    image: tuple[int, int]
    emits: torch.Tensor
    keys: torch.Tensor

    @property
    def mask(self) -> torch.Tensor:
        """Attention mask, (B, 1, T, T) bool, True where a row may attend to a column: a question attends to the prefix
        and itself, never to another question."""
        row, column = self.block[:, :, None], self.block[:, None]
        return ((row == column) | (column == 0)).tril()[:, None]

    def to(self, device: str) -> Turns:
        """Return the sequences on another device."""
        return replace(
            self,
            ids=self.ids.to(device),
            labels=self.labels.to(device),
            later=self.later.to(device),
            block=self.block.to(device),
            positions=self.positions.to(device),
            emits=self.emits.to(device),
            keys=self.keys.to(device),
        )


@dataclass(frozen=True)
class Prefix:
    """Prompt up to the end of the image.

    Attributes:
        ids: (P,) token ids.
        positions: (1, P) or (3, 1, P) rope positions.
        image: (start, stop) of the image tokens.
    """

    ids: tuple[int, ...]
    positions: torch.Tensor
    image: tuple[int, int]


class QuestionMaker:
    """Factory of :class:`Turns` for images of one size, with the chat template of the processor."""

    def __init__(self, arch: Arch, model: Any, processor: Any, names: Sequence[str], size: tuple[int, int]) -> None:
        self._arch, self._processor, self._names, self.size = arch, processor, list(names), size
        self._tokens: dict[str, list[int]] = {}
        self._digits = {self._ids(digit)[0] for digit in "0123456789"}
        self._openings = {self._ids(text)[0] for text in ('[{"bbox_2d": [', '"}, {"bbox_2d": [')}
        token = str(processor.image_token)
        ids = self._ids(self._chat(self._names[0]).split(token)[0] + arch.image_text(processor, *size))
        at = [i for i, t in enumerate(ids) if t == processor.image_token_id]
        positions = arch.prefix_positions(model, torch.tensor([ids]), *size)
        self.prefix = Prefix(tuple(ids), positions, (at[0], at[-1] + 1))

    def _chat(self, phrase: str) -> str:
        content: Any = [{"type": "image"}, {"type": "text", "text": localization_prompt(phrase)}]
        chat = self._processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        return str(chat)

    def _ids(self, text: str) -> list[int]:
        return list(self._processor.tokenizer(text, add_special_tokens=False).input_ids)

    def question(self, phrase: str) -> list[int]:
        """Return the token ids of the prompt from the end of the image to the start of the answer."""
        if phrase not in self._tokens:
            self._tokens[phrase] = self._ids(self._chat(phrase).split(str(self._processor.image_token))[1])
        return self._tokens[phrase]

    def pick(
        self, rng: np.random.Generator, objects: Sequence[SceneObject], most: int, absent_share: float
    ) -> list[str]:
        """Draw up to ``most`` phrases for one image: those of its objects, each once, in random order.

        Each is replaced with probability ``absent_share`` by a phrase for something absent: a made-up word with
        probability UNKNOWN_WORD, otherwise a category, or, with probability WRONG_COLOUR where there are painted
        objects, another colour of one of them.
        """
        phrases = by_phrase(objects)
        present = sorted(phrase for phrase, found in phrases.items() if len(found) <= MOST_BOXES)
        names = {o.name for o in objects}
        absent = [n for n in self._names if n not in names]
        shown = {(o.name, o.colour) for o in objects}
        painted = sorted({o.name for o in objects if o.colour})
        wrong = [coloured(c, n) for n in painted for c in COLOURS if (n, c) not in shown and (n, "") not in shown]

        def draw() -> str:
            if rng.random() < UNKNOWN_WORD:
                return made_up(rng, self._names)
            return str(rng.choice(wrong if wrong and rng.random() < WRONG_COLOUR else absent))

        rng.shuffle(present)
        return [draw() if rng.random() < absent_share else phrase for phrase in present[:most] or absent[:1]]

    def no_question(self, count: int) -> Turns:
        """Return the prefix alone, for ``count`` images, with a causal mask."""
        ids = torch.tensor([self.prefix.ids]).expand(count, -1)
        none = torch.zeros(0, dtype=torch.int64)
        labels, block = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
        later = torch.zeros_like(ids, dtype=torch.bool)
        prefix, emits = self.prefix, none.reshape(0, 2)
        return Turns(ids, labels, later, block, prefix.positions, prefix.image, emits, none)

    def true_answer(self, phrase: str, objects: Sequence[SceneObject]) -> tuple[AnswerBox, ...]:
        """Return the boxes of all objects called ``phrase``, in the order of answers."""
        return tuple(AnswerBox(o.box) for o in in_reading_order(phrase, objects))

    def turns(
        self,
        phrases: Sequence[Sequence[str]],
        answers: Sequence[Sequence[Sequence[AnswerBox]]],
        all_coordinates: bool = False,
    ) -> Turns:
        """Build the sequences for B images, padded to the longest.

        Args:
            phrases: phrases of each image.
            answers: boxes of the answer to each phrase of each image.
            all_coordinates: whether attention is supervised at the first digit of all coordinates of a box, not only of
                the first.
        """
        rows = [
            [self._turn(phrase, boxes) for phrase, boxes in zip(*row, strict=True)]
            for row in zip(phrases, answers, strict=True)
        ]
        start = len(self.prefix.ids)
        total = start + max(sum(len(q) + len(a) for q, a in row) for row in rows)
        ids, labels = np.zeros((len(rows), total), np.int64), np.full((len(rows), total), IGNORED)
        block, later = np.full((len(rows), total), -1), np.zeros((len(rows), total), bool)
        after = np.zeros((len(rows), total - start), np.int64)  # position relative to the end of the prefix
        emits, keys = [], list[int]()
        ids[:, :start], block[:, :start] = self.prefix.ids, 0
        for b, row in enumerate(rows):
            at = start
            for k, ((question, answer), boxes) in enumerate(zip(row, answers[b], strict=True)):
                stop = at + len(question) + len(answer)
                ids[b, at:stop] = question + answer
                labels[b, at + len(question) : stop] = answer
                later[b, at + len(question) : stop] = self._later(answer)
                block[b, at:stop] = k + 1
                after[b, at - start : stop - start] = np.arange(stop - at)
                for offset, key in self._looks(answer, boxes, len(COORDINATES) if all_coordinates else 1):
                    emits.append((b, at + len(question) + offset - 1))  # the row before a token emits it
                    keys.append(key)
                at = stop
        lead = self.prefix.positions.expand(*self.prefix.positions.shape[:-2], len(rows), -1)
        behind = int(self.prefix.positions.max()) + 1 + torch.from_numpy(after)
        positions = torch.cat([lead, behind.expand(*lead.shape[:-1], -1)], dim=-1)
        return Turns(
            torch.from_numpy(ids),
            torch.from_numpy(labels),
            torch.from_numpy(later),
            torch.from_numpy(block),
            positions,
            self.prefix.image,
            torch.tensor(emits, dtype=torch.int64).reshape(-1, 2),
            torch.tensor(keys, dtype=torch.int64),
        )

    def _looks(self, answer: Sequence[int], boxes: Sequence[AnswerBox], coordinates: int) -> Iterator[tuple[int, int]]:
        """Yield (index in the answer, column of the object's image token) of the tokens that open a supervised box and
        of the first digits of its first ``coordinates``.

        Later digits can be found from the digits before them, these only from the phrase. An answer without a box
        yields column 0.
        """
        if not boxes:
            yield 0, 0
        rows, columns = self._arch.grid(*self.size)
        openings = (offset for offset, token in enumerate(answer) if token in self._openings)
        for chosen, opening in zip(boxes, openings, strict=True):
            if not chosen.supervised:
                continue
            row, column = token_at(chosen.box, self.size, (rows, columns))
            cell = self.prefix.image[0] + row * columns + column
            yield opening, cell
            for offset in islice(self._first_digits(answer, opening), coordinates):
                yield offset, cell

    def _first_digits(self, answer: Sequence[int], opening: int) -> Iterator[int]:
        """Yield the index of the first digit of each number after ``opening``."""
        for i in range(opening + 1, len(answer)):
            if answer[i] in self._digits and answer[i - 1] not in self._digits:
                yield i

    def _later(self, answer: Sequence[int]) -> list[bool]:
        """Return, for each token of ``answer``, whether it lies between the first digit of a box's second number and
        the token after its last number, both included."""
        found, numbers = [False] * len(answer), 0
        for i, token in enumerate(answer):
            if token in self._openings:
                numbers = 0
            numbers += token in self._digits and answer[i - 1] not in self._digits
            digit = token in self._digits or answer[i - 1] in self._digits
            found[i] = 1 < numbers <= len(COORDINATES) and (digit or numbers < len(COORDINATES))
        return found

    def _turn(self, phrase: str, boxes: Sequence[AnswerBox]) -> tuple[list[int], list[int]]:
        answer = boxes_text(phrase, [b.box for b in boxes], self.size, self._arch.frame(*self.size))
        return self.question(phrase), [*self._ids(answer), self._processor.tokenizer.eos_token_id]
