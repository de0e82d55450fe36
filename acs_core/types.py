"""What one grounding call takes and gives: frozen records that cross from room to room."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from acs_core.geometry import Box

COORDINATES = ("x1", "y1", "x2", "y2")


class ScoreKind(StrEnum):
    """What the number in :attr:`Detection.score` means."""

    CALIBRATED = "calibrated"  # estimated probability that the box has IoU >= 0.5 with the object
    PREDICTED_IOU = "predicted_iou"  # the regressor's IoU estimate, uncalibrated
    RANK_RELATIVE = "rank_relative"  # only ranks the candidates of one call; no absolute meaning
    NONE = "none"  # the selector states no quality (greedy)


class Outcome(StrEnum):
    """Why a candidate is, or is not, part of the answer."""

    SELECTED = "selected"
    # Valid, but another candidate of its cluster has the better quality, or the selector does not consider it at all.
    OUTRANKED = "outranked"
    BELOW_THRESHOLD = "below_threshold"  # best of its cluster, but its score is under ``min_score``
    FEW_VOTES = "few_votes"  # several objects asked: best of its cluster, but too few responses contain it


@dataclass(frozen=True)
class SamplingConfig:
    """How responses are drawn (paper section 5.1). ``num_samples`` N >= 1, ``temperature`` tau > 0,
    ``top_p`` in (0, 1], ``top_k`` >= 0 (0 keeps all), ``max_new_tokens`` >= 1 per response. With ``auto`` N is the most
    that are drawn: a few at first, and no more once they agree (:mod:`acs_core.agreement`).

    A seed makes a call repeatable on one machine and one software version; None draws a fresh one. Response i is the
    same for every N.

    Raises:
        ValueError: a value is out of its range.
    """

    num_samples: int = 10
    temperature: float = 0.5
    top_p: float = 0.9
    top_k: int = 100
    max_new_tokens: int = 256
    seed: int | None = None
    auto: bool = False

    def __post_init__(self) -> None:
        checks = {
            "num_samples must be at least 1": self.num_samples >= 1,
            "temperature must be above 0": self.temperature > 0,
            "top_p must be in (0, 1]": 0 < self.top_p <= 1,
            "top_k must be 0 (all tokens) or more": self.top_k >= 0,
            "max_new_tokens must be at least 1": self.max_new_tokens >= 1,
        }
        for message, holds in checks.items():
            if not holds:
                raise ValueError(f"{message}; got {self}")


@dataclass(frozen=True)
class Candidate:
    """One sampled box.

    ``box`` is in pixels of the original image, clipped to it. ``response`` is the index of the response
    it came from, ``order`` its place among that response's boxes. ``coordinate_tokens`` are the indices,
    in that response's token sequence, of the first token of x1, y1, x2, y2 (appendix A). ``quality`` ranks
    candidates of one call (higher is better; its scale depends on the selector), ``score`` in [0, 1] is
    what is published. ``cluster`` numbers the group of overlapping candidates it was compared within. ``look`` is 0
    for the picture and 1 for the second look (:mod:`acs_core.second_look`), whose boxes are finer; ``in_window`` is
    then the box as it was stated, in the window that was looked at.
    """

    box: Box
    label: str
    response: int
    order: int
    coordinate_tokens: tuple[int, int, int, int]
    quality: float = 0.0
    score: float = 0.0
    cluster: int = 0
    outcome: Outcome = Outcome.OUTRANKED
    reason: str = ""
    look: int = 0
    in_window: Box | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Detection:
    """A selected box with its published score in [0, 1]; ``candidate`` indexes ``GroundingResult.candidates``, and
    ``box`` is that candidate's own unless the selector makes boxes out of several (majority-vote, mean-box).
    ``expected_iou`` is the IoU that boxes of this confidence had on average, where the calibration knows it."""

    box: Box
    score: float
    candidate: int
    expected_iou: float | None = None


@dataclass(frozen=True)
class Response:
    """One generated answer: its text (special tokens removed), how many boxes were valid, whether it ended
    by itself (False: cut at ``max_new_tokens``), and why nothing was taken from it, if nothing was."""

    text: str
    num_boxes: int
    finished: bool
    problem: str = ""


@dataclass(frozen=True)
class GroundingResult:
    """Everything one call found out. ``detections`` is empty when the model abstained; then ``reason`` says
    why ("no box in all 10 responses: the model says the object is not there", "best score 0.12 is below 0.30").

    ``image_size`` is (width, height) in pixels. ``timing_ms`` maps a stage (waiting for other calls, prompt, reading,
    sampling, attention, selection, second look) and the total to wall milliseconds; phrases asked together share them.
    ``skipped`` says in sentences what was left out of what was asked for: by a deadline, for want of memory, or because
    it was not needed. ``attention`` (Hv, Wv) float32, where it was asked for: how much the heads that the selector
    reads looked at each cell of the image for the best box, raw weights. ``window``: the part of the image, in pixels,
    that a second look saw enlarged; its responses are the last ones, and their texts state coordinates in the window.
    """

    phrase: str
    image_size: tuple[int, int]
    detections: tuple[Detection, ...]
    candidates: tuple[Candidate, ...]
    responses: tuple[Response, ...]
    selector: str
    score_kind: ScoreKind
    model: str
    revision: str | None
    seed: int
    reason: str = ""
    timing_ms: Mapping[str, float] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    attention: np.ndarray | None = field(default=None, compare=False, repr=False)
    window: Box | None = None

    @property
    def best(self) -> Detection | None:
        """The detection with the highest score, or None."""
        return max(self.detections, key=lambda d: d.score, default=None)


ShouldStop = Callable[[], bool]
OnStage = Callable[[str], None]
STAGES = ("prompt", "reading", "sampling", "attention", "selection")
SECOND_LOOK = "second look"  # the stage after these, where one is asked for; all of it, to the final selection
