"""Arguments of a call of Grounder, checked before any computation: phrases, image, options."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypedDict

import numpy as np

from acs_core.arguments import clean_phrase, flag, function, instance, items, known, one_of, real, whole
from acs_core.errors import ImageError
from acs_core.geometry import Box
from acs_core.image import ImageInput, as_image, check_image
from acs_core.types import MAX_SAMPLES, OnStage, SamplingConfig, SecondLook, ShouldStop

MAX_PHRASES = 256  # per image: a batch has one row per phrase and sample
MAX_DEADLINE_MS = 1e9  # 11 days
PAPER_SAMPLING = SamplingConfig()  # the defaults are those of the paper


class GroundOptions(TypedDict, total=False):
    """Options of :meth:`acs_core.grounder.Grounder.ground`, all optional.

    - ``sampling``: sampling parameters, by default those of the paper (N = 10, temperature 0.5). A greedy selector uses
      only ``max_new_tokens``. Phrases of the same call share a seed.
    - ``samples``, ``temperature``, ``seed``, ``speculation``: replace ``num_samples`` and the fields of the same names
      of ``sampling``.
      ``samples="auto"`` stops early when the responses agree (``auto`` of :class:`acs_core.types.SamplingConfig`). None
      changes nothing.
    - ``multiple`` (False): whether to report several objects per phrase instead of the best box only.
    - ``min_score`` (0.0): boxes with a lower score, in [0, 1], are not reported. It is a probability only if
      ``score_kind`` is calibrated; the scores of a selector without a score (greedy) are 0.
    - ``min_precision`` (0.0): boxes are reported only with scores at which this share of them, in [0, 1], has IoU >=
      0.5 with 95 % confidence (:meth:`acs_core.grounder.Grounder.min_score_for`). The larger of both thresholds counts.
    - ``min_votes`` (2): with ``multiple``, the number of responses that must contain an object; see
      :func:`acs_core.selection.decision.decide`.
    - ``check_labels`` (True): boxes that the model labels as something else than the phrase (the label and the phrase
      share no word) rank below all others; their ``reason`` says so. They win only if there are no others.
    - ``whole_responses`` (False): whether every response is written to its end. By default it ends with its first box
      and the label of that, unless ``multiple`` is set or the selector reads what follows (log-probabilities of
      responses, stated confidences). With ``check_labels``, a box that is labelled as something else does not end it.
    - ``keep_prefix`` (False): whether the image stays prefilled for later calls with this option about the same image,
      and is read from there if it is; see :meth:`acs_core.grounder.Grounder.set_image`. Costs memory, and the first
      call a further forward.
    - ``deadline_ms``: milliseconds from the call on, above 0 and at most 1e9, after which sampling stops and the best
      result so far is returned. Prefill cannot be cut short. ``skipped`` of the result says what was left out.
    - ``second_look`` (False): True or a :class:`acs_core.types.SecondLook` to enlarge the part of the image around the
      detection, sample again there, and select from the boxes of both looks. Helps with small objects and selectors
      that combine several boxes; takes about as long again. If it is not done, ``skipped`` says why; with ``multiple``
      it never is.
    - ``keep_image`` (True): whether the result keeps the image, for its methods ``plot`` and ``save``. Programs that
      collect many results set it to False: an image of 12 megapixels takes 36 MB.
    - ``with_attention`` (False): whether to fill in ``attention`` of the result, that of the first look. Costs a second
      attention capture of one candidate.
    - ``region``: the part of the image to search, a :class:`acs_core.geometry.Box` in pixels; it is extended to whole
      pixels and clipped to the image. The model sees only this part, so that small objects in it appear larger. The
      boxes of the result are in pixels of the whole image.
    - ``should_stop``: called between tokens and stages; True cancels the call.
    - ``on_stage``: called with the name of each stage when it begins (:data:`acs_core.types.STAGES`, and
      ``SECOND_LOOK`` if requested).
    """

    sampling: SamplingConfig | None
    samples: int | Literal["auto"] | None
    temperature: float | None
    seed: int | None
    speculation: bool | None
    multiple: bool
    min_score: float
    min_precision: float
    min_votes: int
    check_labels: bool
    whole_responses: bool
    keep_prefix: bool
    deadline_ms: float | None
    second_look: bool | SecondLook
    with_attention: bool
    keep_image: bool
    region: Box | None
    should_stop: ShouldStop | None
    on_stage: OnStage | None


@dataclass(frozen=True)
class GroundingRequest:
    """A checked call.

    Attributes:
        image: (H, W, 3) uint8 RGB: the region, or the whole image if there is none.
        phrases: the cleaned phrases.
        config: sampling parameters.
        region: the part of the whole image that ``image`` is, in whole pixels; None if it is all of it.
        whole_size: (width, height) of the whole image in pixels.
        second_min_score: ``min_score`` of results with a second look, whose scores may have a calibration of their own.
        kept_image: the whole image if results are to keep it, else None.
        start: time of the call by ``time.perf_counter``, in seconds.
        multiple, min_score, min_precision, min_votes, check_labels, whole_responses, keep_prefix, deadline_ms,
        second_look, with_attention, should_stop, on_stage: see :class:`GroundOptions`.
    """

    image: np.ndarray
    phrases: tuple[str, ...]
    config: SamplingConfig = PAPER_SAMPLING
    multiple: bool = False
    min_score: float = 0.0
    min_precision: float = 0.0
    min_votes: int = 2
    check_labels: bool = True
    whole_responses: bool = False
    keep_prefix: bool = False
    deadline_ms: float | None = None
    second_look: SecondLook | None = None
    with_attention: bool = False
    should_stop: ShouldStop | None = None
    on_stage: OnStage | None = None
    region: Box | None = None
    whole_size: tuple[int, int] = (0, 0)
    second_min_score: float = 0.0
    kept_image: np.ndarray | None = None
    start: float = field(default_factory=time.perf_counter)

    @classmethod
    def of(
        cls, image: ImageInput, phrases: Sequence[str], options: Mapping[str, Any] | GroundOptions
    ) -> GroundingRequest:
        """Check phrases, image and :class:`GroundOptions`.

        Raises:
            PhraseError, ImageError: a phrase, the image or its region cannot be used.
            TypeError: an option is unknown or has the wrong type, or ``phrases`` is a str.
            ValueError: there are no phrases or too many, or an option is out of range.
        """
        known("ground", options, tuple(GroundOptions.__annotations__))
        given: dict[str, Any] = dict(options)
        request = items("phrases", phrases, MAX_PHRASES, 'phrases (for one phrase: ground(image, "key"))')
        for i, phrase in enumerate(request):
            instance(f"phrases[{i}]" if len(request) > 1 else "phrase", phrase, str, "text")
        config = _sampling(given)
        deadline_ms = given.get("deadline_ms")
        if deadline_ms is not None:
            deadline_ms = real("deadline_ms", deadline_ms, 0, MAX_DEADLINE_MS, above=True)
        everything = as_image(image)
        region = _whole_pixels(given.get("region"), everything)
        return cls(
            everything if region is None else _cut(everything, region),
            tuple(clean_phrase(phrase) for phrase in request),
            config,
            multiple=flag("multiple", given.get("multiple", False)),
            min_score=real("min_score", given.get("min_score", 0.0), 0, 1),
            min_precision=real("min_precision", given.get("min_precision", 0.0), 0, 1),
            min_votes=whole("min_votes", given.get("min_votes", 2), 1),
            check_labels=flag("check_labels", given.get("check_labels", True)),
            whole_responses=flag("whole_responses", given.get("whole_responses", False)),
            keep_prefix=flag("keep_prefix", given.get("keep_prefix", False)),
            deadline_ms=deadline_ms,
            second_look=_second_look(given.get("second_look", False)),
            with_attention=flag("with_attention", given.get("with_attention", False)),
            should_stop=function("should_stop", given.get("should_stop")),
            on_stage=function("on_stage", given.get("on_stage")),
            region=region,
            whole_size=(everything.shape[1], everything.shape[0]),
            kept_image=everything if flag("keep_image", given.get("keep_image", True)) else None,
        )

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) of ``image`` in pixels."""
        return self.image.shape[1], self.image.shape[0]


