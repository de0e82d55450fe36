"""Responses while they are written, and what ends them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from acs_core.lvlm.base import Prompt

IsComplete = Callable[[Prompt, Sequence[int]], bool]


@dataclass
class ResponseRow:
    """A response that is being written to the prompt with the index ``prompt``."""

    prompt: int
    tokens: list[int] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)
    logprob: list[float] = field(default_factory=list)
    finished: bool = False
    ended: bool = False  # finished, or as long as it may be


@dataclass(frozen=True)
class Ends:
    """What ends a response: an end token, its length, or that it is complete."""

    eos_ids: Sequence[int]
    limit: int
    is_complete: IsComplete | None

    def is_last(self, prompt: Prompt, tokens: Sequence[int]) -> bool:
        """Return whether nothing is to follow ``tokens``, the last of which may be an end token."""
        return tokens[-1] in self.eos_ids or len(tokens) >= self.limit or self.is_finished(prompt, tokens)

    def is_finished(self, prompt: Prompt, tokens: Sequence[int]) -> bool:
        """Return whether the response is complete without an end token."""
        return self.is_complete is not None and self.is_complete(prompt, tokens)
