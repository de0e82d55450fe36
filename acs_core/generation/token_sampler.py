"""Selection of the next tokens: drawn with temperature, top-k and top-p, the most likely, or given ones.

Every response has one stream of random numbers, which depends on the seed and the index of the response only; the
token at place t of a response is drawn with number t of its stream. No global random state is read or changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from acs_core.device_array import upload
from acs_core.types import SamplingConfig

MAX_LOGIT = 1e30  # logits of models are below 1000; divided by the lowest temperature, this one is still finite


class TokenSampler(Protocol):
    """Selection of tokens, each for one place in one response."""

    def pick(
        self, logits: torch.Tensor, rows: torch.Tensor, places: torch.Tensor, source: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return M tokens.

        Args:
            logits: (U, V).
            rows: (M,) index of the response of each token, on the CPU.
            places: (M,) index of each token in its response, from 0, on the CPU.
            source: (M,) row of ``logits`` that each token is selected from, on their device; by default row m for token
                m, with U = M.

        Returns:
            (M,) token ids.
        """


@runtime_checkable
class TableSampler(TokenSampler, Protocol):
    """Sampler whose selection is an operation on the logits and one value per place, which the device can do itself."""

    def key(self) -> tuple[object, ...]:
        """Return what :meth:`choose` depends on besides its arguments."""

    def table(self) -> torch.Tensor:
        """Return the values of the places of all responses, (N, T) or (1, T), on the CPU; the last one counts for later
        places, too."""

    def choose(self, logits: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Return the token (N,) of each row of ``logits`` (N, V) for the values (N,) of the places."""


@dataclass(frozen=True)
class TopPSampler:
    """Sampling with temperature, top-k and top-p.

    Attributes:
        config: the sampling parameters.
        streams: (N, steps) random numbers in [0, 1), one per token.
    """

    config: SamplingConfig
    streams: torch.Tensor

    @classmethod
    def of(cls, config: SamplingConfig, seeds: Sequence[int], rows: range) -> TopPSampler:
        """Create a sampler for the responses ``rows`` of each of ``seeds``, one seed after the other."""
        return cls(config, torch.cat([_streams(seed, rows, config.max_new_tokens) for seed in seeds]))

    def pick(
        self, logits: torch.Tensor, rows: torch.Tensor, places: torch.Tensor, source: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See :class:`TokenSampler`; inverts the cumulative distribution at the place's random number."""
        ids, probabilities = kept_tokens(logits, self.config)
        if source is not None:
            ids, probabilities = ids[source], probabilities[source]
        return _inverted(ids, probabilities, upload(self.streams[rows, places], logits.device))

    def key(self) -> tuple[object, ...]:
        """See :class:`TableSampler`."""
        return "top-p", self.config.temperature, self.config.top_k, self.config.top_p

    def table(self) -> torch.Tensor:
        """Return the random numbers."""
        return self.streams

    def choose(self, logits: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """See :class:`TableSampler`."""
        return _inverted(*kept_tokens(logits, self.config), values)


@dataclass(frozen=True)
class GreedySampler:
    """Selection of the most likely token, the first one in case of ties."""

    def pick(
        self, logits: torch.Tensor, rows: torch.Tensor, places: torch.Tensor, source: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See :class:`TokenSampler`."""
        best = logits.argmax(dim=-1)
        return best if source is None else best[source]

    def key(self) -> tuple[object, ...]:
        """See :class:`TableSampler`."""
        return ("greedy",)

    def table(self) -> torch.Tensor:
        """Return one value, which is not read."""
        return torch.zeros(1, 1)

    def choose(self, logits: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """See :class:`TableSampler`."""
        return logits.argmax(dim=-1)


class TeacherForcing:
    """Selection of given tokens, then the end token, independent of the logits.

    Args:
        responses: token ids of each response.
        eos_id: the end token.
    """

    def __init__(self, responses: Sequence[Sequence[int]], eos_id: int) -> None:
        longest = max(map(len, responses), default=0) + 1
        self._tokens = torch.tensor([[*ids, *[eos_id] * (longest - len(ids))] for ids in responses])

    def pick(
        self, logits: torch.Tensor, rows: torch.Tensor, places: torch.Tensor, source: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See :class:`TokenSampler`."""
        # A place after the end of the longest response is only asked for after a draft, which the end token refuses.
        return upload(self._tokens[rows, places.clamp(max=self._tokens.shape[1] - 1)], logits.device)

    def key(self) -> tuple[object, ...]:
        """See :class:`TableSampler`."""
        return ("forced",)

    def table(self) -> torch.Tensor:
        """Return the tokens, each row with at least one end token."""
        return self._tokens

    def choose(self, logits: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """See :class:`TableSampler`."""
        return values


def kept_tokens(logits: torch.Tensor, config: SamplingConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply temperature, top-k and top-p to ``logits`` (b, V).

    The probabilities are normalised over the ``top_k`` tokens; top-p then sets the least likely ones to 0 without
    normalising again.

    Returns:
        Token ids and their probabilities, most likely first, (b, k) each; probabilities are float32.
    """
    k = min(config.top_k or logits.shape[-1], logits.shape[-1])
    # Sort and normalise k values only, not a vocabulary of 150,000.
    scaled, ids = (logits.float() / config.temperature).topk(k, dim=-1)
    probabilities = scaled.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    return ids, torch.where(before < config.top_p, probabilities, 0.0)


def _inverted(ids: torch.Tensor, probabilities: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Return the token (M,) at which the sum of ``probabilities`` (M, k) of the tokens ``ids`` passes each of
    ``numbers`` (M,), which are shares of the whole sum."""
    cumulated = probabilities.cumsum(dim=-1)
    at = numbers[:, None] * cumulated[:, -1:]
    # Rounding may put `at` on the last sum itself, and a token of probability 0 must never be drawn. If the logits are
    # NaN, all are 0: index 0 then, since an index of -1 would break the GPU context.
    last = ((probabilities > 0).sum(dim=-1, keepdim=True) - 1).clamp_min(0)
    chosen = torch.minimum(torch.searchsorted(cumulated, at, right=True), last)
    return ids.gather(1, chosen)[:, 0]


def is_usable(logits: torch.Tensor) -> torch.Tensor:
    """Return whether the largest of each row of ``logits`` (b, V) is finite and in range: (b,) bool. NaN counts as the
    largest; single logits may be -inf."""
    return logits.amax(dim=-1).abs() < MAX_LOGIT


def certainty_of(logits: torch.Tensor, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the entropy of each row of ``logits`` (b, V), and the log-probability of its token ``chosen`` (b,), in
    nats: (b,) each."""
    logprob = logits.float().log_softmax(dim=-1)
    entropy = torch.special.entr(logprob.exp()).sum(dim=-1)
    return entropy, logprob.gather(1, chosen.to(torch.int64)[:, None])[:, 0]


def _streams(seed: int, rows: range, steps: int) -> torch.Tensor:
    """Return (len(rows), steps) random numbers in [0, 1) for the responses ``rows``."""
    # Drawn row by row, so that a row does not depend on the number of rows.
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows.stop, steps, generator=generator)[rows.start :]
