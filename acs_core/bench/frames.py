"""Which coordinate frame explains the answers of a model: questions about rendered pictures with known answers.

A model states a box as four numbers, and nothing in them says whether they are 0 to 1000, pixels of the picture as the
processor resized it, pixels of the original image, or 0 to 1. Here it is asked about pictures that show one obvious
object, a stop sign, at known places. The pictures are not square and of different sizes, so that the frames differ.
Each frame turns the same numbers into other boxes; that of the model is the one whose boxes meet the object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from acs_core.generation.candidates import decode_with_tokens, parse_response, without_examples
from acs_core.generation.sample import greedy_response
from acs_core.geometry import Box
from acs_core.lvlm.base import LVLM, Values
from acs_core.lvlm.picture import frame_sizes
from acs_core.overlay import font_of_size
from acs_core.types import FAMILY_FRAME

OBJECT = "stop sign"
SIZES = ((1920, 1080), (1080, 1920), (640, 360), (2400, 800))
# Centres of the object as shares of width and height: off the middle, where the frames would agree.
PLACES = ((0.72, 0.28), (0.3, 0.76))
SIDE = 0.16  # of the object, as a share of the square root of the picture's area
RED, WHITE = (205, 30, 40), (250, 250, 250)
HIT_IOU = 0.5  # from which a box counts as right
LEAST_IOU = 0.35  # mean IoU from which a frame explains the answers
LEAST_LEAD = 0.15  # by which it must be better than the next one
LEAST_ANSWERED = 0.5  # share of the questions

# Returns the response to a phrase about an image, and whether the model ended it.
Ask = Callable[[LVLM, np.ndarray, str], tuple[str, bool]]


@dataclass(frozen=True)
class FrameQuestion:
    """A rendered picture (H, W, 3) uint8 and the box of its only object in pixels."""

    image: np.ndarray
    truth: Box

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.shape[1], self.image.shape[0]


@dataclass(frozen=True)
class StatedBox:
    """The answer to a question.

    Attributes:
        image_size: (width, height) of the picture in pixels.
        input_size: (width, height) to which the processor resized it.
        frame_size: (width, height) of the frame that acs uses.
        truth: box of the object in pixels of the picture.
        text: the response.
        values: the four numbers of its first box as :func:`acs_core.generation.candidates.find_candidates` reads it:
            no example of the prompt, and not cut off; None without a box.
    """

    image_size: tuple[int, int]
    input_size: tuple[int, int]
    frame_size: tuple[float, float]
    truth: Box
    text: str
    values: Values | None

    def iou(self, frame: str) -> float:
        """Return the IoU of the object and the box that the numbers mean in ``frame``; 0 without a box."""
        if self.values is None:
            return 0.0
        w, h = frame_sizes(self.input_size, self.image_size)[frame]
        sx, sy = self.image_size[0] / w, self.image_size[1] / h
        x1, y1, x2, y2 = self.values
        box = Box(x1 * sx, y1 * sy, x2 * sx, y2 * sy).clip(*self.image_size)
        return 0.0 if box is None else box.iou(self.truth)


@dataclass(frozen=True)
class FrameFit:
    """How well a frame explains the answers that have a box: their mean IoU with the object, and the share of IoUs of
    at least :data:`HIT_IOU`."""

    frame: str
    mean_iou: float
    hits: float


@dataclass(frozen=True)
class FrameReport:
    """Result of :func:`explain_frames`.

    Attributes:
        assumed: frame that acs uses for the model, by name; "" if it is none of those.
        fits: one per frame, the best first.
        answers: all answers.
        found: the frame that explains the answers; "" if none does.
        reason: why none does, else "".
    """

    assumed: str
    fits: tuple[FrameFit, ...]
    answers: tuple[StatedBox, ...]
    found: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        answers = [
            {**asdict(a), "truth": [round(v, 1) for v in a.truth.as_tuple()], "values": a.values and list(a.values)}
            for a in self.answers
        ]
        fits = [asdict(fit) for fit in self.fits]
        return {
            "assumed": self.assumed,
            "found": self.found,
            "reason": self.reason,
            "fits": fits,
            "answers": answers,
        }


def render_questions(
    sizes: Sequence[tuple[int, int]] = SIZES, places: Sequence[tuple[float, float]] = PLACES
) -> tuple[FrameQuestion, ...]:
    """Render a picture for every size (width, height) and every place of the object in it."""
    return tuple(_render(width, height, x, y) for width, height in sizes for x, y in places)


def _render(width: int, height: int, x: float, y: float) -> FrameQuestion:
    rows, columns = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    sky, ground = np.array([176.0, 196.0, 214.0]), np.array([124.0, 132.0, 120.0])
    shade = sky * (1 - rows) + ground * rows + 10 * columns
    picture = Image.fromarray(shade.round().astype(np.uint8))
    side = SIDE * (width * height) ** 0.5
    centre = x * width, y * height
    draw = ImageDraw.Draw(picture)
    for radius, colour in ((side / 2, WHITE), (side * 0.46, RED)):
        draw.polygon(_octagon(centre, radius), fill=colour)
    draw.text(centre, "STOP", fill=WHITE, font=font_of_size(round(side * 0.2)), anchor="mm")
    left, top = centre[0] - side / 2, centre[1] - side / 2
    return FrameQuestion(np.asarray(picture), Box(left, top, left + side, top + side))


def _octagon(centre: tuple[float, float], radius: float) -> list[tuple[float, float]]:
    """Corners of an octagon with horizontal and vertical sides at the distance ``radius`` from the centre."""
    cut = radius * (2**0.5 - 1)
    corners = [(radius, cut), (cut, radius), (-cut, radius), (-radius, cut)]
    corners += [(-a, -b) for a, b in corners]
    return [(centre[0] + a, centre[1] + b) for a, b in corners]


def greedy_answer(lvlm: LVLM, image: np.ndarray, phrase: str) -> tuple[str, bool]:
    """Return the most likely response to a phrase about an image, without special tokens, and whether it ended."""
    generations = greedy_response(lvlm, lvlm.prepare(image, phrase))
    text, _ = decode_with_tokens(lvlm.tokenizer, generations.response_ids[0])
    return text, bool(generations.finished[0])


def ask_frames(
    lvlm: LVLM, questions: Sequence[FrameQuestion], phrase: str = OBJECT, ask: Ask = greedy_answer
) -> tuple[StatedBox, ...]:
    """Ask for ``phrase`` in the picture of every question, with the prompt of every other call."""
    answers = []
    for question in questions:
        text, finished = ask(lvlm, question.image, phrase)
        boxes = without_examples([box for box in parse_response(text) if box.closed or finished])
        prompt, values = lvlm.prepare(question.image, phrase), boxes[0].values if boxes else None
        size = question.image_size
        answers.append(StatedBox(size, prompt.input_size or size, prompt.frame_size, question.truth, text, values))
    return tuple(answers)


def explain_frames(answers: Sequence[StatedBox], assumed: str) -> FrameReport:
    """Compare the frames by the answers; a frame is found if it explains them well and clearly better than the others.

    Args:
        answers: the answers.
        assumed: name of the frame that acs uses for the model.
    """
    answered = [a for a in answers if a.values is not None]
    fits = []
    for frame in frame_sizes((1, 1), (1, 1)):
        ious = [a.iou(frame) for a in answered] or [0.0]
        hits = sum(iou >= HIT_IOU for iou in ious) / len(ious)
        fits.append(FrameFit(frame, float(np.mean(ious)), hits))
    fits.sort(key=lambda fit: -fit.mean_iou)
    best, second = fits[:2]
    reason = ""
    if len(answered) < LEAST_ANSWERED * len(answers) or not answered:
        reason = f"only {len(answered)} of {len(answers)} answers have a box"
    elif best.mean_iou < LEAST_IOU:
        reason = (
            f"the best frame, {best.frame}, has a mean IoU of {best.mean_iou:.2f}: the model does not find the object"
        )
    elif best.mean_iou - second.mean_iou < LEAST_LEAD:
        reason = f"{best.frame} and {second.frame} explain the answers nearly equally well"
    return FrameReport(assumed, tuple(fits), tuple(answers), "" if reason else best.frame, reason)


def assumed_frame(lvlm: LVLM, answers: Sequence[StatedBox]) -> str:
    """Return the name of the frame that acs uses for a model, found by its size in ``answers``; "" if it is none of
    :data:`acs_core.types.COORDINATE_FRAMES`."""
    if lvlm.picture.coordinate_frame != FAMILY_FRAME:
        return lvlm.picture.coordinate_frame
    names: set[str] = set(frame_sizes((1, 1), (1, 1)))
    for answer in answers:
        sizes = frame_sizes(answer.input_size, answer.image_size)
        names &= {name for name, size in sizes.items() if size == answer.frame_size}
    return min(names, default="")
