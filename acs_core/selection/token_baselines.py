"""Baseline selectors by the model's certainty about the tokens that it wrote, without attention.

token-entropy is that of section 5.1 of the paper. The log-probabilities are further baselines that cost nothing, since
sampling computes them anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from acs_core.attention import AttentionNeeds, AttentionRecord
from acs_core.errors import NonFiniteError
from acs_core.generation.token_statistics import TokenStatistics
from acs_core.selection.base import SelectorSpec
from acs_core.types import Candidate, ScoreKind

DECIMALS = 3  # of a nat; smaller differences are rounding errors, and collections store four decimals


@dataclass(frozen=True)
class TokenUncertainty:
    """Selector of the candidate about whose tokens the model was least uncertain.

    Attributes:
        name: registry name.
        measure: maps the statistics of C candidates to (C,) uncertainties in nats, at least 0.
    """

    name: str
    measure: Callable[[TokenStatistics], np.ndarray]
    greedy_decoding: bool = False
    needs: AttentionNeeds = field(default_factory=lambda: AttentionNeeds(token_statistics=True))
    score_kind: ScoreKind = ScoreKind.RANK_RELATIVE
    feature: str = ""

    def qualities(
        self, candidates: Sequence[Candidate], record: AttentionRecord, image_size: tuple[int, int]
    ) -> np.ndarray:
        """Return (C,) qualities in (0, 1]: 1 / (1 + U) with the uncertainty U in nats.

        Raises:
            ValueError: ``record`` holds no token statistics.
            NonFiniteError: a statistic is NaN or infinite.
        """
        if record.tokens is None:
            raise ValueError(f"{self.name} needs the token statistics of the responses, which were not kept")
        nats = self.measure(record.tokens)
        if not np.isfinite(nats).all():
            raise NonFiniteError("the token statistics of a response are NaN: the model's weights are broken")
        return 1.0 / (1.0 + np.maximum(0.0, np.round(nats, DECIMALS)))

    def confidences(
        self,
        candidates: Sequence[Candidate],
        record: AttentionRecord,
        image_size: tuple[int, int],
        qualities: np.ndarray,
    ) -> np.ndarray | None:
        """Return None: these baselines are not calibrated."""
        return None


def coordinate_entropy(tokens: TokenStatistics) -> np.ndarray:
    """Return the sum of the entropies at the first tokens of the four coordinates, (C,) in nats.

    The token of a coordinate is its first, as for attention (appendix A): a model that writes "240" digit by digit
    decides on the position there, and coordinates with more digits do not count as less certain.
    """
    return np.asarray(tokens.entropy.sum(axis=1))


def coordinate_surprise(tokens: TokenStatistics) -> np.ndarray:
    """Return minus the log-probability of the box, (C,) in nats; see :class:`TokenStatistics` for its tokens."""
    return -tokens.box_logprob


def response_surprise(tokens: TokenStatistics) -> np.ndarray:
    """Return minus the log-probability of the whole response, (C,) in nats."""
    return -tokens.response_logprob


def mean_surprise(tokens: TokenStatistics) -> np.ndarray:
    """Return minus the mean log-probability of the response's tokens, (C,) in nats: length-normalised."""
    return -tokens.response_logprob / np.maximum(1, tokens.response_tokens)


MEASURES = {
    "token-entropy": coordinate_entropy,
    "coordinate-logprob": coordinate_surprise,
    "sequence-logprob": response_surprise,
    "mean-token-logprob": mean_surprise,
}
SPECS = tuple(
    SelectorSpec(name, partial(TokenUncertainty, name, measure), baseline=True) for name, measure in MEASURES.items()
)
