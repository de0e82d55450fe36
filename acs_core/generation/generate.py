"""Generation of N responses to a prompt after one prefill, in one batch that shares the prompt's keys (paper section
5.1).

``generate(num_return_sequences=N)`` of transformers prefills the prompt N times and keeps N copies of its cache. Here
:func:`acs_core.generation.prefill.prefill` runs once, all rows attend to the same copy in
:class:`acs_core.generation.prefill.SharedPrefixCache`, and finished rows leave the batch. Several prompts about the
same image are decoded in one batch, too. The queries of every step are kept, so that :mod:`acs_core.attention` can
compute attention afterwards.

Each step feeds every running row its newest token and, with drafts (:mod:`acs_core.generation.speculation`), the tokens
that probably follow it; what the row keeps is what it would have written token by token. Without drafts, recorded steps
draw their tokens on the device (:mod:`acs_core.generation.device_draw`), and the host reads them later.

Tokens are sampled with temperature, top-k, top-p and one stream of random numbers per response, which depends on the
seed and the index of the response only. Response 3 is therefore the same for three or thirty responses, in one batch or
several, together with other phrases or not, with drafts or without, on a CPU or a GPU (as far as the logits are the
same). No global random state is read or changed.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from acs_core.device_array import upload
from acs_core.errors import Cancelled
from acs_core.generation.ahead import AHEAD, draws, run_ahead
from acs_core.generation.decoding import Decoder, make_decoder
from acs_core.generation.prefill import PrefillState
from acs_core.generation.rows import Ends, IsComplete, ResponseRow
from acs_core.generation.shared_cache import SharedPrefixCache, use_shared_prefix_attention
from acs_core.generation.speculation import MOST, AnswerDrafts
from acs_core.generation.token_sampler import TokenSampler, TopPSampler, certainty_of, is_usable
from acs_core.lvlm.base import LVLM
from acs_core.types import SamplingConfig, ShouldStop


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
    drafts: AnswerDrafts | None = None,
    is_complete: IsComplete | None = None,
) -> tuple[Generations, ...]:
    """Sample the responses with the indices ``rows`` to each prompt of ``state``, with one seed per prompt.

    ``config.num_samples``, ``config.seed`` and ``config.speculation`` are ignored. ``cut_when``, ``drafts`` and
    ``is_complete`` are those of :func:`generate`.

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
        drafts=drafts,
        is_complete=is_complete,
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
    drafts: AnswerDrafts | None = None,
    is_complete: IsComplete | None = None,
    ahead: int = AHEAD,
) -> tuple[Generations, ...]:
    """Generate ``n`` responses to each prompt of ``state`` in one batch.

    If the logits of an unfinished response are NaN, infinite or out of range, generation ends, and all responses
    are marked as ``broken``.

    Args:
        lvlm: the model.
        state: prefill of the prompts.
        sampler: selects the tokens.
        n: number of responses per prompt.
        limit: maximum number of tokens per response, including the end token.
        should_stop: checked once per forward; True cancels the call.
        cut_when: checked once per forward; True ends generation and keeps the unfinished responses.
        token_statistics: whether to keep the entropy and log-probability of every token.
        drafts: predicts tokens, which are then checked in one forward, and learns from the responses; None to decode
            token by token. The openings of ``state`` are used either way.
        is_complete: called with a prompt and the tokens of a response after each of them; True ends the response, which
            then counts as finished.
        ahead: number of steps that are queued beyond the one whose tokens the host reads, where tokens are drawn on the
            device; 0 to read the tokens of a step before the next one, as it is with drafts. Responses are the same.

    Returns:
        The responses to each prompt, with seed 0.

    Raises:
        Cancelled: ``should_stop`` returned True.
    """
    rows = [ResponseRow(k) for k in range(len(state.prompts)) for _ in range(n)]
    ends = Ends(lvlm.eos_ids, limit, is_complete)
    broken = False
    with lvlm.lock, torch.inference_mode(), use_shared_prefix_attention(lvlm):
        decoder = make_decoder(lvlm, state, n, limit)
        step = _first_step(state, n, limit)
        while True:
            if should_stop and should_stop():
                raise Cancelled("stopped while the model was answering")
            if cut_when and cut_when():
                break
            taken = _select(step, sampler, rows, state, ends, token_statistics)
            broken = taken is None
            if taken is None:
                break
            if step.is_first:
                # The first token of a row belongs to no opening token; the others were fed to be kept.
                decoder.begin_with(state.openings, [count - 1 for count in taken])
            else:
                decoder.keep(taken)
            running = [i for i, row in enumerate(rows) if not row.ended]
            if not running:
                break
            if ahead and drafts is None and draws(decoder, sampler, rows, token_statistics):
                broken = run_ahead(decoder, rows, state, ends, ahead, should_stop, cut_when)
                break
            step = _next_step(decoder, state, rows, running, limit, drafts)
        prefix_cache = decoder.written()
    parts = [slice(k * n, (k + 1) * n) for k in range(len(state.prompts))]
    written = tuple(
        Generations(
            state=state,
            prompt=k,
            response_ids=tuple(tuple(row.tokens) for row in rows[part]),
            finished=tuple(row.finished for row in rows[part]),
            batches=(GeneratedBatch(prefix_cache, part.start, part.stop),),
            seed=0,
            token_entropy=tuple(tuple(row.entropy) for row in rows[part]) if token_statistics else None,
            token_logprob=tuple(tuple(row.logprob) for row in rows[part]) if token_statistics else None,
            broken=broken,
        )
        for k, part in enumerate(parts)
    )
    if drafts and not broken:
        with lvlm.lock:
            for samples, prompt in zip(written, state.prompts, strict=True):
                drafts.learn(samples.response_ids, samples.finished, prompt.phrase)
    return written


