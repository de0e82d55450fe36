"""The way of one image: from a phrase to scored boxes. The library's front door."""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from acs_core.assets import asset_for, resolve_model
from acs_core.attention import AttentionNeeds, Evidence, capture
from acs_core.calibration import Calibration
from acs_core.candidates import find_candidates
from acs_core.choice import Choice, choose
from acs_core.errors import Cancelled
from acs_core.heads import HeadFile
from acs_core.image import check_image
from acs_core.lvlm import load_lvlm
from acs_core.lvlm.base import LVLM, Prompt
from acs_core.phrase import clean_phrase
from acs_core.sampling import Samples, greedy, sample
from acs_core.selection import Selector, check_name, make_selector
from acs_core.types import Candidate, GroundingResult, Response, SamplingConfig, ScoreKind, ShouldStop

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
    ) -> Grounder:
        """Loads a model and what the selector needs.

        Args:
            model: short name of a shipped model (``acs_core.assets.model_names``), hub id, or folder.
            selector: "acs-free", "acs-learned", "greedy" or "first-valid".
            heads, regressor: the file that acs-free or acs-learned reads; by default the model's own or a shipped one.
            calibration: a file; by default the model's own. A default calibration belongs to the default heads and
                regressor and is left out where those are replaced. False publishes uncalibrated scores.
            revision: branch, tag or commit of a hub id.
            device, dtype: see :func:`acs_core.lvlm.load_lvlm`.

        Raises:
            ModelError: the model cannot be loaded.
            HeadFileError, RegressorError, CalibrationError: a file is missing, damaged or made for another model.
            SelectorError: unknown selector.
        """
        check_name(selector)  # before a model of many gigabytes is read
        name = os.fspath(model)
        lvlm = load_lvlm(resolve_model(name), revision=revision, device=device, dtype=dtype)
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

    def ground(
        self,
        image: np.ndarray,
        phrase: str,
        *,
        sampling: SamplingConfig | None = None,
        multiple: bool = False,
        min_score: float = 0.0,
        min_votes: int = 2,
        should_stop: ShouldStop | None = None,
        with_attention: bool = False,
    ) -> GroundingResult:
        """Finds ``phrase`` in ``image``.

        Args:
            image: (H, W, 3) uint8 RGB.
            phrase: what to look for, at most 200 characters; data, never an instruction.
            sampling: how responses are drawn, by default as in the paper (N = 10, temperature 0.5). A greedy selector
                takes only ``max_new_tokens`` from it.
            multiple: whether several objects may be reported; else the one best box.
            min_score: a box below this score, in [0, 1], is not reported. Means a probability only where
                ``score_kind`` is calibrated; a selector without a score (greedy) never gets above 0.
            min_votes: with ``multiple``, how many responses must contain an object; see :func:`acs_core.choice.choose`.
            should_stop: asked between tokens and stages; when it returns True the call ends.
            with_attention: fill in ``attention`` of the result, at the price of a second look at one candidate.

        Returns:
            Every candidate with its verdict. No detections means abstained, and ``reason`` says why.

        Raises:
            PhraseError, ImageError: they cannot be used.
            Cancelled: ``should_stop`` returned True.
            ValueError: ``min_score`` or ``min_votes`` out of range.
        """
        if not 0.0 <= min_score <= 1.0:
            raise ValueError(f"min_score must be in [0, 1], got {min_score}")
        if min_votes < 1:
            raise ValueError(f"min_votes must be at least 1, got {min_votes}")
        phrase = clean_phrase(phrase)
        image = check_image(image)
        config = sampling or SamplingConfig()
        if config.seed is None:
            config = replace(config, seed=secrets.randbelow(2**31))
        with self._turn(should_stop):
            clock = _Clock(should_stop)
            prompt = self.lvlm.prepare(image, phrase)
            clock.lap("prompt")
            samples = self._answer(prompt, config, should_stop)
            clock.lap("sampling")
            candidates, responses = find_candidates(self.lvlm, prompt, samples)
            evidence = capture(self.lvlm, prompt, samples, candidates, self.selector.needs)
            clock.lap("attention")
            qualities, scores = self._judge(candidates, evidence, prompt.image_size)
            choice = choose(
                candidates,
                qualities,
                scores,
                num_responses=len(responses),
                multiple=multiple,
                min_score=min_score,
                min_votes=min_votes,
            )
            clock.lap("selection")
            attention = self._attention(prompt, samples, choice) if with_attention else None
        return GroundingResult(
            phrase=phrase,
            image_size=prompt.image_size,
            detections=choice.detections,
            candidates=choice.candidates,
            responses=tuple(responses),
            selector=self.selector.name,
            score_kind=self.score_kind,
            model=self._model_name,
            revision=self.lvlm.revision,
            seed=samples.seed,
            reason=self._reason(choice.reason, bool(candidates), responses),
            timing_ms=clock.laps_ms(),
            attention=attention,
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

    def _answer(self, prompt: Prompt, config: SamplingConfig, should_stop: ShouldStop | None) -> Samples:
        if self.selector.greedy_decoding:
            return greedy(self.lvlm, prompt, config.max_new_tokens, should_stop)
        return sample(self.lvlm, prompt, config, should_stop)

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

    def _attention(self, prompt: Prompt, samples: Samples, choice: Choice) -> np.ndarray | None:
        """(Hv, Wv): the mean map of the heads that the selector reads (of all, where it names none) at the coordinates
        of the best detection or, without one, of the best candidate."""
        if not choice.candidates:
            return None
        best = max(choice.candidates, key=lambda c: c.quality)
        shown = choice.candidates[choice.detections[0].candidate] if choice.detections else best
        maps = capture(self.lvlm, prompt, samples, [shown], AttentionNeeds(maps=True)).maps  # (1, 4, L, K, Hv, Wv)
        if maps is None:
            return None
        pairs = self.selector.needs.heads
        if pairs is None:
            return np.asarray(maps[0].mean(axis=(0, 1, 2)))
        return np.mean([maps[0, c, layer, head] for c, found in enumerate(pairs) for layer, head in found], axis=0)

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

    def __init__(self, should_stop: ShouldStop | None) -> None:
        self._should_stop = should_stop
        self._start = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._laps[stage] = (now - self._last) * 1e3
        self._last = now
        if self._should_stop and self._should_stop():
            raise Cancelled(f"stopped after the stage {stage}")

    def laps_ms(self) -> dict[str, float]:
        return {**self._laps, "total": (self._last - self._start) * 1e3}
