"""One question to the engine about one picture: the only place that knows how a grounder is called.

A grounder that lacks an option of the full call (``on_stage``, ``deadline_ms``, ``with_attention``, ``ground_many``)
is asked without it: a deadline then ends the call instead of the sampling.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from acs_core.errors import AcsError, Cancelled
from acs_core.types import GroundingResult, SamplingConfig, ShouldStop
from acs_ros.grounder_source import GrounderLike
from acs_ros.parameters import Settings

OnStage = Callable[[str], None]


class DeadlinePassed(AcsError):
    """The time that was given for an answer is over."""


@dataclass(frozen=True)
class Question:
    """What is asked about a picture. ``deadline`` in seconds from now, 0: none."""

    phrases: tuple[str, ...]
    sampling: SamplingConfig
    multiple: bool = False
    min_score: float = 0.0
    min_votes: int = 2
    deadline: float = 0.0
    with_attention: bool = False


def question_of(settings: Settings, phrases: tuple[str, ...], with_attention: bool = False) -> Question:
    """The question that the parameters describe."""
    return Question(
        phrases,
        sampling_of(settings),
        settings.multiple,
        settings.min_score,
        settings.min_votes,
        settings.deadline,
        with_attention,
    )


def sampling_of(settings: Settings, samples: int = 0) -> SamplingConfig:
    """How responses are drawn; ``samples`` above 0 replaces the parameter."""
    values: dict[str, Any] = {
        "num_samples": samples or settings.samples,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "top_k": settings.top_k,
        "max_new_tokens": settings.max_new_tokens,
        "seed": None if settings.seed < 0 else settings.seed,
        "auto": settings.auto_samples,
    }
    known = {f.name for f in fields(SamplingConfig)}
    return SamplingConfig(**{name: value for name, value in values.items() if name in known})


def ask(
    grounder: GrounderLike,
    image: np.ndarray,
    question: Question,
    should_stop: ShouldStop,
    on_stage: OnStage | None = None,
) -> tuple[GroundingResult, ...]:
    """One result per phrase about an (H, W, 3) uint8 RGB image, in their order.

    Raises:
        Cancelled: ``should_stop`` returned True.
        DeadlinePassed: the time is over, and the grounder could not judge what was there.
        AcsError: the image or a phrase cannot be used.
    """
    many = getattr(grounder, "ground_many", None) if len(question.phrases) > 1 else None
    call: Callable[..., Any] = many or grounder.ground
    wanted: dict[str, Any] = {
        "on_stage": on_stage,
        "deadline_ms": question.deadline * 1000 if question.deadline > 0 else None,
        "with_attention": question.with_attention,
        "min_votes": question.min_votes,
    }
    accepted = inspect.signature(call).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    options = {n: v for n, v in wanted.items() if v is not None and v is not False and (takes_all or n in accepted)}
    stop = _Stop(should_stop, 0.0 if "deadline_ms" in options else question.deadline)
    options |= {
        "sampling": question.sampling,
        "multiple": question.multiple,
        "min_score": question.min_score,
        "should_stop": stop,
    }
    try:
        if many is not None:
            return tuple(many(image, question.phrases, **options))
        return tuple(grounder.ground(image, phrase, **options) for phrase in question.phrases)
    except Cancelled:
        if stop.late:
            raise DeadlinePassed(f"no answer within the deadline of {question.deadline:g} s") from None
        raise


class _Stop:
    """``should_stop``, and a deadline of its own where there is one; ``late``: the deadline was what stopped."""

    def __init__(self, should_stop: ShouldStop, deadline: float) -> None:
        self._should_stop = should_stop
        self._until = time.monotonic() + deadline if deadline > 0 else None
        self.late = False

    def __call__(self) -> bool:
        if self._should_stop():
            return True
        self.late = self._until is not None and time.monotonic() > self._until
        return self.late
