"""The way of one image: from a phrase to scored boxes. The library's front door."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, Unpack

import numpy as np
import torch

from acs_core.asked import Asked, GroundOptions
from acs_core.assets import built_for, resolve_model
from acs_core.calibration import Calibration
from acs_core.deadline import Pace
from acs_core.errors import Cancelled, DeviceMemoryError
from acs_core.heads import HeadFile
from acs_core.judging import Judge, judge_for
from acs_core.lvlm import load_lvlm
from acs_core.lvlm.base import LVLM
from acs_core.selection import Selector, check_name
from acs_core.stages import run_stages
from acs_core.types import GroundingResult, ScoreKind, ShouldStop

LOCK_POLL_S = 0.05


class Grounder:
    """Finds what a phrase names in an image, with one LVLM and one selector.

    Threads may share a Grounder, or Grounders may share an LVLM: calls wait for each other.

        grounder = Grounder.from_pretrained()
        result = grounder.ground(image, "key")
        print(result.best)

    Args:
        lvlm: a loaded model.
        selector: what ranks the candidates.
        calibration: turns the selector's confidence into a probability; None publishes the quality as it is.
        model_name: what results call the model, by default ``lvlm.name``.
        second_look: the calibration of answers that came with a second look, by default the same.

    Raises:
        CalibrationError: a calibration was made for another model or selector, or for the other number of looks.
    """

    def __init__(
        self,
        lvlm: LVLM,
        selector: Selector,
        calibration: Calibration | None = None,
        model_name: str | None = None,
        second_look: Calibration | None = None,
    ) -> None:
        self._judge = Judge(selector, calibration, second_look)
        self._judge.check(lvlm)
        self.lvlm = lvlm
        self.selector = selector
        self.calibration = calibration
        self.second_look = second_look
        self._model_name = model_name or lvlm.name
        self._pace = Pace()

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str] = "tiny-internvl",
        *,
        selector: str = "acs-free",
        heads: HeadFile | str | Path | None = None,
        regressor: str | Path | None = None,
        calibration: Calibration | str | Path | Literal[False] | None = None,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        quantization: str = "none",
    ) -> Grounder:
        """Loads a model and what the selector needs.

        Args:
            model: short name of a shipped model (``acs_core.assets.model_names``), hub id, or folder; also a folder
                that `acs-train build` wrote, which names its model and brings the files for it.
            selector: one of :func:`acs_core.selection.selector_names`, "acs-free" or "acs-joint" for instance.
            heads: the file that acs-free and acs-fusion read; by default the model's own or a shipped one.
            regressor: the file that acs-learned or acs-joint predicts with; by default likewise.
            calibration: a file; by default the model's own, for one look and for a second. Default calibrations belong
                to the default heads and regressor and are left out where those are replaced. False publishes
                uncalibrated scores.
            revision: branch, tag or commit of a hub id.
            device, dtype, quantization: see :func:`acs_core.lvlm.load_lvlm`.

        Raises:
            ModelError: the model cannot be loaded.
            HeadFileError, RegressorError, JointError, CalibrationError: a file is missing, damaged, or made for another
                model.
            SelectorError: unknown selector.
        """
        check_name(selector)  # before a model of many gigabytes is read
        name = os.fspath(model)
        built = built_for(Path(name))
        source, commit = (built.model, revision or built.revision) if built else (name, revision)
        lvlm = load_lvlm(resolve_model(source), revision=commit, device=device, dtype=dtype, quantization=quantization)
        judge = judge_for(
            lvlm,
            selector,
            heads=heads,
            regressor=regressor,
            calibration=calibration,
            built=Path(name) if built else None,
        )
        return cls(lvlm, judge.selector, judge.calibration, name, judge.second_look)

    @property
    def model_name(self) -> str:
        """The model as the caller named it."""
        return self._model_name

    @property
    def selector_name(self) -> str:
        """The selector's name."""
        return self.selector.name

    @property
    def device(self) -> str:
        """Where the model runs: "cpu", "cuda:0", ..."""
        return str(self.lvlm.device)

    @property
    def score_kind(self) -> ScoreKind:
        """What the scores of this Grounder's results mean (those after a second look may have a calibration alone)."""
        return self._judge.score_kind

    def min_score_for(self, precision: float, second_look: bool = False) -> float | None:
        """The ``min_score`` from which on boxes were right (IoU >= 0.5) at least as often as ``precision`` on the
        images of the calibration, of answers with a second look where ``second_look``; None where nothing is known or
        no threshold reached it."""
        curve = self.second_look or self.calibration if second_look else self.calibration
        return curve.min_score(precision) if curve else None

    def ground(self, image: np.ndarray, phrase: str, **options: Unpack[GroundOptions]) -> GroundingResult:
        """Finds ``phrase`` in ``image``; see :meth:`ground_many`."""
        return self.ground_many(image, [phrase], **options)[0]

    def ground_many(
        self, image: np.ndarray, phrases: Sequence[str], **options: Unpack[GroundOptions]
    ) -> tuple[GroundingResult, ...]:
        """Finds each of ``phrases`` in ``image``, which is read once for all of them.

        The results are those of separate calls with the same seeds, up to rounding.

        Args:
            image: (H, W, 3) uint8 RGB.
            phrases: what to look for, one at least, each at most 200 characters; data, never an instruction.
            options: see :class:`GroundOptions`.

        Returns:
            For each phrase, every candidate with its verdict. No detections means abstained, and ``reason`` says why.

        Raises:
            PhraseError, ImageError: they cannot be used.
            DeviceMemoryError: there is no room for even one response.
            Cancelled: ``should_stop`` returned True.
            ValueError: no phrases, or ``min_score``, ``min_votes`` or ``deadline_ms`` out of range.
        """
        asked = Asked.of(image, phrases, options)
        lost = 0
        with self._turn(asked.should_stop):
            while True:
                config = replace(asked.config, num_samples=asked.config.num_samples - lost)
                try:
                    results = run_stages(self.lvlm, self._judge, self._pace, asked, config, self._model_name)
                    break
                except torch.OutOfMemoryError as error:
                    reason = str(error).splitlines()[0]
                # Outside of the handler, whose traceback keeps the failed attempt's tensors alive.
                lost += self._samples_without(asked, lost, reason)
        if not lost:
            return results
        short = f"{lost} of {asked.config.num_samples} responses: {self.device} ran out of memory"
        return tuple(replace(result, skipped=(short, *result.skipped)) for result in results)

    def _samples_without(self, asked: Asked, lost: int, reason: str) -> int:
        """How many more responses to do without after the device ran out of memory, beyond ``lost``."""
        left = asked.config.num_samples - lost
        self.lvlm.graphs.kept.clear()  # recorded steps hold buffers of their own
        if left == 1 or self.selector.greedy_decoding:
            width, height = asked.image_size
            raise DeviceMemoryError(
                f"{self.device} has no room for a response to a picture of {width} x {height} pixels "
                f"({reason}): use smaller pictures, fewer phrases at once, quantised weights, or another device"
            )
        if self.lvlm.device.type == "cuda":
            torch.cuda.empty_cache()
        return left - left // 2

    @contextmanager
    def _turn(self, should_stop: ShouldStop | None) -> Iterator[None]:
        """Holds the model's lock; while it waits for another call, the caller may still stop it."""
        while not self.lvlm.lock.acquire(timeout=LOCK_POLL_S):
            if should_stop and should_stop():
                raise Cancelled("stopped while waiting for another call to finish")
        try:
            yield
        finally:
            self.lvlm.lock.release()
