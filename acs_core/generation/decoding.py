"""Decoding: one forward of the language model for the newest tokens of all running rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from acs_core.device_array import upload
from acs_core.generation.cuda_graph import StaticDecoder, static_decoder
from acs_core.generation.device_draw import DeviceDraw, Pending
from acs_core.generation.prefill import PrefillState, cache_name
from acs_core.generation.shared_cache import Opening, SharedPrefixCache, no_mask
from acs_core.generation.token_sampler import TableSampler
from acs_core.lvlm.base import LVLM


class Decoder(Protocol):
    """Decoding of a batch of N rows: one forward of the language model for the newest tokens of each running row, and
    for tokens drafted after them."""

    def begin_with(self, openings: Sequence[Opening | None], kept: Sequence[int]) -> None:
        """Begin the N rows with the first ``kept`` tokens of the opening of their prompt; called before any step."""

    def advance(self, tokens: Mapping[int, Sequence[int]]) -> torch.Tensor:
        """Decode one step.

        Args:
            tokens: the tokens to feed to each running row, at least one; rows ascending.

        Returns:
            (M, V) logits after each of the M fed tokens, row by row.
        """

    def keep(self, kept: Sequence[int]) -> None:
        """Keep the first ``kept`` fed tokens of each row of the last step; the others are overwritten."""

    def written(self) -> SharedPrefixCache:
        """Return the cache with the keys, values and queries of all rows."""


class EagerDecoder:
    """Eager decoding; only the running rows are in the batch."""

    def __init__(self, lvlm: LVLM, state: PrefillState, n: int) -> None:
        self._lvlm = lvlm
        self._cache = SharedPrefixCache(state.prefix, state.suffixes, [n] * len(state.prompts))
        self._embed = lvlm.text_model.get_input_embeddings()
        self._head = lvlm.hf_model.get_output_embeddings()
        self._mask = no_mask(lvlm.device)
        self._next = [p.next_position for p in state.prompts for _ in range(n)]
        self._axes = state.prompts[0].position_ids.shape[:-2]  # () or (3,)

    def begin_with(self, openings: Sequence[Opening | None], kept: Sequence[int]) -> None:
        """See :class:`Decoder`."""
        self._cache.begin_with(openings, kept)

    def keep(self, kept: Sequence[int]) -> None:
        """See :class:`Decoder`."""
        self._cache.keep(kept)

    def written(self) -> SharedPrefixCache:
        """See :class:`Decoder`."""
        return self._cache

    def advance(self, tokens: Mapping[int, Sequence[int]]) -> torch.Tensor:
        """See :class:`Decoder`."""
        cache, device = self._cache, self._lvlm.device
        fed = [token for ids in tokens.values() for token in ids]
        places = [self._next[row] + cache.lengths[row] + i for row, ids in tokens.items() for i in range(len(ids))]
        newest, positions = upload([fed, places], device)[..., None].unbind()  # (M, 1) each
        cache.begin_step({row: len(ids) for row, ids in tokens.items()})
        hidden = self._lvlm.text_model(
            inputs_embeds=self._embed(newest),
            attention_mask=self._mask,
            position_ids=positions.expand(*self._axes, *positions.shape),
            use_cache=True,
            acs_attending=cache,
            **{cache_name(self._lvlm.text_model.__class__): cache},
        ).last_hidden_state
        cache.end_step()
        return self._head(hidden[:, -1])


class CudaGraphDecoder:
    """Decoding by replaying recorded CUDA graphs; all rows stay in the batch to the end, and all are fed as many tokens
    as the row with the most."""

    def __init__(self, decoder: StaticDecoder, state: PrefillState) -> None:
        self._decoder, self._state = decoder, state
        self._lengths = [0] * decoder.rows.n  # those of prompts to spare stay empty
        self._fed: tuple[int, ...] = ()
        self._drawn: DeviceDraw | None = None

    def begin_with(self, openings: Sequence[Opening | None], kept: Sequence[int]) -> None:
        """See :class:`Decoder`."""
        each = self._decoder.rows.capacity.each
        for k, opening in enumerate(openings):
            if opening is not None and any(kept[k * each : (k + 1) * each]):
                self._decoder.rows.begin_with(k, opening)
        self._lengths[: len(kept)] = kept

    def keep(self, kept: Sequence[int]) -> None:
        """See :class:`Decoder`."""
        for row, number in zip(self._fed, kept, strict=True):
            self._lengths[row] += number

    def written(self) -> SharedPrefixCache:
        """See :class:`Decoder`."""
        used = len(self._state.prompts) * self._decoder.rows.capacity.each
        return self._decoder.rows.copy_out(self._state, self._lengths[:used])

    def advance(self, tokens: Mapping[int, Sequence[int]]) -> torch.Tensor:
        """See :class:`Decoder`."""
        self._fed = tuple(tokens)
        logits = self._decoder.advance(tokens, self._lengths)  # (N, W, V)
        if logits.shape[1] == 1 and len(tokens) == len(logits):
            return logits[:, 0]
        at = [[row, i] for row, ids in tokens.items() for i in range(len(ids))]
        rows, places = upload(at, logits.device).unbind(dim=-1)
        return logits[rows, places]

    def begin_drawing(self, sampler: TableSampler, written: Sequence[Sequence[int]], statistics: bool) -> bool:
        """Prepare steps that draw with ``sampler`` the tokens after ``written``, those of each row; none for a row that
        has ended.

        Returns:
            Whether that is possible; if not, :meth:`advance` still is.

        Raises:
            torch.OutOfMemoryError: the GPU has no memory for another recorded step.
        """
        self._drawn = self._decoder.drawing(sampler, statistics)
        if self._drawn is not None:
            self._drawn.begin(sampler, written)
        return self._drawn is not None

    def draw(self) -> Pending:
        """Queue a step; what it draws may be read later. Rows that have ended go on, in vain."""
        if self._drawn is None:
            raise RuntimeError("begin_drawing comes first")
        self._decoder.draw(self._drawn)
        return Pending(self._drawn.told)

    def keep_drawn(self, rows: Sequence[int]) -> None:
        """Keep the token that the next step which was not kept yet fed to each of ``rows``."""
        for row in rows:
            self._lengths[row] += 1


def make_decoder(lvlm: LVLM, state: PrefillState, n: int, limit: int) -> Decoder:
    """Return a decoder of ``n`` responses of up to ``limit`` tokens to each prompt of ``state``."""
    decoder = static_decoder(lvlm, state, n, limit) if lvlm.device.type == "cuda" else None
    return CudaGraphDecoder(decoder, state) if decoder else EagerDecoder(lvlm, state, n)