def _whole_pixels(region: object, image: np.ndarray) -> Box | None:
    """The smallest whole pixels of the (H, W, 3) ``image`` that contain ``region``; None for None."""
    if region is None:
        return None
    height, width = image.shape[:2]
    box: Box = instance("region", region, Box, "a Box or None")
    inside = box.clip(width, height)
    if inside is None:
        corners = ", ".join(f"{v:.6g}" for v in box.as_tuple())
        raise ImageError(f"the region ({corners}) has no area in the image of {width} x {height} pixels")
    return Box(math.floor(inside.x1), math.floor(inside.y1), math.ceil(inside.x2), math.ceil(inside.y2))


def _cut(image: np.ndarray, region: Box) -> np.ndarray:
    """The (h, w, 3) part of the (H, W, 3) ``image`` in ``region``, whose corners are whole numbers."""
    x1, y1, x2, y2 = (int(v) for v in region.as_tuple())
    try:
        return check_image(image[y1:y2, x1:x2])
    except ImageError as error:
        raise ImageError(f"the region ({x1}, {y1}, {x2}, {y2}) cannot be searched: {error}") from error


def _sampling(given: Mapping[str, Any]) -> SamplingConfig:
    """The sampling parameters of a call: ``sampling``, with ``samples``, ``temperature``, ``seed`` and ``speculation``
    replaced."""
    sampling = given.get("sampling")
    if sampling is not None:
        instance("sampling", sampling, SamplingConfig, "a SamplingConfig or None")
    changes: dict[str, Any] = {}
    samples = given.get("samples")
    if isinstance(samples, str):
        one_of("samples", samples, ("auto",))
        changes["auto"] = True
    elif samples is not None:
        changes |= {"num_samples": whole("samples", samples, 1, MAX_SAMPLES), "auto": False}
    changes |= {name: given[name] for name in ("temperature", "seed", "speculation") if given.get(name) is not None}
    config = sampling or PAPER_SAMPLING
    return replace(config, **changes) if changes else config


def _second_look(given: object) -> SecondLook | None:
    if isinstance(given, SecondLook):
        return given
    allowed = "True, False or a SecondLook"
    return SecondLook() if instance("second_look", given, (bool, np.bool_), allowed) else None
