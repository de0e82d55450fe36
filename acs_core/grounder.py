"""The way of one image: from a phrase to scored boxes. The library's front door."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, Unpack

import numpy as np
import torch

from acs_core.asked import Asked, GroundOptions
from acs_core.assets import asset_for, resolve_model
from acs_core.attention import Evidence, capture
from acs_core.calibration import Calibration
from acs_core.choice import Choice, choose
from acs_core.deadline import Deadline, Pace
from acs_core.errors import Cancelled, DeviceMemoryError
from acs_core.heads import HeadFile
from acs_core.lvlm import load_lvlm
from acs_core.lvlm.base import LVLM
from acs_core.reading import Reading, read
from acs_core.sampling import fresh_seed
from acs_core.selection import Selector, check_name, make_selector
from acs_core.types import Candidate, GroundingResult, Response, SamplingConfig, ScoreKind, ShouldStop
from acs_core.waves import Answers, draw_answers, greedy_answers

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

    Raises:
        CalibrationError: the calibration was made for another model or selector.
    """

    def __init__(
        self, lvlm: LVLM, selector: Selector, calibration: Calibration | None = None, model_name: str | None = None
    ) -> None:
        if calibration is not None:
            calibration.check(lvlm, selector.name, selector.feature)
        self.lvlm = lvlm
        self.selector = selector
        self.calibration = calibration
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
            model: short name of a shipped model (``acs_core.assets.model_names``), hub id, or folder.
            selector: "acs-free", "acs-learned", "greedy" or "first-valid".
            heads, regressor: the file that acs-free or acs-learned reads; by default the model's own or a shipped one.
            calibration: a file; by default the model's own. A default calibration belongs to the default heads and
                regressor and is left out where those are replaced. False publishes uncalibrated scores.
            revision: branch, tag or commit of a hub id.
            device, dtype, quantization: see :func:`acs_core.lvlm.load_lvlm`.

        Raises:
            ModelError: the model cannot be loaded.
            HeadFileError, RegressorError, CalibrationError: a file is missing, damaged or made for another model.
            SelectorError: unknown selector.
        """
        check_name(selector)  # before a model of many gigabytes is read
        name = os.fspath(model)
        lvlm = load_lvlm(resolve_model(name), revision=revision, device=device, dtype=dtype, quantization=quantization)
        chosen = make_selector(selector, lvlm, heads=heads, regressor=regressor)
        if calibration is None and heads is None and regressor is None:
            calibration = asset_for(lvlm, f"calibration-{selector}.json")
        if isinstance(calibration, str | Path):
            calibration = Calibration.load(calibration)
        return cls(lvlm, chosen, calibration or None, name)

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
        """What the scores of this Grounder's results mean."""
        return ScoreKind.CALIBRATED if self.calibration is not None else self.selector.score_kind

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
        stop = asked.should_stop
        with self._turn(stop):
            lost = 0
            while True:
                try:
                    return self._attempt(asked, lost)
                except torch.OutOfMemoryError as error:
                    reason = str(error).splitlines()[0]
                # Outside of the handler, whose traceback keeps the failed attempt's tensors alive.
                lost = self._give_up_half(asked, lost, reason)

    def _give_up_half(self, asked: Asked, lost: int, reason: str) -> int:
        """How many responses to do without after the device ran out of memory."""
        left = asked.config.num_samples - lost
        if left == 1 or self.selector.greedy_decoding:
            width, height = asked.image_size
            raise DeviceMemoryError(
                f"{self.device} has no room for a response to a picture of {width} x {height} pixels "
                f"({reason}): use smaller pictures, fewer phrases at once, quantised weights, or another device"
            )
        if self.lvlm.device.type == "cuda":
            torch.cuda.empty_cache()
        return asked.config.num_samples - left // 2

    def _attempt(self, asked: Asked, lost: int) -> tuple[GroundingResult, ...]:
        """All stages, with ``lost`` responses fewer than were asked for."""
        config = replace(asked.config, num_samples=asked.config.num_samples - lost)
        deadline = Deadline(asked.deadline_ms, asked.start, self._pace.after_ms)
        clock = _Clock(asked)
        clock.begin("prompt")
        prompts = self.lvlm.prepare_many(asked.image, asked.phrases)
        clock.begin("reading")
        reading = read(self.lvlm, prompts, asked.should_stop)
        clock.begin("sampling")
        answers = self._answer(reading, config, deadline, asked.should_stop)
        clock.begin("attention")
        evidence = [
            capture(self.lvlm, prompt, a.samples, a.candidates, self.selector.needs)
            for prompt, a in zip(prompts, answers, strict=True)
        ]
        clock.begin("selection")
        choices = [self._choose(a, seen, asked) for a, seen in zip(answers, evidence, strict=True)]
        timing = clock.end()
        self._pace.note_after(timing["attention"] + timing["selection"])
        short = f"{lost} of {asked.config.num_samples} responses: the device ran out of memory"
        return tuple(
            GroundingResult(
                phrase=prompt.phrase,
                image_size=prompt.image_size,
                detections=choice.detections,
                candidates=choice.candidates,
                responses=a.responses,
                selector=self.selector.name,
                score_kind=self.score_kind,
                model=self._model_name,
                revision=self.lvlm.revision,
                seed=a.samples.seed,
                reason=self._reason(choice.reason, bool(a.candidates), a.responses),
                timing_ms=timing,
                skipped=((short,) if lost else ()) + a.skipped,
            )
            for prompt, a, choice in zip(prompts, answers, choices, strict=True)
        )

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

    def _answer(
        self, reading: Reading, config: SamplingConfig, deadline: Deadline, should_stop: ShouldStop | None
    ) -> tuple[Answers, ...]:
        if self.selector.greedy_decoding:
            return greedy_answers(self.lvlm, reading, config.max_new_tokens, deadline, should_stop)
        seed = fresh_seed() if config.seed is None else config.seed
        seeds = [seed] * len(reading.prompts)
        return draw_answers(
            self.lvlm, reading, config, seeds, deadline=deadline, pace=self._pace, should_stop=should_stop
        )

    def _choose(self, answers: Answers, evidence: Evidence, asked: Asked) -> Choice:
        qualities, scores = self._judge(answers.candidates, evidence, asked.image_size)
        return choose(
            answers.candidates,
            qualities,
            scores,
            num_responses=len(answers.responses),
            multiple=asked.multiple,
            min_score=asked.min_score,
            min_votes=asked.min_votes,
        )

    def _judge(
        self, candidates: Sequence[Candidate], evidence: Evidence, image_size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Qualities and scores, (C,) each."""
        if not candidates:
            return np.zeros(0), np.zeros(0)
        qualities = self.selector.qualities(candidates, evidence, image_size)
        if self.calibration is not None:
            confidences = self.selector.confidences(candidates, evidence, qualities)
            if confidences is not None:  # always: the calibration's feature was checked against the selector's
                return qualities, self.calibration.apply(confidences)
        if self.selector.score_kind is ScoreKind.NONE:
            return qualities, np.zeros(len(candidates))
        return qualities, np.clip(qualities, 0.0, 1.0)

    def _reason(self, reason: str, any_candidates: bool, responses: Sequence[Response]) -> str:
        if not any_candidates:
            return why_no_candidates(responses)
        if reason and self.score_kind is ScoreKind.NONE:
            return f"the selector {self.selector.name} gives no score, so nothing reaches min_score; {reason}"
        return reason


def why_no_candidates(responses: Sequence[Response]) -> str:
    """One sentence on why no response gave a box: the problem all share, or each problem with its count."""
    problems = Counter(r.problem or "no usable box" for r in responses)
    if len(problems) == 1:
        (problem,) = problems
        whose = "the response" if len(responses) == 1 else f"all {len(responses)} responses"
        return f"no box in {whose}: {problem}"
    listed = ", ".join(f"{count} x {problem}" for problem, count in problems.most_common())
    return f"no box in any of {len(responses)} responses: {listed}"


class _Clock:
    """Wall time per stage, and the place where a stop is noticed between stages."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._stage, self._last = "waiting", asked.start
        self._laps: dict[str, float] = {}

    def begin(self, stage: str) -> None:
        self._lap()
        if self._asked.should_stop and self._asked.should_stop():
            raise Cancelled(f"stopped before the stage {stage}")
        self._stage = stage
        if self._asked.on_stage:
            self._asked.on_stage(stage)

    def end(self) -> dict[str, float]:
        self._lap()
        return {**self._laps, "total": (self._last - self._asked.start) * 1e3}

    def _lap(self) -> None:
        now = time.perf_counter()
        self._laps[self._stage] = (now - self._last) * 1e3
        self._last = now
