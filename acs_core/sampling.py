"""Draws N responses to a prompt that is read once, in one batch that shares the prompt's keys (paper section 5.1).

``generate(num_return_sequences=N)`` runs the language model over the prompt N times and keeps N copies of its cache.
Here :func:`acs_core.reading.read` runs it once, :class:`acs_core.branches.Branches` lets all rows attend to that one
copy, and rows that have ended leave the batch. Several prompts about one picture are answered in one batch too.

Nothing of attention is computed for its own sake on the way: the queries are kept, and :mod:`acs_core.attention` looks
with them afterwards.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from acs_core.branches import Branches, branch_attention_of
from acs_core.decode import decode_steps
from acs_core.drawing import Draw, Forced, Greedy, RandomDraw
from acs_core.errors import Cancelled
from acs_core.lvlm.base import LVLM, Prompt
from acs_core.reading import Reading, read, side_by_side
from acs_core.types import SamplingConfig, ShouldStop


@dataclass(frozen=True)
class Written:
    """Responses of one prompt that were written in one batch: rows ``first`` to ``last`` of ``branches``."""

    branches: Branches
    first: int
    last: int


@dataclass(frozen=True)
class Samples:
    """N responses to prompt ``prompt`` of ``reading``.

    ``response_ids[i]`` are the tokens of response i without its end token; ``finished[i]`` says whether it had one.
    ``batches`` hold keys and queries of the responses, in order. ``seed`` repeats the draw. ``token_entropy[i]`` is the
    entropy in nats of the vocabulary distribution (before temperature and cuts) at each token of response i, if asked
    for.
    """

    reading: Reading
    prompt: int
    response_ids: tuple[tuple[int, ...], ...]
    finished: tuple[bool, ...]
    batches: tuple[Written, ...]
    seed: int
    token_entropy: tuple[tuple[float, ...], ...] | None = None

    @property
    def num_samples(self) -> int:
        """Number of responses N."""
        return len(self.response_ids)

    def extended(self, more: Samples) -> Samples:
        """These responses and then ``more``, drawn from the same reading."""
        entropy = None
        if self.token_entropy is not None and more.token_entropy is not None:
            entropy = self.token_entropy + more.token_entropy
        return replace(
            self,
            response_ids=self.response_ids + more.response_ids,
            finished=self.finished + more.finished,
            batches=self.batches + more.batches,
            token_entropy=entropy,
        )


def sample(
    lvlm: LVLM,
    prompt: Prompt,
    config: SamplingConfig,
    should_stop: ShouldStop | None = None,
    forced: Sequence[Sequence[int]] | None = None,
    token_entropy: bool = False,
) -> Samples:
    """N responses drawn with the temperature, top-p, top-k and seed of ``config``.

    ``forced`` gives the token ids of every response instead (one row per sample, end token added): it is how known
    answers are looked at.

    Raises:
        Cancelled: ``should_stop`` returned True, asked once per token.
        ValueError: ``forced`` has another number of rows than ``config.num_samples``.
    """
    if forced is not None and len(forced) != config.num_samples:
        raise ValueError(f"forced has {len(forced)} rows for {config.num_samples} samples: they must be as many")
    seed = fresh_seed() if config.seed is None else config.seed
    reading = read(lvlm, [prompt], should_stop)
    rows = range(config.num_samples)
    draw: Draw
    if forced is not None:
        draw, limit = Forced(forced, lvlm.eos_ids[0]), max(map(len, forced)) + 1
    else:
        draw, limit = RandomDraw.of(config, [seed], rows), config.max_new_tokens
    written = write(lvlm, reading, draw, len(rows), limit, should_stop=should_stop, token_entropy=token_entropy)
    return replace(written[0], seed=seed)


def greedy(
    lvlm: LVLM,
    prompt: Prompt,
    max_new_tokens: int = 256,
    should_stop: ShouldStop | None = None,
    token_entropy: bool = False,
) -> Samples:
    """The most likely response, N = 1, without any randomness (seed 0). Raises Cancelled."""
    reading = read(lvlm, [prompt], should_stop)
    return write(lvlm, reading, Greedy(), 1, max_new_tokens, should_stop=should_stop, token_entropy=token_entropy)[0]


def answer_each(
    lvlm: LVLM,
    readings: Sequence[Reading],
    config: SamplingConfig | None,
    seeds: Sequence[int],
    max_new_tokens: int = 256,
    token_entropy: bool = False,
) -> tuple[Samples, ...]:
    """What :func:`sample` gives for each of ``readings``, each of one prompt about whatever picture, with its seed, or
    :func:`greedy` where ``config`` is None; up to rounding, and on a CPU written in one batch."""
    n, limit = (config.num_samples, config.max_new_tokens) if config else (1, max_new_tokens)

    def draw(seeds: Sequence[int]) -> Draw:
        return RandomDraw.of(config, seeds, range(n)) if config else Greedy()

    written: list[Samples] = []
    if lvlm.device.type == "cuda":  # a recorded step serves one prompt
        for reading, seed in zip(readings, seeds, strict=True):
            written += write(lvlm, reading, draw([seed]), n, limit, token_entropy=token_entropy)
    else:
        written += write(lvlm, side_by_side(readings), draw(seeds), n, limit, token_entropy=token_entropy)
    return tuple(
        replace(samples, reading=reading, prompt=0, seed=seed if config else 0)
        for samples, reading, seed in zip(written, readings, seeds, strict=True)
    )


def draw_more(
    lvlm: LVLM,
    reading: Reading,
    config: SamplingConfig,
    seeds: Sequence[int],
    rows: range,
    *,
    should_stop: ShouldStop | None = None,
    cut_when: Callable[[], bool] | None = None,
    token_entropy: bool = False,
) -> tuple[Samples, ...]:
    """The responses number ``rows`` to each prompt of ``reading``, with its seed; ``config.num_samples`` and
    ``config.seed`` do not matter. ``cut_when`` as in :func:`write`. Raises Cancelled."""
    draw = RandomDraw.of(config, seeds, rows)
    written = write(
        lvlm,
        reading,
        draw,
        len(rows),
        config.max_new_tokens,
        should_stop=should_stop,
        cut_when=cut_when,
        token_entropy=token_entropy,
    )
    return tuple(replace(s, seed=seed) for s, seed in zip(written, seeds, strict=True))


def fresh_seed() -> int:
    """A random seed in [0, 2^31)."""
    return secrets.randbits(31)


def write(
    lvlm: LVLM,
    reading: Reading,
    draw: Draw,
    n: int,
    limit: int,
    *,
    should_stop: ShouldStop | None = None,
    cut_when: Callable[[], bool] | None = None,
    token_entropy: bool = False,
) -> tuple[Samples, ...]:
    """``n`` responses of at most ``limit`` tokens (end token counted) to each prompt of ``reading``, all in one batch,
    each token chosen by ``draw``. Seeds are 0.

    ``cut_when`` is asked once per token; when it returns True the responses stay as they are then, unfinished. With
    ``should_stop`` the call ends instead.

    Raises:
        Cancelled: ``should_stop`` returned True, asked once per token.
    """
    total = n * len(reading.prompts)
    tokens: list[list[int]] = [[] for _ in range(total)]
    entropies: list[list[float]] = [[] for _ in range(total)]
    finished = [False] * total
    with lvlm.lock, torch.inference_mode(), branch_attention_of(lvlm):
        steps = decode_steps(lvlm, reading, n, limit)
        logits = torch.stack(reading.logits).repeat_interleave(n, dim=0)  # (N, V)
        for step in range(limit):
            if should_stop and should_stop():
                raise Cancelled("stopped while the model was answering")
            if cut_when and cut_when():
                break
            chosen = draw.pick(logits, steps.rows, step)
            if token_entropy:
                spread = torch.special.entr(logits.float().softmax(dim=-1)).sum(dim=-1).tolist()
            for i, (row, token) in enumerate(zip(steps.rows.tolist(), chosen.tolist(), strict=True)):
                if finished[row]:
                    continue
                finished[row] = token in lvlm.eos_ids
                if not finished[row]:
                    tokens[row].append(token)
                    if token_entropy:
                        entropies[row].append(spread[i])
            if step + 1 == limit or all(finished):
                break
            logits = steps.advance(chosen, finished)
        branches = steps.written()
    parts = [slice(k * n, (k + 1) * n) for k in range(len(reading.prompts))]
    return tuple(
        Samples(
            reading=reading,
            prompt=k,
            response_ids=tuple(tuple(ids) for ids in tokens[part]),
            finished=tuple(finished[part]),
            batches=(Written(branches, part.start, part.stop),),
            seed=0,
            token_entropy=tuple(tuple(e) for e in entropies[part]) if token_entropy else None,
        )
        for k, part in enumerate(parts)
    )


def responses_of(samples: Samples) -> Iterator[tuple[Branches, int]]:
    """For every response, where it was written: its branches and its row there."""
    for batch in samples.batches:
        for row in range(batch.first, batch.last):
            yield batch.branches, row
