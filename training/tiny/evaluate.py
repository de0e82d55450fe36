"""Quick evaluation of a model during training: batched greedy answers about validation images.

Finished models are evaluated through the engine itself (:mod:`training.tiny.report`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch

from acs_core.generation.candidates import parse_response
from acs_core.geometry import Box
from training.data.dataset import SMALL
from training.errors import DataError
from training.tiny.arch import Arch, frame_scale
from training.tiny.image_pool import Pictures
from training.tiny.questions import QuestionMaker
from training.world.world import SceneObject


@dataclass(frozen=True)
class Answered:
    """An answered question.

    Attributes:
        index: index of the image.
        phrase: the phrase.
        truth: the true object; None if the image shows none.
        text: the generated answer.
        box: the answered box in pixels; None if the answer has none.
    """

    index: int
    phrase: str
    truth: SceneObject | None
    text: str
    box: Box | None

    @property
    def iou(self) -> float:
        """IoU of the answered box with the true one; 0 if either is missing."""
        return self.box.iou(self.truth.box) if self.box and self.truth else 0.0


def small_cases(pictures: Pictures, limit: int) -> list[tuple[int, SceneObject]]:
    """Return (image index, object) of objects that cover 0.1-1 % of their image and are the only one of their category
    there.

    Raises:
        DataError: there is none.
    """
    area = pictures.size[0] * pictures.size[1]
    cases = [
        (i, o)
        for i, objects in enumerate(pictures.objects)
        for o in objects
        if sum(other.name == o.name for other in objects) == 1 and SMALL[0] <= o.box.area / area <= SMALL[1]
    ]
    if not cases:
        raise DataError("none of the pictures shows a small object that is alone in its category")
    return cases[:limit]


def absent_cases(pictures: Pictures, names: Sequence[str], limit: int, seed: int = 0) -> list[tuple[int, str]]:
    """Return (image index, name of an absent category), at most one per image."""
    rng = np.random.default_rng(seed)
    absent = [[n for n in names if all(o.name != n for o in objects)] for objects in pictures.objects]
    return [(i, str(rng.choice(there_not))) for i, there_not in enumerate(absent) if there_not][:limit]


@torch.no_grad()
def answer_all(
    arch: Arch, model: Any, processor: Any, maker: QuestionMaker, pictures: Pictures, asked: Sequence[tuple[int, str]]
) -> list[str]:
    """Return greedy answers to (image index, phrase) pairs whose questions are equally long, as those of the world's
    categories are."""
    texts: list[str] = []
    for at in range(0, len(asked), 64):
        part = asked[at : at + 64]
        ids = torch.tensor([[*maker.prefix.ids, *maker.question(phrase)] for _, phrase in part], device=model.device)
        shown = torch.from_numpy(pictures.pixels[[i for i, _ in part]]).to(model.device)
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            **arch.text_inputs(processor, ids),
            **arch.vision_inputs(shown),
            max_new_tokens=48,
            do_sample=False,
        )
        texts += processor.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
    return texts


def ask(
    arch: Arch, model: Any, processor: Any, maker: QuestionMaker, pictures: Pictures, names: Sequence[str], limit: int
) -> list[Answered]:
    """Answer questions about up to ``limit`` small objects and a quarter as many absent ones."""
    present = [(i, o.name, o) for i, o in small_cases(pictures, limit)]
    absent = [(i, name, None) for i, name in absent_cases(pictures, names, limit // 4)]
    cases: list[tuple[int, str, SceneObject | None]] = [*present, *absent]
    texts = answer_all(arch, model, processor, maker, pictures, [(i, phrase) for i, phrase, _ in cases])
    size, frame = pictures.size, arch.frame(*pictures.size)
    answered = []
    for (i, phrase, truth), text in zip(cases, texts, strict=True):
        parsed = parse_response(text, max_boxes=1)
        box = Box(*(float(v) for v in parsed[0].values / frame_scale(size, frame))) if parsed else None
        answered.append(Answered(i, phrase, truth, text, box))
    return answered


def summary(answers: Sequence[Answered], pictures: Pictures) -> dict[str, float]:
    """Return Acc@0.5, mIoU, and the shares of answers nearest to the true object, of answers without a readable box,
    and of refused absent objects."""
    present = [a for a in answers if a.truth is not None]
    absent = [a for a in answers if a.truth is None]
    right = sum(_nearest(a.box, pictures.objects[a.index]) is a.truth for a in present if a.box)
    return {
        "cases": len(present),
        "acc": round(sum(a.iou >= 0.5 for a in present) / len(present), 4),
        "miou": round(sum(a.iou for a in present) / len(present), 4),
        "right_object": round(right / len(present), 4),
        "no_box": round(sum(a.box is None for a in present) / len(present), 4),
        "refused": round(sum(a.text.strip() == "[]" for a in absent) / max(1, len(absent)), 4),
    }


def sheet(answers: Sequence[Answered], pictures: Pictures, count: int = 6) -> np.ndarray:
    """Return the first answer about each of ``count`` images, side by side, RGB: the true box in green, the answered
    one in red."""
    first = {a.index: a for a in reversed(answers)}
    tiles = []
    for index in sorted(first)[:count]:
        a, tile = first[index], pictures.pixels[index].copy()
        for box, colour in ((a.truth.box if a.truth else None, (0, 220, 0)), (a.box, (230, 0, 0))):
            if box is not None:
                x1, y1, x2, y2 = (round(v) for v in box.as_tuple())
                cv2.rectangle(tile, (x1, y1), (x2 - 1, y2 - 1), colour, 1)
        cv2.putText(tile, f"{a.phrase} {a.iou:.2f}", (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 0), 1)
        tiles.append(tile)
    return np.concatenate(tiles, axis=1)


def _nearest(box: Box, objects: Sequence[SceneObject]) -> SceneObject:
    x, y = box.center
    return min(objects, key=lambda o: (o.box.center[0] - x) ** 2 + (o.box.center[1] - y) ** 2)
