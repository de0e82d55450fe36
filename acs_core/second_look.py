"""The second look: the part of the picture around the first answer, enlarged, asked about once more. Not the paper's.

A model sees a picture through so many image tokens, and writes a coordinate with so many digits. Of an object that is
small in the picture it sees little and tells it coarsely; enlarged, it sees more and tells it finer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from acs_core.geometry import Box
from acs_core.types import Candidate, Response

if TYPE_CHECKING:  # a command's --help must not wait for torch
    from acs_core.attention import Evidence
    from acs_core.choice import Choice

ROOM = 2 / 3  # share of the window's sides that a box may take up: a larger one gains nothing, and may be cut
_SEED_STEP = 1_000_000_007  # so that the responses of both looks are drawn independently


@dataclass(frozen=True)
class SecondLook:
    """How to look again. The window's sides are those of the picture divided by ``zoom`` > 1; ``samples`` responses are
    drawn, by default half as many as in the first look, rounded up.

    Raises:
        ValueError: a value is out of its range.
    """

    zoom: float = 2.0
    samples: int | None = None

    def __post_init__(self) -> None:
        if not 1.0 < self.zoom <= 16.0:
            raise ValueError(f"zoom must be above 1 and at most 16, got {self.zoom}")
        if self.samples is not None and self.samples < 1:
            raise ValueError(f"a second look needs at least 1 sample, got {self.samples}")

    def samples_after(self, first: int) -> int:
        """How many responses to draw after a first look of ``first``."""
        return self.samples or -(-first // 2)


@dataclass(frozen=True)
class Window:
    """The part ``box`` of a picture of ``image_size`` (width, height), in pixels, both of the same shape. Where it is
    enlarged to the picture's own size, its points have coordinates of their own: "in the window"."""

    box: Box
    image_size: tuple[int, int]

    @classmethod
    def around(cls, box: Box, image_size: tuple[int, int], zoom: float = 2.0) -> Window | None:
        """Centred on ``box`` as far as the picture's borders allow; None where the box is too large to gain by it."""
        width, height = image_size[0] / zoom, image_size[1] / zoom
        if box.width > ROOM * width or box.height > ROOM * height:
            return None
        x, y = box.center
        left = min(max(0.0, x - width / 2), image_size[0] - width)
        top = min(max(0.0, y - height / 2), image_size[1] - height)
        return cls(Box(left, top, left + width, top + height), image_size)

    def enlarged(self, image: np.ndarray) -> np.ndarray:
        """The window of ``image`` (H, W, 3) uint8 at the size of the whole, bicubic: (H, W, 3) uint8."""
        size = image.shape[1], image.shape[0]
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC, box=self.box.as_tuple()))

    def to_picture(self, box: Box) -> Box:
        """A box in the window, in pixels of the picture."""
        sx, sy = self._scale
        x, y = self.box.x1, self.box.y1
        return Box(x + box.x1 * sx, y + box.y1 * sy, x + box.x2 * sx, y + box.y2 * sy)

    def to_window(self, box: Box) -> Box:
        """A box of the picture, in the window; it may reach beyond it."""
        sx, sy = self._scale
        x, y = self.box.x1, self.box.y1
        return Box((box.x1 - x) / sx, (box.y1 - y) / sy, (box.x2 - x) / sx, (box.y2 - y) / sy)

    @property
    def _scale(self) -> tuple[float, float]:
        return self.box.width / self.image_size[0], self.box.height / self.image_size[1]


@dataclass(frozen=True)
class Seen:
    """What there is to choose from: the candidates of ``responses``, in order, and their ``evidence``."""

    candidates: tuple[Candidate, ...]
    responses: tuple[Response, ...]
    evidence: Evidence

    def with_second(self, second: Seen, window: Window) -> Seen:
        """Both looks together: the boxes of ``second``, which are in ``window``, in pixels of the picture, their
        responses counted on from those of the first. Without boxes in ``second`` its evidence does not matter.

        Raises:
            ValueError: the attention maps of the two have different grids.
        """
        start = len(self.responses)
        moved = {
            i: replace(c, box=box, response=start + c.response, look=1, in_window=c.box)
            for i, c in enumerate(second.candidates)
            # A box may have so little area that none is left of it in the picture.
            if (box := window.to_picture(c.box).clip(*window.image_size)) is not None
        }
        evidence = self.evidence.followed_by(second.evidence.only([*moved])) if moved else self.evidence
        evidence = replace(evidence, num_responses=start + len(second.responses))
        return Seen((*self.candidates, *moved.values()), (*self.responses, *second.responses), evidence)


def window_of(choice: Choice, image_size: tuple[int, int], look: SecondLook) -> Window | None:
    """Where to look again after ``choice``, which has candidates: around its detection or, without one, around the best
    candidate. None where that is too large to gain by it."""
    best = choice.detections[0] if choice.detections else max(choice.candidates, key=lambda c: c.quality)
    return Window.around(best.box, image_size, look.zoom)


def looked_again(candidates: Sequence[Candidate]) -> np.ndarray:
    """(C,) bool: which of ``candidates`` a second look saw."""
    return np.array([c.look > 0 for c in candidates], bool)


def second_seed(seed: int) -> int:
    """The seed of the second look of a call with ``seed``, in [0, 2^63)."""
    return (seed + _SEED_STEP) % 2**63
