"""How well an embedded LVLM grounds: greedy answers about pictures that it has not seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from acs_core.geometry import Box
from acs_core.lvlm.processors import InternVLProcessor
from acs_core.parsing import parse_response
from training.coco import SMALL
from training.errors import DataError
from training.tiny.data import Pictures, QuestionMaker, normalised
from training.world import SceneObject


def small_cases(pictures: Pictures, limit: int) -> Iterator[tuple[int, SceneObject]]:
    """(picture, object) of objects of 0.1-1 % of the picture that are the only one of their category in it."""
    area = pictures.pixels.shape[1] * pictures.pixels.shape[2]
    found = 0
    for i, objects in enumerate(pictures.objects):
        for o in objects:
            alone = sum(other.name == o.name for other in objects) == 1
            if alone and SMALL[0] <= o.box.area / area <= SMALL[1] and found < limit:
                found += 1
                yield i, o


@torch.no_grad()
def greedy_accuracy(
    model: Any, processor: InternVLProcessor, pictures: Pictures, limit: int = 2225
) -> dict[str, float]:
    """Acc@0.5, mIoU, the share of unparseable answers and of answers nearest to the asked object, on small objects."""
    cases = list(small_cases(pictures, limit))
    if not cases:
        raise DataError("none of the pictures shows a small object that is alone in its category")
    size = pictures.pixels.shape[1]
    maker = QuestionMaker(processor, sorted({o.name for _, o in cases}), size)
    ious, right, broken = [], 0, 0
    by_length: dict[int, list[tuple[int, SceneObject]]] = {}
    for case in cases:
        by_length.setdefault(len(maker.question(case[1].name)), []).append(case)
    for group in by_length.values():
        for at in range(0, len(group), 64):
            part = group[at : at + 64]
            ids = torch.tensor([maker.prefix + maker.question(o.name) for _, o in part], device=model.device)
            out = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=normalised(pictures.pixels[[i for i, _ in part]]).to(model.device),
                max_new_tokens=48,
                do_sample=False,
            )
            texts = processor.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
            for (i, o), text in zip(part, texts, strict=True):
                parsed = parse_response(text, max_boxes=1)
                if not parsed:
                    broken += 1
                    ious.append(0.0)
                    continue
                box = Box(*(v * size / 1000 for v in parsed[0].values))
                ious.append(box.iou(o.box))
                right += min(pictures.objects[i], key=lambda other: _distance(other.box, box)) is o
    count = len(cases)
    return {
        "cases": count,
        "acc": round(sum(v >= 0.5 for v in ious) / count, 4),
        "miou": round(sum(ious) / count, 4),
        "right_object": round(right / count, 4),
        "no_box": round(broken / count, 4),
    }


def _distance(a: Box, b: Box) -> float:
    return (a.center[0] - b.center[0]) ** 2 + (a.center[1] - b.center[1]) ** 2
