"""Wrong answers that the last phase teaches, so that the samples of one question differ in the object.

A model that learns the truth alone, or the truth and refusals, errs by pixels: its samples lie on one object, and their
mean is better than each of them. Large models err in another way: some samples lie on another object or on the
background. Here a share of the answers, larger for smaller objects, is the exact box of another object, or a box on the
background. Attention is not supervised for boxes on the background, since they show no object.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from acs_core.geometry import Box
from training.data.dataset import SMALL
from training.data.phrases import by_phrase
from training.world.scene import LOOKALIKES, SceneObject

TRIES = 20  # random boxes that are tried before one on an object is accepted


@dataclass(frozen=True)
class AnswerBox:
    """A box of an answer; ``supervised``: whether the attention on it is supervised."""

    box: Box
    supervised: bool = True


@dataclass(frozen=True)
class Mistakes:
    """Shares of the answers about a single object that are wrong.

    Attributes:
        smallest: share for an object that covers 0.1 % of the image.
        small: share for one that covers 1 %; between them the share is linear in the logarithm of the area.
        larger: share for objects above 1 %.
        background: share of the wrong answers that are boxes on the background; the others are another object's.
        alike: share of the wrong objects that are look-alikes, where the scene has one.
        spread: standard deviation of the centres of boxes on the background, as a fraction of the image's sides.
    """

    smallest: float
    small: float
    larger: float
    background: float = 0.4
    alike: float = 0.8
    spread: float = 0.2

    def answer(
        self, rng: np.random.Generator, phrase: str, objects: Sequence[SceneObject], size: tuple[int, int]
    ) -> AnswerBox | None:
        """Draw the wrong answer about ``phrase`` in an image of ``size`` (width, height).

        Returns None if the answer is to be the truth, as for what is absent and for several objects of one phrase.
        Objects of the same category in other colours count as look-alikes.
        """
        mine = by_phrase(objects).get(phrase, [])
        if len(mine) != 1 or rng.random() >= self._share(mine[0].box, size):
            return None
        name, others = mine[0].name, [o for o in objects if o is not mine[0]]
        if not others or rng.random() < self.background:
            return AnswerBox(_on_background(rng, objects, size, self.spread), supervised=False)
        alike = [o for o in others if any({name, o.name} <= set(group) for group in LOOKALIKES)]
        drawn_from = alike if alike and rng.random() < self.alike else others
        return AnswerBox(drawn_from[int(rng.integers(len(drawn_from)))].box)

    def _share(self, box: Box, size: tuple[int, int]) -> float:
        area = box.area / (size[0] * size[1])
        if area > SMALL[1]:
            return self.larger
        place = min(1.0, max(0.0, math.log(area / SMALL[0]) / math.log(SMALL[1] / SMALL[0])))
        return self.smallest + (self.small - self.smallest) * place


def _on_background(
    rng: np.random.Generator, objects: Sequence[SceneObject], size: tuple[int, int], spread: float
) -> Box:
    """Draw a box of a small object's area that meets none of ``objects``, if TRIES draws find one."""
    width, height = size
    low, high = SMALL
    for _ in range(TRIES):
        area = low * (high / low) ** rng.random() * width * height
        aspect = math.exp(0.3 * rng.standard_normal())
        w, h = math.sqrt(area * aspect), math.sqrt(area / aspect)
        x, y = np.clip(rng.normal(0.5, spread, 2), 0.03, 0.97) * (width, height)
        box = Box(max(0.0, x - w / 2), max(0.0, y - h / 2), min(width, x + w / 2), min(height, y + h / 2))
        if not any(box.iou(o.box) for o in objects):
            break
    return box
