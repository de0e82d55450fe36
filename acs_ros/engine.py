"""One question to the engine about one picture: the only place that knows how a grounder is called."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from acs_core.types import GroundingResult, OnStage, SamplingConfig, ShouldStop
from acs_ros.grounder_source import GrounderLike
from acs_ros.parameters import Settings


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
    second_look: bool = False


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
        settings.second_look,
    )


def sampling_of(settings: Settings, samples: int = 0) -> SamplingConfig:
    """How responses are drawn; ``samples`` above 0 replaces the parameter."""
    return SamplingConfig(
        num_samples=samples or settings.samples,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        max_new_tokens=settings.max_new_tokens,
        seed=None if settings.seed < 0 else settings.seed,
        auto=settings.auto_samples,
    )


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
        AcsError: the image or a phrase cannot be used.
    """
    return grounder.ground_many(
        image,
        question.phrases,
        sampling=question.sampling,
        multiple=question.multiple,
        min_score=question.min_score,
        min_votes=question.min_votes,
        deadline_ms=question.deadline * 1000 if question.deadline > 0 else None,
        with_attention=question.with_attention,
        second_look=question.second_look,
        should_stop=should_stop,
        on_stage=on_stage,
    )