@dataclass(frozen=True)
class _Step:
    """Logits for M places of running rows, row by row.

    Attributes:
        logits: (U, V).
        source: (M,) row of ``logits`` for each place, on their device; None if it is the place's own index.
        drafted: for each running row, the drafted token at each of its places; None at the last one, which has none.
        is_first: whether the logits are those of the prefill.
    """

    logits: torch.Tensor
    source: torch.Tensor | None
    drafted: dict[int, list[int | None]]
    is_first: bool = False


def _first_step(state: PrefillState, n: int, limit: int) -> _Step:
    """Return the logits of the prefill for ``n`` rows of each prompt: those after the prompt and after its opening."""
    logits: list[torch.Tensor] = []
    source: list[int] = []
    drafted: dict[int, list[int | None]] = {}
    for prompt, opening in enumerate(state.openings):
        first = len(logits)
        tokens = opening.tokens[: limit - 1] if opening else ()
        logits += [state.logits[prompt], *(opening.logits[: len(tokens)] if opening else ())]
        for row in range(prompt * n, (prompt + 1) * n):
            drafted[row] = [*tokens, None]
            source += range(first, len(logits))
    together = torch.stack(logits)
    return _Step(together, upload(source, together.device), drafted, is_first=True)


def _next_step(
    decoder: Decoder,
    state: PrefillState,
    rows: Sequence[ResponseRow],
    running: Sequence[int],
    limit: int,
    drafts: AnswerDrafts | None,
) -> _Step:
    """Run a forward for the newest token of each running row and the tokens drafted after it."""
    drafted: dict[int, list[int | None]] = {}
    fed: dict[int, list[int]] = {}
    for i in running:
        row = rows[i]
        most = min(MOST, limit - 1 - len(row.tokens))
        draft = drafts.draft(row.tokens, state.prompts[row.prompt].phrase, most) if drafts and most > 0 else []
        fed[i], drafted[i] = [row.tokens[-1], *draft], [*draft, None]
    return _Step(decoder.advance(fed), None, drafted)


def _select(
    step: _Step, sampler: TokenSampler, rows: Sequence[ResponseRow], state: PrefillState, ends: Ends, statistics: bool
) -> list[int] | None:
    """Select the tokens at the places of ``step`` and add them to their rows, up to the first of each row that differs
    from its draft or ends the response.

    Returns:
        The number of places that each running row of the step has used; None if logits that were needed are broken, and
        then no token was added.
    """
    at = [(i, len(rows[i].tokens) + k) for i, drafted in step.drafted.items() for k in range(len(drafted))]
    of_rows, places = torch.tensor(at).unbind(dim=-1)
    chosen = sampler.pick(step.logits, of_rows, places, step.source)
    usable = is_usable(step.logits)
    if step.source is not None:
        usable = usable[step.source]
    told = [chosen, ~usable]
    if statistics:
        told += certainty_of(step.logits if step.source is None else step.logits[step.source], chosen)
    # One transfer, for which the host waits; float64 holds ids and float32 as they are.
    values = torch.stack([t.to(torch.float64) for t in told]).tolist()
    picked, unusable = [int(token) for token in values[0]], values[1]
    found: list[tuple[ResponseRow, int, int]] = []  # row, index of its first place, number of places used
    first = 0
    for i, drafted in step.drafted.items():
        row, written = rows[i], [*rows[i].tokens]
        for k, draft in enumerate(drafted):
            if unusable[first + k]:
                return None
            written.append(picked[first + k])
            last = ends.is_last(state.prompts[row.prompt], written)
            if last or picked[first + k] != draft:
                break
        row.ended = last
        found.append((row, first, k + 1))
        first += len(drafted)
    for row, first, count in found:
        for m in range(first, first + count):
            row.finished = picked[m] in ends.eos_ids
            if row.finished:
                break
            row.tokens.append(picked[m])
            if statistics:
                row.entropy.append(values[2][m])
                row.logprob.append(values[3][m])
        else:
            row.finished = row.ended and ends.is_finished(state.prompts[row.prompt], row.tokens)
    return [count for _, _, count in found]


def responses_of(samples: Generations) -> Iterator[tuple[SharedPrefixCache, int]]:
    """Yield, for every response, the cache that holds it and its row there."""
    for batch in samples.batches:
        for row in range(batch.first, batch.last):
            yield batch.prefix_cache, row
