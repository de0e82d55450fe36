"""The second look: the part of the image around the first answer is enlarged and the model is asked again. It is not
part of the paper.

A model sees an image through a limited number of image tokens, and writes coordinates with a limited number of digits.
A small object covers few tokens and few coordinate steps; enlarged, it covers more.

:meth:`acs_core.selection.scorer.Scorer.second_window` decides where to look again, :func:`second_draw` how many
responses to draw, and :meth:`CandidateSet.with_second` joins both looks. The pipeline of a call and the collections of
training share these functions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from acs_core.geometry import Box
from acs_core.types import Candidate, Response, SecondLook

if TYPE_CHECKING:  # keeps --help fast, which does not need torch
    from acs_core.attention import AttentionRecord

ROOM = 2 / 3  # maximum share of the window's sides for a box: larger ones do not benefit and may be cut off
_SEED_STEP = 1_000_000_007  # makes the samples of both looks independent


@dataclass(frozen=True)
class Window:
    """Part of an image for a second look, with the image's aspect ratio.

    The window is enlarged to the size of the image; "in the window" refers to coordinates in the enlarged window.

    Attributes:
        box: the part in pixels of the image.
        image_size: (width, height) of the image in pixels.
    """

    box: Box
    image_size: tuple[int, int]

    @classmethod
    def around(cls, box: Box, image_size: tuple[int, int], zoom: float = 2.0) -> Window | None:
        """Return a window centred on ``box`` as far as the image's borders allow; None if the box is too large to
        benefit."""
        width, height = image_size[0] / zoom, image_size[1] / zoom
        if box.width > ROOM * width or box.height > ROOM * height:
            return None
        x, y = box.center
        left = min(max(0.0, x - width / 2), image_size[0] - width)
        top = min(max(0.0, y - height / 2), image_size[1] - height)
        return cls(Box(left, top, left + width, top + height), image_size)

    def enlarged(self, image: np.ndarray) -> np.ndarray:
        """Enlarge the window of ``image`` (H, W, 3) uint8 to the size of the image, bicubic: (H, W, 3) uint8."""
        size = image.shape[1], image.shape[0]
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC, box=self.box.as_tuple()))

    def to_picture(self, box: Box) -> Box:
        """Convert a box in the window to pixels of the image."""
        sx, sy = self._scale
        x, y = self.box.x1, self.box.y1
        return Box(x + box.x1 * sx, y + box.y1 * sy, x + box.x2 * sx, y + box.y2 * sy)

    def to_window(self, box: Box) -> Box:
        """Convert a box in pixels of the image to the window; it may extend beyond the window."""
        sx, sy = self._scale
        x, y = self.box.x1, self.box.y1
        return Box((box.x1 - x) / sx, (box.y1 - y) / sy, (box.x2 - x) / sx, (box.y2 - y) / sy)

    @property
    def _scale(self) -> tuple[float, float]:
        return self.box.width / self.image_size[0], self.box.height / self.image_size[1]


@dataclass(frozen=True)
class CandidateSet:
    """Input of a decision.

    Attributes:
        candidates: the candidates of ``responses``, in order.
        responses: the responses.
        record: attention of the candidates.
    """

    candidates: tuple[Candidate, ...]
    responses: tuple[Response, ...]
    record: AttentionRecord

    @property
    def num_responses(self) -> int:
        """Number of responses that count (:attr:`acs_core.attention.AttentionRecord.num_responses`); all of them if it
        is not known."""
        counted = self.record.num_responses
        return len(self.responses) if counted is None else counted

    def with_second(self, second: CandidateSet, window: Window) -> CandidateSet:
        """Join both looks.

        The boxes of ``second``, which are in ``window``, are converted to pixels of the image, and its responses are
        numbered after those of the first look. If ``second`` has no boxes, its record is not used.

        Raises:
            ValueError: the attention maps of the two looks have different grids.
        """
        start = len(self.responses)
        moved = {
            i: replace(c, box=box, response=start + c.response, look=1, in_window=c.box)
            for i, c in enumerate(second.candidates)
            # A tiny box may have no area left after the conversion to pixels of the image.
            if (box := window.to_picture(c.box).clip(*window.image_size)) is not None
        }
        record = self.record.followed_by(second.record.only([*moved])) if moved else self.record
        record = record.of_responses(self.num_responses + second.num_responses)
        return CandidateSet((*self.candidates, *moved.values()), (*self.responses, *second.responses), record)


def second_draw(look: SecondLook, samples: int, seed: int) -> tuple[int, int]:
    """Return the number of responses of a second look after a first one with ``samples``, and its seed in [0, 2^63),
    derived from that of the first."""
    return look.samples_after(samples), (seed + _SEED_STEP) % 2**63
