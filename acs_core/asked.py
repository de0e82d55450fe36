"""What a caller asks of a Grounder, checked before anything is computed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np

from acs_core.image import check_image
from acs_core.phrase import clean_phrase
from acs_core.second_look import SecondLook
from acs_core.types import OnStage, SamplingConfig, ShouldStop


class GroundOptions(TypedDict, total=False):
    """How to look; all of it may be left out.

    - ``sampling``: how responses are drawn, by default as in the paper (N = 10, temperature 0.5). A greedy selector
      takes only ``max_new_tokens`` from it. Phrases that are asked together share a seed.
    - ``multiple`` (False): whether several objects may be reported for a phrase; else the one best box.
    - ``min_score`` (0.0): a box below this score, in [0, 1], is not reported. Means a probability only where
      ``score_kind`` is calibrated; a selector without a score (greedy) never gets above 0.
    - ``min_votes`` (2): with ``multiple``, how many responses must contain an object; see
      :func:`acs_core.choice.choose`.
    - ``deadline_ms``: milliseconds, from the call on, after which no more is sampled and the best answer so far is
      returned. Reading the picture cannot be cut short. ``skipped`` of the result says what was left out.
    - ``second_look`` (False): enlarge the part of the picture around the answer, ask about it again, and choose from
      the boxes of both looks; True or a :class:`acs_core.second_look.SecondLook`. For small objects and a selector that
      makes one box out of several; takes about as long again. Where it is not made ``skipped`` says why; with
      ``multiple`` it never is.
    - ``with_attention`` (False): fill in ``attention`` of the result, which is that of the first look, at the price of
      looking at one candidate again.
    - ``should_stop``: asked between tokens and stages; when it returns True the call ends.
    - ``on_stage``: called with the name of each stage (:data:`acs_core.types.STAGES`, and ``SECOND_LOOK`` where one is
      asked for) when it begins.
    """

    sampling: SamplingConfig | None
    multiple: bool
    min_score: float
    min_votes: int
    deadline_ms: float | None
    second_look: bool | SecondLook
    with_attention: bool
    should_stop: ShouldStop | None
    on_stage: OnStage | None


@dataclass(frozen=True)
class Asked:
    """One checked question; ``image`` (H, W, 3) uint8 RGB, ``start`` of ``time.perf_counter``."""

    image: np.ndarray
    phrases: tuple[str, ...]
    config: SamplingConfig = field(default_factory=SamplingConfig)
    multiple: bool = False
    min_score: float = 0.0
    min_votes: int = 2
    deadline_ms: float | None = None
    second_look: SecondLook | None = None
    with_attention: bool = False
    should_stop: ShouldStop | None = None
    on_stage: OnStage | None = None
    start: float = field(default_factory=time.perf_counter)

    @classmethod
    def of(cls, image: np.ndarray, phrases: Sequence[str], options: Mapping[str, Any] | GroundOptions) -> Asked:
        """Checks the phrases, the picture and :class:`GroundOptions`.

        Raises:
            PhraseError, ImageError: they cannot be used.
            TypeError: an option that does not exist.
            ValueError: no phrases, or an option out of its range.
        """
        given: dict[str, Any] = dict(options)
        config = given.pop("sampling", None) or SamplingConfig()
        look = given.pop("second_look", False)
        given["second_look"] = look if isinstance(look, SecondLook) else SecondLook() if look else None
        cleaned = tuple(clean_phrase(phrase) for phrase in phrases)
        asked = cls(check_image(image), cleaned, config, **given)
        if not asked.phrases:
            raise ValueError("no phrases to look for")
        if not 0.0 <= asked.min_score <= 1.0:
            raise ValueError(f"min_score must be in [0, 1], got {asked.min_score}")
        if asked.min_votes < 1:
            raise ValueError(f"min_votes must be at least 1, got {asked.min_votes}")
        if asked.deadline_ms is not None and not asked.deadline_ms > 0:
            raise ValueError(f"deadline_ms must be above 0, got {asked.deadline_ms}")
        return asked

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.shape[1], self.image.shape[0]
