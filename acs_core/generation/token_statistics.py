"""Certainty of the model about the tokens that it wrote: entropies and log-probabilities.

Both belong to the vocabulary distribution of the model, before temperature, top-p and top-k, so that they mean the same
for every sampling configuration and for greedy decoding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from acs_core.types import Candidate


@dataclass(frozen=True)
class TokenStatistics:
    """Certainty about the tokens of C candidates.

    Attributes:
        entropy: (C, 4) float64 in nats, at the first token of each coordinate (paper appendix A).
        box_logprob: (C,) float64 in nats, at most 0: sum of the log-probabilities from the first token of the earliest
            coordinate to the first token of the last one. It covers all digits of three coordinates; the separators
            between them are nearly certain.
        opening_logprob: (C,) float64 in nats: log-probability that a response opens with a box as the candidate's does,
            from its first token to the one before its first coordinate.
        response_logprob: (C,) float64 in nats: sum over all tokens of the candidate's response, without the end token.
        response_tokens: (C,) int64, number of these tokens.
    """

    entropy: np.ndarray
    box_logprob: np.ndarray
    opening_logprob: np.ndarray
    response_logprob: np.ndarray
    response_tokens: np.ndarray

    @classmethod
    def of(
        cls,
        candidates: Sequence[Candidate],
        entropies: Mapping[int, Sequence[float]],
        logprobs: Mapping[int, Sequence[float]],
    ) -> TokenStatistics:
        """Return the statistics of ``candidates``.

        Args:
            candidates: C candidates.
            entropies: entropy at each token of a response, by the index of the response.
            logprobs: log-probability of each token of a response, by the index of the response.

        Raises:
            IndexError, KeyError: the values do not cover the tokens of a candidate.
        """
        entropy = [[entropies[c.response][t] for t in c.coordinate_tokens] for c in candidates]
        box = [_between(logprobs[c.response], c.coordinate_tokens) for c in candidates]
        first: dict[int, int] = {}
        for c in candidates:
            first[c.response] = min(*c.coordinate_tokens, first.get(c.response, c.coordinate_tokens[0]))
        opening = [sum(logprobs[c.response][: first[c.response]]) for c in candidates]
        whole = [sum(logprobs[c.response]) for c in candidates]
        length = [len(logprobs[c.response]) for c in candidates]
        return cls(
            np.array(entropy, np.float64).reshape(-1, 4),
            np.array(box, np.float64),
            np.array(opening, np.float64),
            np.array(whole, np.float64),
            np.array(length, np.int64),
        )

    def only(self, index: np.ndarray) -> TokenStatistics:
        """Return the statistics of some of the candidates, given their indices or a (C,) bool mask."""
        return TokenStatistics(*(getattr(self, f.name)[index] for f in fields(self)))

    def followed_by(self, more: TokenStatistics) -> TokenStatistics:
        """Return the statistics of these candidates followed by those of ``more``."""
        return TokenStatistics(
            *(np.concatenate([getattr(self, f.name), getattr(more, f.name)]) for f in fields(self)),
        )


def _between(logprob: Sequence[float], tokens: Sequence[int]) -> float:
    """Return the sum of ``logprob`` from the first to the last of ``tokens``.

    Raises:
        IndexError: there is no such token.
    """
    first, last = min(tokens), max(tokens)
    if last >= len(logprob):
        raise IndexError(f"token {last} of {len(logprob)}")
    return sum(logprob[first : last + 1])
