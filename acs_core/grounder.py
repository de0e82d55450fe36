"""The main class of the library: finds what a phrase names in an image, as scored boxes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Unpack

import numpy as np
import torch

from acs_core.arguments import path, text, whole
from acs_core.artifacts.calibration import Calibration, WorkingPoint
from acs_core.artifacts.heads import HeadFile
from acs_core.artifacts.model_name import check_model_name
from acs_core.errors import CalibrationError, Cancelled, DeviceMemoryError
from acs_core.generation.prefix_cache import PrefixCache
from acs_core.generation.schedule import ThroughputEstimate
from acs_core.image import ImageInput, as_image
from acs_core.lvlm import load_lvlm, open_model
from acs_core.lvlm.base import LVLM
from acs_core.lvlm.loading import check_options
from acs_core.lvlm.vocabulary import spelled_out
from acs_core.pipeline import run_pipeline
from acs_core.request import GroundingRequest, GroundOptions
from acs_core.selection.defaults import default_files, scorer_for
from acs_core.selection.registry import AUTO, Selector, check_files
from acs_core.selection.scorer import Scorer
from acs_core.types import (
    DEFAULT_MODEL,
    DEFAULT_PREFIX_BYTES,
    FAMILY_FRAME,
    MAX_PREFIX_BYTES,
    GroundingResult,
    ScoreKind,
    ShouldStop,
    memory_text,
)

LOCK_POLL_S = 0.05
_ANY_PHRASE = "object"


@dataclass(frozen=True, eq=False)
class ImageGrounder:
    """Phrase grounding in one image that stays prefilled; see :meth:`Grounder.set_image`.

    Attributes:
        grounder: the grounder.
        image: (H, W, 3) uint8 RGB.
    """

    grounder: Grounder
    image: np.ndarray

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        return f"ImageGrounder({self.grounder!r}, image_size=({width}, {height}))"

    def ground(self, phrase: str, **options: Unpack[GroundOptions]) -> GroundingResult:
        """Find ``phrase`` in the image; see :meth:`Grounder.ground_many`."""
        return self.ground_many([phrase], **options)[0]

    def ground_many(self, phrases: Sequence[str], **options: Unpack[GroundOptions]) -> tuple[GroundingResult, ...]:
        """Find each of ``phrases`` in the image; see :meth:`Grounder.ground_many`."""
        options.setdefault("keep_prefix", True)
        return self.grounder.ground_many(self.image, phrases, **options)


class Grounder:
    """Phrase grounding with one LVLM and one selector.

    Threads may share a Grounder, and Grounders may share an LVLM: calls wait for each other.

        grounder = Grounder.from_pretrained()
        result = grounder.ground("table.jpg", "key", seed=1)
        print(result.best)

    Args:
        lvlm: a loaded model.
        selector: ranks the candidates.
        calibration: maps the selector's confidence to a probability; None to publish the quality unchanged.
        model_name: name of the model in results, by default ``lvlm.name``.
        second_look: calibration of results with a second look; by default the same as ``calibration``.
        revision: commit of ``model_name`` in results, by default ``lvlm.revision``.
        prefix_bytes: maximum number of bytes for images that stay prefilled (:meth:`set_image`), 0 to 2^40; 0 keeps
            none.

    Raises:
        CalibrationError: a calibration was made for another model, selector or number of looks.
        TypeError, ValueError: ``prefix_bytes`` is no whole number or out of range.
    """

    def __init__(
        self,
        lvlm: LVLM,
        selector: Selector,
        calibration: Calibration | None = None,
        model_name: str | None = None,
        second_look: Calibration | None = None,
        revision: str | None = None,
        prefix_bytes: int = DEFAULT_PREFIX_BYTES,
    ) -> None:
        self._prefixes = PrefixCache(whole("prefix_bytes", prefix_bytes, 0, MAX_PREFIX_BYTES))
        self._scorer = Scorer(selector, calibration, second_look)
        self._scorer.check(lvlm)
        self.lvlm = lvlm
        self.selector = selector
        self.calibration = calibration
        self.second_look = second_look
        self._model_name = model_name or lvlm.name
        self._revision = revision or lvlm.revision
        self._throughput = ThroughputEstimate()

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        selector: str = AUTO,
        heads: HeadFile | str | Path | None = None,
        regressor: str | Path | None = None,
        joint_model: str | Path | None = None,
        calibration: Calibration | str | Path | Literal[False] | None = None,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        quantization: str = "none",
        max_image_tokens: int | None = None,
        coordinate_frame: str = FAMILY_FRAME,
        prefix_bytes: int = DEFAULT_PREFIX_BYTES,
    ) -> Grounder:
        """Load a model and the files that the selector needs.

        Args:
            model: short name of a shipped model (``acs_core.artifacts.registry.model_names``), hub id, or folder; also
                a folder that `acs-train build` wrote, or the hub id that `acs-train push` uploaded it to, which names
                its model and brings the files for it.
            selector: one of :func:`acs_core.selection.registry.selector_names`, "acs-free" or "acs-joint" for instance;
                by default, "auto", the first of acs-fusion-box, acs-free and consensus whose file is given or known;
                consensus needs none.
            heads: the file that acs-free and acs-fusion read; by default the model's own or a shipped one. Also
                "table-1-from-0" or "table-1-from-1", the two readings of the paper's table 1.
            regressor: the file that acs-learned predicts with; by default likewise.
            joint_model: the file that acs-joint predicts with; by default likewise.
            calibration: a file; by default the model's own, for one look and for a second. Default calibrations belong
                to the default heads, regressor and joint model, and are left out where one of those is replaced. False
                publishes uncalibrated scores.
            revision: branch, tag or commit of a hub id; for a folder of built files, of the hub id they were built for.
                All files are read at the commit that it is now.
            device, dtype, quantization, max_image_tokens, coordinate_frame: see :func:`acs_core.lvlm.load_lvlm`.
            prefix_bytes: see :class:`Grounder`.

        Everything that ``config.json`` tells is checked before the weights are downloaded: the architecture, and
        whether the files that the selector needs are there and were made for the model.

        Raises:
            ModelError: there can be no model of that name, or it cannot be loaded.
            HeadFileError, RegressorError, JointError, CalibrationError: a file is missing, damaged, or made for another
                model.
            SelectorError: unknown selector.
            TypeError: an argument has the wrong type.
            ValueError: an argument is empty or out of range, or is an unknown device, dtype, quantization or frame.
        """
        files = {"heads": heads, "regressor": regressor, "joint_model": joint_model}
        check_files(selector, files)  # before a model of many gigabytes is read
        path("model", model)
        name = os.fspath(model)
        revision = None if revision is None else text("revision", revision)
        for kind, file in files.items():
            if file is not None and not isinstance(file, HeadFile):
                files[kind] = path(kind, file)
        if calibration is not None and calibration is not False and not isinstance(calibration, Calibration):
            calibration = path("calibration", calibration)
        check_model_name(name)
        prefix_bytes = whole("prefix_bytes", prefix_bytes, 0, MAX_PREFIX_BYTES)
        check_options(device, dtype, quantization, max_image_tokens, coordinate_frame)
        source = open_model(name, revision=revision, device=device)
        built = source.built.folder(default_files(selector)) if source.built else None
        scorer = scorer_for(source, selector, calibration=calibration, built=built, **files)
        lvlm = load_lvlm(
            source,
            dtype=dtype,
            quantization=quantization,
            max_image_tokens=max_image_tokens,
            coordinate_frame=coordinate_frame,
        )
        return cls(
            lvlm, scorer.selector, scorer.calibration, name, scorer.second_look, source.given_revision, prefix_bytes
        )

    def __repr__(self) -> str:
        parts = {"selector": self.selector_name, "device": self.device, "score_kind": self.score_kind.value}
        return f"Grounder({self.model_name!r}, {', '.join(f'{name}={value!r}' for name, value in parts.items())})"

    @property
    def model_name(self) -> str:
        """Name of the model in results."""
        return self._model_name

    @property
    def revision(self) -> str | None:
        """Commit of the model's name in results, with which :meth:`from_pretrained` loads the same again; None if that
        is a folder."""
        return self._revision

    @property
    def selector_name(self) -> str:
        """Name of the selector."""
        return self.selector.name

    @property
    def device(self) -> str:
        """Torch device of the model: "cpu", "cuda:0", ..."""
        return str(self.lvlm.device)

    @property
    def score_kind(self) -> ScoreKind:
        """Meaning of the scores of this Grounder's results (those after a second look may have a calibration alone)."""
        return self._scorer.score_kind

    def unknown_words(self, phrase: str) -> tuple[str, ...]:
        """Return the words of ``phrase`` that the model has no tokens for, and was not trained on; empty for large
        models, which have tokens for all words."""
        return spelled_out(self.lvlm.tokenizer, phrase)

    def min_score_for(self, precision: float, second_look: bool = False) -> float | None:
        """Return the ``min_score`` that keeps a wanted precision with 95 % confidence, for questions as those of the
        calibration.

        Args:
            precision: wanted share of boxes with IoU >= 0.5, in [0, 1].
            second_look: whether it is for results with a second look.

        Returns:
            The threshold; None if there is no calibration, or none with such a bound (:meth:`working_point_for`).
        """
        point = self.working_point_for(precision, second_look)
        return point.min_score if point else None

    def working_point_for(self, precision: float, second_look: bool = False) -> WorkingPoint | None:
        """Return the threshold of :meth:`min_score_for` with the number of calibration answers behind it, the precision
        measured there, and the share of answers that it keeps.

        Returns None as :meth:`min_score_for`: too few answers, too many wrong ones, or a calibration of an earlier
        version, which holds no bounds.
        """
        curve = self.second_look or self.calibration if second_look else self.calibration
        return curve.working_point(precision) if curve else None

    def required_score(self, precision: float, second_look: bool = False) -> float:
        """Return the threshold of :meth:`min_score_for`; 0 for a precision of 0.

        Raises:
            CalibrationError: there is none; the message says why.
        """
        if not precision:
            return 0.0
        point = self.working_point_for(precision, second_look)
        if point is None:
            curve = self.second_look or self.calibration if second_look else self.calibration
            points = curve.working_points if curve else ()
            known = [f"{p.wanted:g}" for p in points if p.answers]
            why = f"the calibration keeps {', '.join(known)}" if known else "the calibration states no precision"
            if curve is None:
                why = "there is no calibration"
            elif points and not known:
                why = "the calibration is of an earlier version, whose thresholds have no bound"
            raise CalibrationError(
                f"no score of {self.selector_name} keeps a precision of {precision:g} with 95 % confidence: {why}. Ask "
                "for a lower min_precision, or calibrate on more answers with `acs-train calibrate`"
            )
        return point.min_score

    def set_image(self, image: ImageInput) -> ImageGrounder:
        """Prefill ``image`` for any number of phrases, which then cost no vision tower and a short prefill each.

            scene = grounder.set_image(image)
            key, car = scene.ground("key"), scene.ground("car")

        The results equal those of :meth:`ground`, up to rounding. Images that were used last stay prefilled, as many as
        fit into ``prefix_bytes``; one that was dropped is read again when it is needed.

        Args:
            image: see :meth:`ground_many`; an array is copied.

        Raises:
            ImageError: the image cannot be used.
        """
        own = as_image(image).copy()
        with self._turn(None):
            prompts = self._prefixes.prepare(self.lvlm, own, [_ANY_PHRASE])
            try:
                self._prefixes.prefill(self.lvlm, own, prompts)
            except torch.OutOfMemoryError:
                self._prefixes.clear()  # a call may still fit, and halves its responses if it does not
        return ImageGrounder(self, own)

    def ground(self, image: ImageInput, phrase: str, **options: Unpack[GroundOptions]) -> GroundingResult:
        """Find ``phrase`` in ``image``; see :meth:`ground_many`."""
        return self.ground_many(image, [phrase], **options)[0]

    def ground_many(
        self, image: ImageInput, phrases: Sequence[str], **options: Unpack[GroundOptions]
    ) -> tuple[GroundingResult, ...]:
        """Find each of ``phrases`` in ``image``, with one prefill of the image for all of them.

        The results equal those of separate calls with the same seeds, up to rounding.

        Args:
            image: the path of a file, a PIL image, or an array (H, W, 3) uint8 in RGB order (OpenCV's is BGR:
                ``image[..., ::-1]``); see :func:`acs_core.image.as_image`.
            phrases: 1 to 256 phrases of at most 200 characters each. They are treated as data, never as instructions.
            options: see :class:`GroundOptions`.

        Returns:
            One result per phrase, with every candidate and its outcome. A result without detections is an abstention;
            ``reason`` says why.

        Raises:
            PhraseError, ImageError: a phrase or the image cannot be used.
            DeviceMemoryError: there is no memory for even one response.
            Cancelled: ``should_stop`` returned True.
            CalibrationError: no score keeps ``min_precision``.
            TypeError: an option is unknown or has the wrong type, or ``phrases`` is a str.
            ValueError: there are no phrases or too many, or ``min_score``, ``min_precision``, ``min_votes`` or
                ``deadline_ms`` is out of range.
        """
        request = GroundingRequest.of(image, phrases, options)
        # With a second look both, since it may be left out.
        first = self.required_score(request.min_precision)
        second = self.required_score(request.min_precision, second_look=True) if request.second_look else first
        low = request.min_score
        request = replace(request, min_score=max(low, first), second_min_score=max(low, second))
        lost = 0
        with self._turn(request.should_stop):
            while True:
                config = request.config
                if lost:
                    config = replace(config, num_samples=config.num_samples - lost)
                try:
                    results = run_pipeline(
                        self.lvlm,
                        self._scorer,
                        self._throughput,
                        request,
                        config,
                        self.model_name,
                        self.revision,
                        self._prefixes,
                    )
                    break
                except torch.OutOfMemoryError as error:
                    reason = str(error).splitlines()[0]
                # Outside the handler, whose traceback keeps the tensors of the failed attempt alive.
                lost += self._samples_without(request, lost, reason)
        if not lost:
            return results
        short = f"{lost} of {request.config.num_samples} responses: {memory_text(self.device)}"
        return tuple(replace(result, skipped=(short, *result.skipped)) for result in results)

    def _samples_without(self, request: GroundingRequest, lost: int, reason: str) -> int:
        """Number of further responses to leave out, beyond ``lost``, after the device ran out of memory."""
        left = request.config.num_samples - lost
        self.lvlm.graphs.free()
        self._prefixes.clear()
        if left == 1 or self.selector.greedy_decoding:
            width, height = request.image_size
            raise DeviceMemoryError(
                f"{self.device} has no room for a response to a picture of {width} x {height} pixels "
                f"({reason}): use smaller pictures, fewer phrases at once, quantised weights, or another device"
            )
        if self.lvlm.device.type == "cuda":
            torch.cuda.empty_cache()
        return left - left // 2

    @contextmanager
    def _turn(self, should_stop: ShouldStop | None) -> Iterator[None]:
        """Hold the model's lock; the call can be cancelled while it waits for the lock."""
        while not self.lvlm.lock.acquire(timeout=LOCK_POLL_S):
            if should_stop and should_stop():
                raise Cancelled("stopped while waiting for another call to finish")
        try:
            yield
        finally:
            self.lvlm.lock.release()
