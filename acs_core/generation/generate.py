"""Generation of N responses to a prompt after one prefill, in one batch that shares the prompt's keys (paper section
5.1).

``generate(num_return_sequences=N)`` of transformers prefills the prompt N times and keeps N copies of its cache. Here
:func:`acs_core.generation.prefill.prefill` runs once, all rows attend to the same copy in
:class:`acs_core.generation.prefill.SharedPrefixCache`, and finished rows leave the batch. Several prompts about the
same image are decoded in one batch, too. The queries of every step are kept, so that :mod:`acs_core.attention` can
compute attention afterwards.

Tokens are sampled with temperature, top-k, top-p and one stream of random numbers per response, which depends on the
seed and the index of the response only. Response 3 is therefore the same for three or thirty responses, in one batch or
several, together with other phrases or not, on a CPU or a GPU (as far as the logits are the same). No global random
state is read or changed.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from acs_core.errors import Cancelled
from acs_core.generation.cuda_graph import StaticDecoder, static_decoder
from acs_core.generation.prefill import (
    PrefillState,
    SharedPrefixCache,
    cache_name,
    no_mask,
    use_shared_prefix_attention,
)
from acs_core.lvlm.base import LVLM
from acs_core.types import SamplingConfig, ShouldStop

MAX_LOGIT = 1e30  # logits of models are below 1000; divided by the lowest temperature, this one is still finite
_WORTH_NARROWING = 0.75  # finished rows leave the batch when at most this share still runs


class Decoder(Protocol):
    """Decoding of a batch of rows: one forward of the language model for the newest token of each running row."""

    @property
    def rows(self) -> torch.Tensor:
        """Indices of the running rows (b,), ascending, on the CPU."""

    def advance(self, tokens: torch.Tensor, finished: Sequence[bool]) -> torch.Tensor:
        """Decode one step.

        Args:
            tokens: (b,) newest token of each running row.
            finished: for all N rows, whether the row has ended.

        Returns:
            (b', V) logits of the rows that go on.
        """

    def written(self) -> SharedPrefixCache:
        """Return the cache with the keys, values and queries of all rows."""


class EagerDecoder:
    """Eager decoding; finished rows leave the batch when at most 75 % of its rows still run."""

    def __init__(self, lvlm: LVLM, state: PrefillState, n: int) -> None:
        self._lvlm = lvlm
        self._cache = SharedPrefixCache(state.prefix, state.suffixes, [n] * len(state.prompts))
        self._embed = lvlm.text_model.get_input_embeddings()
        self._head = lvlm.hf_model.get_output_embeddings()
        self._mask = no_mask(lvlm.device)
        self._next = torch.tensor([p.next_position for p in state.prompts]).repeat_interleave(n)  # (N,)
        self._axes = state.prompts[0].position_ids.shape[:-2]  # () or (3,)

    @property
    def rows(self) -> torch.Tensor:
        """See :class:`Decoder`."""
        return self._cache.rows

    def written(self) -> SharedPrefixCache:
        """See :class:`Decoder`."""
        return self._cache

    def advance(self, tokens: torch.Tensor, finished: Sequence[bool]) -> torch.Tensor:
        """See :class:`Decoder`; removes finished rows from the batch once enough have ended."""
        prefix_cache = self._cache
        running = [row for row in prefix_cache.rows.tolist() if not finished[row]]
        if len(running) <= _WORTH_NARROWING * len(prefix_cache.rows):
            tokens = tokens[torch.isin(prefix_cache.rows, torch.tensor(running)).to(tokens.device)]
            prefix_cache.narrow(running)
        positions = (self._next[prefix_cache.rows] + prefix_cache.length).to(tokens.device)[:, None]  # (b, 1)
        hidden = self._lvlm.text_model(
            inputs_embeds=self._embed(tokens[:, None]),
            attention_mask=self._mask,
            position_ids=positions.expand(*self._axes, *positions.shape),
            use_cache=True,
            acs_attending=prefix_cache,
            **{cache_name(self._lvlm.text_model.__class__): prefix_cache},
        ).last_hidden_state
        prefix_cache.end_step()
        return self._head(hidden[:, -1])


class CudaGraphDecoder:
    """Decoding by replaying a recorded CUDA graph; all rows stay in the batch to the end."""

    def __init__(self, decoder: StaticDecoder, state: PrefillState) -> None:
        self._decoder, self._state = decoder, state
        self._taken = 0
        self.rows = torch.arange(decoder.rows.n)

    def written(self) -> SharedPrefixCache:
        """See :class:`Decoder`."""
        return self._decoder.rows.copy_out(self._state, self._taken)

    def advance(self, tokens: torch.Tensor, finished: Sequence[bool]) -> torch.Tensor:
        """See :class:`Decoder`."""
        self._taken += 1
        return self._decoder.advance(tokens)


def make_decoder(lvlm: LVLM, state: PrefillState, n: int, limit: int) -> Decoder:
    """Return a decoder of ``n`` responses of up to ``limit`` tokens to each prompt of ``state``."""
    decoder = static_decoder(lvlm, state, n, limit) if lvlm.device.type == "cuda" else None
    return CudaGraphDecoder(decoder, state) if decoder else EagerDecoder(lvlm, state, n)


class TokenSampler(Protocol):
    """Selection of the next token of each row."""

    def pick(self, logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        """Return the next tokens.

        Args:
            logits: (b, V).
            rows: (b,) indices of the responses, on the CPU.
            step: index of the token in the response, from 0.

        Returns:
            (b,) token ids.
        """


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

    def pick(self, logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        """See :class:`TokenSampler`; inverts the cumulative distribution at the row's random number."""
        ids, probabilities = kept_tokens(logits, self.config)
        cumulated = probabilities.cumsum(dim=-1)
        at = self.streams[rows, step].to(logits.device)[:, None] * cumulated[:, -1:]
        # Rounding may put `at` on the last sum itself, and a token of probability 0 must never be drawn. If the logits
        # are NaN, all are 0: index 0 then, since an index of -1 would break the GPU context.
        last = ((probabilities > 0).sum(dim=-1, keepdim=True) - 1).clamp_min(0)
        chosen = torch.minimum(torch.searchsorted(cumulated, at, right=True), last)
        return ids.gather(1, chosen)[:, 0]


@dataclass(frozen=True)
class GreedySampler:
    """Selection of the most likely token, the first one in case of ties."""

    def pick(self, logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        """See :class:`TokenSampler`."""
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

    def pick(self, logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        """See :class:`TokenSampler`."""
        return self._tokens[rows, step].to(logits.device)


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


def _streams(seed: int, rows: range, steps: int) -> torch.Tensor:
    """Return (len(rows), steps) random numbers in [0, 1) for the responses ``rows``."""
    # Drawn row by row, so that a row does not depend on the number of rows.
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows.stop, steps, generator=generator)[rows.start :]


@dataclass(frozen=True)
class GeneratedBatch:
    """Responses to one prompt decoded in one batch: the rows from ``first`` up to, but without, ``last`` of
    ``prefix_cache``."""

    prefix_cache: SharedPrefixCache
    first: int
    last: int


@dataclass(frozen=True)
class Generations:
    """N responses to one prompt.

    Attributes:
        state: the prefill.
        prompt: index of the prompt in ``state``.
        response_ids: token ids of each response, without its end token.
        finished: whether each response ended with an end token.
        batches: keys and queries of the responses, in order.
        seed: seed of the sampling.
        token_entropy: entropy in nats of the vocabulary distribution (before temperature and truncation) at each token
            of each response; None if it was not requested.
        token_logprob: log-probability in nats of each token of each response in that distribution; None if it was not
            requested.
        broken: whether logits were NaN, infinite or out of range; then no response may be used.
    """

    state: PrefillState
    prompt: int
    response_ids: tuple[tuple[int, ...], ...]
    finished: tuple[bool, ...]
    batches: tuple[GeneratedBatch, ...]
    seed: int
    token_entropy: tuple[tuple[float, ...], ...] | None = None
    token_logprob: tuple[tuple[float, ...], ...] | None = None
    broken: bool = False

    @property
    def num_samples(self) -> int:
        """Number of responses N."""
        return len(self.response_ids)

    def extended(self, more: Generations) -> Generations:
        """Return these responses followed by ``more``, which must belong to the same prefill."""
        entropy = logprob = None
        if self.token_entropy is not None and more.token_entropy is not None:
            entropy = self.token_entropy + more.token_entropy
        if self.token_logprob is not None and more.token_logprob is not None:
            logprob = self.token_logprob + more.token_logprob
        return replace(
            self,
            response_ids=self.response_ids + more.response_ids,
            finished=self.finished + more.finished,
            batches=self.batches + more.batches,
            token_entropy=entropy,
            token_logprob=logprob,
            broken=self.broken or more.broken,
        )


def draw_more(
    lvlm: LVLM,
    state: PrefillState,
    config: SamplingConfig,
    seeds: Sequence[int],
    rows: range,
    *,
    should_stop: ShouldStop | None = None,
    cut_when: Callable[[], bool] | None = None,
    token_statistics: bool = False,
) -> tuple[Generations, ...]:
    """Sample the responses with the indices ``rows`` to each prompt of ``state``, with one seed per prompt.

    ``config.num_samples`` and ``config.seed`` are ignored. ``cut_when`` is that of :func:`generate`.

    Raises:
        Cancelled: ``should_stop`` returned True.
    """
    sampler = TopPSampler.of(config, seeds, rows)
    written = generate(
        lvlm,
        state,
        sampler,
        len(rows),
        config.max_new_tokens,
        should_stop=should_stop,
        cut_when=cut_when,
        token_statistics=token_statistics,
    )
    return tuple(replace(s, seed=seed) for s, seed in zip(written, seeds, strict=True))


def fresh_seed() -> int:
    """Return a random seed in [0, 2^31)."""
    return secrets.randbits(31)


def generate(
    lvlm: LVLM,
    state: PrefillState,
    sampler: TokenSampler,
    n: int,
    limit: int,
    *,
    should_stop: ShouldStop | None = None,
    cut_when: Callable[[], bool] | None = None,
    token_statistics: bool = False,
) -> tuple[Generations, ...]:
    """Generate ``n`` responses to each prompt of ``state`` in one batch.

    If the logits of an unfinished response are NaN, infinite or beyond MAX_LOGIT, generation ends, and all responses
    are marked as ``broken``.

    Args:
        lvlm: the model.
        state: prefill of the prompts.
        sampler: selects the tokens.
        n: number of responses per prompt.
        limit: maximum number of tokens per response, including the end token.
        should_stop: checked once per token; True cancels the call.
        cut_when: checked once per token; True ends generation and keeps the unfinished responses.
        token_statistics: whether to keep the entropy and log-probability of every token.

    Returns:
        The responses to each prompt, with seed 0.

    Raises:
        Cancelled: ``should_stop`` returned True.
    """
    total = n * len(state.prompts)
    tokens: list[list[int]] = [[] for _ in range(total)]
    entropies: list[list[float]] = [[] for _ in range(total)]
    logprobs: list[list[float]] = [[] for _ in range(total)]
    finished = [False] * total
    broken = False
    with lvlm.lock, torch.inference_mode(), use_shared_prefix_attention(lvlm):
        steps = make_decoder(lvlm, state, n, limit)
        logits = torch.stack(state.logits).repeat_interleave(n, dim=0)  # (N, V)
        for step in range(limit):
            if should_stop and should_stop():
                raise Cancelled("stopped while the model was answering")
            if cut_when and cut_when():
                break
            chosen = sampler.pick(logits, steps.rows, step)
            # One transfer with the tokens, for which the host waits anyway.
            picked, unusable = torch.stack([chosen, ~_usable(logits)]).tolist()
            broken = any(bad and not finished[row] for row, bad in zip(steps.rows.tolist(), unusable, strict=True))
            if broken:
                break
            if token_statistics:
                spread, certainty = _statistics(logits, chosen)
            for i, (row, token) in enumerate(zip(steps.rows.tolist(), picked, strict=True)):
                if finished[row]:
                    continue
                finished[row] = token in lvlm.eos_ids
                if not finished[row]:
                    tokens[row].append(token)
                    if token_statistics:
                        entropies[row].append(spread[i])
                        logprobs[row].append(certainty[i])
            if step + 1 == limit or all(finished):
                break
            logits = steps.advance(chosen, finished)
        prefix_cache = steps.written()
    parts = [slice(k * n, (k + 1) * n) for k in range(len(state.prompts))]
    return tuple(
        Generations(
            state=state,
            prompt=k,
            response_ids=tuple(tuple(ids) for ids in tokens[part]),
            finished=tuple(finished[part]),
            batches=(GeneratedBatch(prefix_cache, part.start, part.stop),),
            seed=0,
            token_entropy=tuple(map(tuple, entropies[part])) if token_statistics else None,
            token_logprob=tuple(map(tuple, logprobs[part])) if token_statistics else None,
            broken=broken,
        )
        for k, part in enumerate(parts)
    )


def _statistics(logits: torch.Tensor, chosen: torch.Tensor) -> tuple[list[float], list[float]]:
    """Return the entropy of each row of ``logits`` (b, V), and the log-probability of its token ``chosen`` (b,), in
    nats."""
    logprob = logits.float().log_softmax(dim=-1)
    entropy = torch.special.entr(logprob.exp()).sum(dim=-1)
    of_chosen = logprob.gather(1, chosen.to(torch.int64)[:, None])[:, 0]
    both = torch.stack([entropy, of_chosen]).tolist()  # one transfer
    return both[0], both[1]


def _usable(logits: torch.Tensor) -> torch.Tensor:
    """Return whether the largest of each row of ``logits`` (b, V) is finite and in range: (b,) bool. NaN counts as the
    largest; single logits may be -inf."""
    return logits.amax(dim=-1).abs() < MAX_LOGIT


def responses_of(samples: Generations) -> Iterator[tuple[SharedPrefixCache, int]]:
    """Yield, for every response, the cache that holds it and its row there."""
    for batch in samples.batches:
        for row in range(batch.first, batch.last):
            yield batch.prefix_cache, row
