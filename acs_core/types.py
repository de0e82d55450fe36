"""Records of a grounding call, frozen: sampling parameters, candidates, detections, responses, result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from acs_core.arguments import MAX_SEED, flag, real, set_fields, whole
from acs_core.geometry import Box
from acs_core.result_views import ResultViews

COORDINATES = ("x1", "y1", "x2", "y2")
MAX_SAMPLES = 1024
MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-4, 1e4
MAX_NEW_TOKENS = 8192
LEAST_IMAGE_TOKENS, MAX_IMAGE_TOKENS = 16, 2**20
DEFAULT_PREFIX_BYTES = 256 * 2**20  # three images of 1,300 tokens with a 7B model
MAX_PREFIX_BYTES = 2**40
DEFAULT_MODEL = "tiny-qwen2.5-vl"  # of the library, the commands and the node: the better of the embedded models
FAMILY_FRAME = "family"
# Frames of coordinates: that of the family; 0 to 1000 on both axes; pixels of the picture as the processor resized it;
# pixels of the original image; 0 to 1 on both axes.
COORDINATE_FRAMES = (FAMILY_FRAME, "0-1000", "resized", "original", "0-1")
# Values of Response.problem.
ABSENT = "the model says the object is not there"
EMPTY = "the response is empty"
UNPARSEABLE = "no box could be read from the response"
CUT_OFF = "the response was cut off before its first box was complete (max_new_tokens, or the deadline)"
ECHO = "the response only repeats the example boxes of the prompt"
OUTSIDE = "every box lies outside the image or has no area"
BROKEN = "the model gave NaN or infinite logits: its weights or the dtype are broken"
# How the sentences of GroundingResult.skipped end that tell of a lack of time or memory.
_DEADLINE, _MEMORY = "the deadline is", "ran out of memory"


class ScoreKind(StrEnum):
    """Meaning of :attr:`Detection.score`."""

    CALIBRATED = "calibrated"  # estimated probability that the box has IoU >= 0.5 with an object that was asked for
    CALIBRATED_IF_PRESENT = "calibrated_if_present"  # the same, on condition that there is such an object
    PREDICTED_IOU = "predicted_iou"  # the regressor's IoU estimate, uncalibrated
    RANK_RELATIVE = "rank_relative"  # only ranks the candidates of one call; no absolute meaning
    NONE = "none"  # the selector has no quality (greedy)

    @property
    def is_probability(self) -> bool:
        """Whether scores of this kind are estimated probabilities."""
        return self in (ScoreKind.CALIBRATED, ScoreKind.CALIBRATED_IF_PRESENT)


class Outcome(StrEnum):
    """Why a candidate was selected or not."""

    SELECTED = "selected"
    # Valid, but another candidate of its cluster has a higher quality, or the selector does not consider it.
    OUTRANKED = "outranked"
    BELOW_THRESHOLD = "below_threshold"  # best of its cluster, but its score is under ``min_score``
    FEW_VOTES = "few_votes"  # with ``multiple``: best of its cluster, but too few responses contain it


@dataclass(frozen=True)
class SamplingConfig:
    """Sampling parameters (paper section 5.1).

    NumPy numbers are accepted and converted to Python's.

    Attributes:
        num_samples: number of responses N, 1 to 1024. Response i is the same for every N.
        temperature: tau, 0.0001 to 10000. At the lower end a token whose logit is 0.01 below the best one is no longer
            sampled, so smaller values would change nothing, and float32 logits would overflow. For the most likely
            response use the selector "greedy".
        top_p: in (0, 1].
        top_k: 0 (all tokens) to 2^31 - 1.
        max_new_tokens: per response, 1 to 8192.
        seed: 0 to 2^63 - 1; makes a call repeatable on one machine and software version (exactly without
            ``speculation``). None for a random seed.
        auto: whether to stop before ``num_samples`` responses once they agree (:mod:`acs_core.generation.schedule`).
        speculation: whether to draft the tokens that are nearly certain and check them in one forward
            (:mod:`acs_core.generation.speculation`). The responses are the same without it, up to rounding, which may
            depend on what the drafts learned from earlier calls.

    Raises:
        TypeError: a value has the wrong type.
        ValueError: a value is out of range.
    """

    num_samples: int = 10
    temperature: float = 0.5
    top_p: float = 0.9
    top_k: int = 100
    max_new_tokens: int = 256
    seed: int | None = None
    auto: bool = False
    speculation: bool = True

    def __post_init__(self) -> None:
        checked = {
            "num_samples": whole("num_samples", self.num_samples, 1, MAX_SAMPLES),
            "temperature": real("temperature", self.temperature, MIN_TEMPERATURE, MAX_TEMPERATURE),
            "top_p": real("top_p", self.top_p, 0, 1, above=True),
            "top_k": whole("top_k", self.top_k),
            "max_new_tokens": whole("max_new_tokens", self.max_new_tokens, 1, MAX_NEW_TOKENS),
            "seed": None if self.seed is None else whole("seed", self.seed, 0, MAX_SEED),
            "auto": flag("auto", self.auto),
            "speculation": flag("speculation", self.speculation),
        }
        set_fields(self, checked)


@dataclass(frozen=True)
class SecondLook:
    """Parameters of the second look.

    Attributes:
        zoom: the sides of the window are those of the image divided by this; above 1 and at most 16.
        samples: number of responses, 1 to 1024; by default half as many as in the first look, rounded up.

    Raises:
        TypeError: a value has the wrong type.
        ValueError: a value is out of range.
    """

    zoom: float = 2.0
    samples: int | None = None

    def __post_init__(self) -> None:
        samples = None if self.samples is None else whole("samples", self.samples, 1, MAX_SAMPLES)
        set_fields(self, {"zoom": real("zoom", self.zoom, 1, 16, above=True), "samples": samples})

    def samples_after(self, first: int) -> int:
        """Return the number of responses after a first look with ``first`` responses."""
        return self.samples or -(-first // 2)


@dataclass(frozen=True)
class Candidate:
    """One sampled box.

    Attributes:
        box: in pixels of the original image, clipped to it.
        label: label that the model gave.
        response: index of the response that holds it.
        order: index among the boxes of that response.
        coordinate_tokens: indices, in that response's tokens, of the first token of x1, y1, x2, y2 (appendix A).
        quality: ranks the candidates of one call, higher is better; its scale depends on the selector.
        score: published score in [0, 1].
        cluster: index of the cluster of overlapping candidates it was compared within.
        outcome: whether it was selected.
        reason: explanation of ``outcome``.
        look: 0 for the first look, 1 for the second (:mod:`acs_core.selection.second_look`), whose boxes are finer.
        in_window: for the second look, the box in pixels of the window.
        stated: confidence in [0, 1] that the model wrote beside the box; None if it wrote none.
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
    stated: float | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Detection:
    """A selected box.

    Attributes:
        box: in pixels of the original image. Equal to the candidate's box unless the selector combines several boxes
            (majority-vote, mean-box, consensus and others).
        score: published score in [0, 1].
        candidate: index into ``GroundingResult.candidates``.
        expected_iou: mean IoU of boxes with this confidence, if the calibration has it.
    """

    box: Box
    score: float
    candidate: int
    expected_iou: float | None = None


