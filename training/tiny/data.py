"""What the embedded model learns from: rendered pictures kept on disk, and questions about them as token ids."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from acs_core.geometry import Box
from acs_core.lvlm.processors import InternVLProcessor
from acs_core.lvlm.prompt import localization_prompt
from training.sprites import Sprite
from training.tiny.model import IMAGE_MEAN, IMAGE_STD
from training.world import SceneObject, WorldConfig, render_scene

IGNORED = -100


@dataclass(frozen=True)
class Pictures:
    """``pixels`` (N, R, R, 3) uint8, on disk; ``objects`` N tuples of what each shows."""

    pixels: np.ndarray
    objects: tuple[tuple[SceneObject, ...], ...]


def render_pictures(
    folder: Path,
    count: int,
    seed: int,
    sprites: Sequence[Sprite],
    config: WorldConfig,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Pictures:
    """``count`` scenes of ``seed``, drawn once and kept in ``folder`` for the next start."""
    stem = folder / f"pictures-{seed}-{count}-{config.min_objects}-{config.max_objects}"
    pixel_file, object_file = stem.with_suffix(".npy"), stem.with_suffix(".json")
    if not object_file.exists():  # written last, so it stands for a complete pair
        folder.mkdir(parents=True, exist_ok=True)
        shape = (count, config.size, config.size, 3)
        pixels = np.lib.format.open_memmap(pixel_file, mode="w+", dtype=np.uint8, shape=shape)
        rng, described = np.random.default_rng(seed), []
        for i in range(count):
            scene = render_scene(rng, sprites, config)
            pixels[i] = scene.image
            described.append([[o.name, *o.box.as_tuple(), o.area] for o in scene.objects])
            progress(i + 1, count)
        pixels.flush()
        object_file.write_text(json.dumps(described))
    described = json.loads(object_file.read_text())
    objects = tuple(tuple(SceneObject(o[0], Box(*o[1:5]), o[5]) for o in scene) for scene in described)
    return Pictures(np.load(pixel_file, mmap_mode="r"), objects)


def normalised(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (B, R, R, 3) as the image processor would give it: float32 (B, 3, R, R)."""
    mean, std = torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD)
    x = torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255
    return ((x - mean) / std).permute(0, 3, 1, 2).contiguous()


def answer_text(name: str, objects: Sequence[SceneObject], image_size: int) -> str:
    """The JSON answer: every object called ``name``, from top to bottom, in 0-1000 of the picture."""
    asked = sorted((o for o in objects if o.name == name), key=lambda o: (o.box.y1, o.box.x1))
    items = [{"bbox_2d": [round(v * 1000 / image_size) for v in o.box.as_tuple()], "label": name} for o in asked]
    return json.dumps(items)


@dataclass(frozen=True)
class Turns:
    """B pictures with K questions each behind one shared image prefix of P tokens; T = P + K * (question length).

    ``ids`` and ``labels`` (B, T) int64; ``mask`` (1, 1, T, T) bool, True where row may see column: a question sees
    the prefix and itself, never another question; ``positions`` (1, T): every question starts at P.
    """

    ids: torch.Tensor
    labels: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor


class QuestionMaker:
    """Turns what pictures show into :class:`Turns`, through the processor's own chat template."""

    def __init__(self, processor: InternVLProcessor, names: Sequence[str], image_size: int) -> None:
        self._processor, self._names, self._image_size = processor, list(names), image_size
        self._tokens: dict[str, list[int]] = {}
        text = self._chat(self._names[0])
        head, self._image_token = text.split("<IMG_CONTEXT>")[0], "<IMG_CONTEXT>"
        image = processor.start_image_token + self._image_token * processor.image_seq_length + processor.end_image_token
        self.prefix = self._ids(head + image)

    def _chat(self, phrase: str) -> str:
        content: Any = [{"type": "image"}, {"type": "text", "text": localization_prompt(phrase)}]
        chat = self._processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        return str(chat)

    def _ids(self, text: str) -> list[int]:
        return list(self._processor.tokenizer(text, add_special_tokens=False).input_ids)

    def question(self, phrase: str) -> list[int]:
        """Token ids of the prompt behind the image, up to where the answer starts."""
        if phrase not in self._tokens:
            self._tokens[phrase] = self._ids(self._chat(phrase).split("<IMG_CONTEXT>")[1])
        return self._tokens[phrase]

    def pick(
        self, rng: np.random.Generator, objects: Sequence[SceneObject], count: int, absent_share: float
    ) -> list[str]:
        """``count`` phrases about one picture: what is in it in random order, now and then something that is not."""
        present = sorted({o.name for o in objects})
        rng.shuffle(present)
        if not present or rng.random() < absent_share * count:
            absent = [n for n in self._names if n not in present]
            present = [str(rng.choice(absent)), *present]
        return [present[i % len(present)] for i in range(count)]

    def turns(self, scenes: Sequence[Sequence[SceneObject]], phrases: Sequence[Sequence[str]]) -> Turns:
        """Builds the sequences for ``scenes`` and the ``phrases`` asked of each (the same number for all)."""
        eos = self._processor.tokenizer.eos_token_id
        asked = [
            [(self.question(p), [*self._ids(answer_text(p, objects, self._image_size)), eos]) for p in wanted]
            for objects, wanted in zip(scenes, phrases, strict=True)
        ]
        start, turns = len(self.prefix), len(phrases[0])
        length = max(len(q) + len(a) for row in asked for q, a in row)
        total = start + turns * length
        ids = np.zeros((len(asked), total), np.int64)
        labels = np.full((len(asked), total), IGNORED)
        ids[:, :start] = self.prefix
        for b, row in enumerate(asked):
            for k, (q, a) in enumerate(row):
                at = start + k * length
                ids[b, at : at + len(q) + len(a)] = q + a
                labels[b, at + len(q) : at + len(q) + len(a)] = a
        block = np.concatenate([np.zeros(start, int), 1 + np.arange(turns).repeat(length)])
        sees = (block[:, None] == block[None]) | (block[None] == 0)
        mask = np.tril(np.ones((total, total), bool)) & sees
        positions = np.concatenate([np.arange(start), start + np.tile(np.arange(length), turns)])
        return Turns(
            torch.from_numpy(ids),
            torch.from_numpy(labels),
            torch.from_numpy(mask)[None, None],
            torch.from_numpy(positions)[None],
        )
