"""Decoding with steps that draw their tokens on the device: the host reads them while later steps run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeGuard

from acs_core.errors import Cancelled
from acs_core.generation.decoding import CudaGraphDecoder, Decoder
from acs_core.generation.device_draw import Pending
from acs_core.generation.prefill import PrefillState
from acs_core.generation.rows import Ends, ResponseRow
from acs_core.generation.token_sampler import TableSampler, TokenSampler
from acs_core.types import ShouldStop

AHEAD = 1  # the device always has a step to do; each further one is in vain after the end of the longest response


def draws(
    decoder: Decoder, sampler: TokenSampler, rows: Sequence[ResponseRow], statistics: bool
) -> TypeGuard[CudaGraphDecoder]:
    """Return whether ``decoder`` can draw the tokens after those of ``rows`` itself, and then prepare it for that."""
    if not (isinstance(decoder, CudaGraphDecoder) and isinstance(sampler, TableSampler)):
        return False
    return decoder.begin_drawing(sampler, [() if row.ended else row.tokens for row in rows], statistics)


def run_ahead(
    decoder: CudaGraphDecoder,
    rows: Sequence[ResponseRow],
    state: PrefillState,
    ends: Ends,
    ahead: int,
    should_stop: ShouldStop | None,
    cut_when: Callable[[], bool] | None,
) -> bool:
    """Write the responses to their ends, with up to ``ahead`` steps queued beyond the one whose tokens are read.

    Returns:
        Whether logits that were needed are broken; their step adds no tokens.

    Raises:
        Cancelled: ``should_stop`` returned True.
    """
    queued: deque[Pending] = deque()
    cut = False
    while True:
        if should_stop and should_stop():
            raise Cancelled("stopped while the model was answering")
        running = [i for i, row in enumerate(rows) if not row.ended]
        cut = cut or bool(cut_when and cut_when())
        if not cut and any(len(rows[i].tokens) + len(queued) < ends.limit for i in running):
            queued.append(decoder.draw())
            if len(queued) <= ahead:
                continue
        if not (queued and running):
            return False
        told = queued.popleft().wait()
        if any(told[1][i] for i in running):
            return True
        decoder.keep_drawn(running)
        for i in running:
            row, token = rows[i], int(told[0][i])
            prompt = state.prompts[row.prompt]
            row.ended = ends.is_last(prompt, [*row.tokens, token])
            row.finished = token in ends.eos_ids
            if row.finished:
                continue
            row.tokens.append(token)
            if len(told) > 2:
                row.entropy.append(told[2][i])
                row.logprob.append(told[3][i])
            row.finished = row.ended and ends.is_finished(prompt, row.tokens)