@dataclass(frozen=True)
class Response:
    """Summary of one response.

    Attributes:
        text: text without special tokens.
        num_boxes: number of valid boxes.
        finished: whether it ended by itself or with its first box; False if it was cut off.
        problem: why it has no valid box: :data:`ABSENT`, :data:`EMPTY`, :data:`UNPARSEABLE`, :data:`CUT_OFF`,
            :data:`ECHO` or :data:`OUTSIDE`; :data:`BROKEN` for all responses of a call if the logits of one were not
            finite; "" if it has a valid box.
    """

    text: str
    num_boxes: int
    finished: bool
    problem: str = ""


@dataclass(frozen=True, repr=False)
class GroundingResult(ResultViews):
    """Result of a call for one phrase.

    Attributes:
        phrase: the cleaned phrase.
        image_size: (width, height) in pixels.
        detections: selected boxes; empty for an abstention.
        candidates: all valid boxes of all responses.
        responses: summary of each response.
        selector: name of the selector.
        score_kind: meaning of the scores.
        model: name of the model.
        revision: its resolved commit; None for a folder. ``Grounder.from_pretrained(model, revision=revision)`` loads
            the same again; where ``model`` names files built for a model, these and that model.
        seed: seed of the sampling.
        reason: why there are no detections ("no box in all 10 responses: the model says the object is not there", "best
            score 0.12 is below 0.30 (min_score)").
        timing_ms: milliseconds of wall time per stage (waiting for other calls, prompt, reading, sampling, attention,
            selection, second look) and in total; shared by the phrases of a call.
        skipped: sentences on what was left out because of a deadline or lack of memory, or because it was not needed.
        attention: (Hv, Wv) float32, if requested: mean raw attention of the selector's heads on each cell of the image
            for the best box.
        window: the part of the image, in pixels, that was enlarged for a second look. Its responses are the last ones,
            and their texts state coordinates in the window.
        input_size: (width, height) in pixels of the picture as the model's processor resized it, in the first look;
            None if unknown.
        image_tokens: number of image tokens that the model saw in the first look; 0 if unknown.
        region: the part of the image that was searched, in whole pixels; None for all of it. The responses' texts state
            coordinates in it, and ``attention`` covers it; all boxes are in pixels of the whole image.
        image: (H, W, 3) uint8 RGB, the image that was asked about, for :meth:`plot`; None if the call was made with
            ``keep_image=False``, or if the result was read from a file.
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
    input_size: tuple[int, int] | None = None
    image_tokens: int = 0
    region: Box | None = None
    image: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def best(self) -> Detection | None:
        """The detection with the highest score; None without detections."""
        return max(self.detections, key=lambda d: d.score, default=None)


def deadline_text(ms: float | None) -> str:
    """The cause in a sentence of :attr:`GroundingResult.skipped`: the deadline, in milliseconds."""
    return f"{_DEADLINE} {ms or 0:.0f} ms"


def memory_text(device: object) -> str:
    """The cause in a sentence of :attr:`GroundingResult.skipped`: the memory of the device."""
    return f"{device} {_MEMORY}"


def is_shortage(sentence: str) -> bool:
    """Whether a sentence of :attr:`GroundingResult.skipped` tells of a lack of time or memory, and not of something
    that was not needed."""
    return _DEADLINE in sentence or _MEMORY in sentence


ShouldStop = Callable[[], bool]
OnStage = Callable[[str], None]
STAGES = ("prompt", "reading", "sampling", "attention", "selection")
SECOND_LOOK = "second look"  # further stage if requested, up to and including the final selection
