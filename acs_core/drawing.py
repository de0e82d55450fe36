"""Which token comes next: temperature, top-k, top-p, and a stream of random numbers for each response.

Every response has its own stream, which follows from the seed and the response's number alone. So response 3 is the
same whether three or thirty are drawn, in one batch or in several, next to another phrase's or not, on a CPU or a GPU
(as far as the logits are the same), and no global random state is read or changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from acs_core.types import SamplingConfig


class Draw(Protocol):
    """Chooses tokens."""

    def pick(self, logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        """The tokens (b,) at ``step``, counted from 0, of the responses ``rows`` (b,), a CPU tensor, from their
        ``logits`` (b, V)."""


@dataclass(frozen=True)
class RandomDraw:
    """Draws as ``config`` says, ``streams`` (N, steps) holding numbers in [0, 1), one for each token."""

    config: SamplingConfig
    streams: torch.Tensor

    @classmethod
    def of(cls, config: SamplingConfig, seeds: Sequence[int], rows: range) -> RandomDraw:
        """Streams of the responses ``rows`` of each seed, one after the other."""
        return cls(config, torch.cat([_streams(seed, rows, config.max_new_tokens) for seed in seeds]))

    def pick(self, logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        """See :class:`Draw`. The token whose share of the cumulated probabilities holds the stream's number."""
        ids, probabilities = kept_tokens(logits, self.config)
        cumulated = probabilities.cumsum(dim=-1)
        at = self.streams[rows, step].to(logits.device)[:, None] * cumulated[:, -1:]
        # Rounding may leave `at` on the last sum itself; a token without probability must never be hit. Where logits
        # are no numbers none has any: then the first, since an index of -1 would break a GPU's context.
        last = ((probabilities > 0).sum(dim=-1, keepdim=True) - 1).clamp_min(0)
        chosen = torch.minimum(torch.searchsorted(cumulated, at, right=True), last)
        return ids.gather(1, chosen)[:, 0]


@dataclass(frozen=True)
class Greedy:
    """The most likely token, the first of equals."""

    def pick(self, logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        """See :class:`Draw`."""
        return logits.argmax(dim=-1)


class Forced:
    """Given tokens, then the end token, whatever the logits."""

    def __init__(self, responses: Sequence[Sequence[int]], eos_id: int) -> None:
        longest = max(map(len, responses), default=0) + 1
        self._tokens = torch.tensor([[*ids, *[eos_id] * (longest - len(ids))] for ids in responses])

    def pick(self, logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        """See :class:`Draw`."""
        return self._tokens[rows, step].to(logits.device)


def kept_tokens(logits: torch.Tensor, config: SamplingConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens that may be drawn, the likeliest first, and their probabilities, (b, k) each in float32: after the
    temperature the ``top_k`` likeliest, and of these the fewest that together reach ``top_p``, the others at 0.

    Probabilities are those after the temperature and the first cut; those left after the second do not sum to one.
    """
    k = min(config.top_k or logits.shape[-1], logits.shape[-1])
    # Only k values are sorted and normalised, not a vocabulary of 150,000.
    scaled, ids = (logits.float() / config.temperature).topk(k, dim=-1)
    probabilities = scaled.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    return ids, torch.where(before < config.top_p, probabilities, 0.0)


def _streams(seed: int, rows: range, steps: int) -> torch.Tensor:
    """(len(rows), steps) numbers in [0, 1) of the responses ``rows``."""
    # Drawn row after row, so the first rows are the same however many follow.
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows.stop, steps, generator=generator)[rows.start :]
