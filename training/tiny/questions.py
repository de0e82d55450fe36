"""Questions about pictures and their answers, as token ids: many questions behind one image prefix."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from acs_core.lvlm.prompt import localization_prompt
from training.tiny.arch import Arch, frame_scale, token_at
from training.world import SceneObject

IGNORED = -100
MOST_BOXES = 4  # in one answer; a picture with more of one category asks about others


def in_reading_order(name: str, objects: Sequence[SceneObject]) -> list[SceneObject]:
    """The objects called ``name`` from top to bottom, as an answer lists them."""
    return sorted((o for o in objects if o.name == name), key=lambda o: (o.box.y1, o.box.x1))


def answer_text(name: str, objects: Sequence[SceneObject], size: tuple[int, int], frame: tuple[int, int]) -> str:
    """The JSON answer about a picture of ``size`` (width, height): every object called ``name``, from top to bottom,
    in the model's ``frame``."""
    asked = in_reading_order(name, objects)
    scale = frame_scale(size, frame)
    items = [{"bbox_2d": np.round(scale * o.box.as_tuple()).astype(int).tolist(), "label": name} for o in asked]
    return json.dumps(items)


@dataclass(frozen=True)
class Turns:
    """B pictures with questions behind one shared image prefix each, T tokens.

    ``ids`` and ``labels`` (B, T) int64; ``block`` (B, T) int64: 0 the prefix, then one number a question, -1 padding;
    ``positions`` (B, T) or (3, B, T): every question starts where the prefix ends. ``image`` is (start, stop) of the
    image tokens. ``emits`` (M, 2) int64 are the (picture, row) pairs that open a box or emit its first digit, or say
    that there is none; ``keys`` (M,) int64 is the column of the image token with the object's centre, 0 where there is
    none.
    """

    ids: torch.Tensor
    labels: torch.Tensor
    block: torch.Tensor
    positions: torch.Tensor
    image: tuple[int, int]
    emits: torch.Tensor
    keys: torch.Tensor

    @property
    def mask(self) -> torch.Tensor:
        """(B, 1, T, T) bool, True where row may see column: a question sees the prefix and itself, never another
        question."""
        row, column = self.block[:, :, None], self.block[:, None]
        return ((row == column) | (column == 0)).tril()[:, None]

    def to(self, device: str) -> Turns:
        """The same on another device."""
        return replace(
            self,
            ids=self.ids.to(device),
            labels=self.labels.to(device),
            block=self.block.to(device),
            positions=self.positions.to(device),
            emits=self.emits.to(device),
            keys=self.keys.to(device),
        )


@dataclass(frozen=True)
class Prefix:
    """The prompt up to the end of the picture: ``ids`` (P,), ``positions`` (1, P) or (3, 1, P), and (start, stop) of
    the image tokens."""

    ids: tuple[int, ...]
    positions: torch.Tensor
    image: tuple[int, int]


class QuestionMaker:
    """Turns what pictures of one size show into :class:`Turns`, through the processor's own chat template."""

    def __init__(self, arch: Arch, model: Any, processor: Any, names: Sequence[str], size: tuple[int, int]) -> None:
        self._arch, self._processor, self._names, self.size = arch, processor, list(names), size
        self._tokens: dict[str, list[int]] = {}
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
        """Token ids of the prompt behind the image, up to where the answer starts."""
        if phrase not in self._tokens:
            self._tokens[phrase] = self._ids(self._chat(phrase).split(str(self._processor.image_token))[1])
        return self._tokens[phrase]

    def pick(
        self, rng: np.random.Generator, objects: Sequence[SceneObject], most: int, absent_share: float
    ) -> list[str]:
        """Up to ``most`` phrases about one picture: what is in it, each once, in random order, each turned with
        ``absent_share`` into something that is not."""
        names = [o.name for o in objects]
        present = sorted({n for n in names if names.count(n) <= MOST_BOXES})
        absent = [n for n in self._names if n not in names]
        rng.shuffle(present)
        return [str(rng.choice(absent)) if rng.random() < absent_share else n for n in present[:most] or absent[:1]]

    def no_question(self, count: int) -> Turns:
        """The prefix alone, for ``count`` pictures, plainly causal."""
        ids = torch.tensor([self.prefix.ids]).expand(count, -1)
        none = torch.zeros(0, dtype=torch.int64)
        labels, block = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
        return Turns(ids, labels, block, self.prefix.positions, self.prefix.image, none.reshape(0, 2), none)

    def turns(self, scenes: Sequence[Sequence[SceneObject]], phrases: Sequence[Sequence[str]]) -> Turns:
        """Builds the sequences for ``scenes`` and the ``phrases`` asked of each, padded to the longest."""
        rows = [
            [self._turn(phrase, objects) for phrase in wanted] for objects, wanted in zip(scenes, phrases, strict=True)
        ]
        start = len(self.prefix.ids)
        total = start + max(sum(len(q) + len(a) for q, a in row) for row in rows)
        ids, labels = np.zeros((len(rows), total), np.int64), np.full((len(rows), total), IGNORED)
        block = np.full((len(rows), total), -1)
        after = np.zeros((len(rows), total - start), np.int64)  # position behind the prefix
        emits, keys = [], list[int]()
        ids[:, :start], block[:, :start] = self.prefix.ids, 0
        for b, row in enumerate(rows):
            at = start
            for k, ((question, answer), phrase) in enumerate(zip(row, phrases[b], strict=True)):
                stop = at + len(question) + len(answer)
                ids[b, at:stop] = question + answer
                labels[b, at + len(question) : stop] = answer
                block[b, at:stop] = k + 1
                after[b, at - start : stop - start] = np.arange(stop - at)
                for offset, key in self._looks(answer, phrase, scenes[b]):
                    emits.append((b, at + len(question) + offset - 1))  # a token is emitted one row before its own
                    keys.append(key)
                at = stop
        lead = self.prefix.positions.expand(*self.prefix.positions.shape[:-2], len(rows), -1)
        behind = int(self.prefix.positions.max()) + 1 + torch.from_numpy(after)
        positions = torch.cat([lead, behind.expand(*lead.shape[:-1], -1)], dim=-1)
        return Turns(
            torch.from_numpy(ids),
            torch.from_numpy(labels),
            torch.from_numpy(block),
            positions,
            self.prefix.image,
            torch.tensor(emits, dtype=torch.int64).reshape(-1, 2),
            torch.tensor(keys, dtype=torch.int64),
        )

    def _looks(self, answer: Sequence[int], phrase: str, objects: Sequence[SceneObject]) -> Iterator[tuple[int, int]]:
        """(place in the answer, column of its object's image token) of the tokens that open a box and of the first
        digit of each: later digits can be looked up by the digits before them, these only by what is asked for. An
        answer without a box looks at column 0."""
        rows, columns = self._arch.grid(*self.size)
        places = (token_at(o.box, self.size, (rows, columns)) for o in in_reading_order(phrase, objects))
        cells = [row * columns + column for row, column in places]
        if not cells:
            yield 0, 0
        openings = (offset for offset, token in enumerate(answer) if token in self._openings)
        for offset, cell in zip(openings, cells, strict=True):
            yield offset, self.prefix.image[0] + cell
            yield offset + 1, self.prefix.image[0] + cell

    def _turn(self, phrase: str, objects: Sequence[SceneObject]) -> tuple[list[int], list[int]]:
        answer = answer_text(phrase, objects, self.size, self._arch.frame(*self.size))
        return self.question(phrase), [*self._ids(answer), self._processor.tokenizer.eos_token_id]
