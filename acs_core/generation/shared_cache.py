"""Key-value cache of N responses that share the prompt, and the attention to it.

An ordinary key-value cache of N rows repeats the prompt N times, and every decode step reads all copies. A
:class:`SharedPrefixCache` stores the keys and values of the prompt once: the queries of all rows are multiplied with
them in one product, the query of each row is multiplied with its own few keys, and one softmax runs over both. This is
exact, needs the memory of one prompt, and reads it once per step.

The queries are kept as well (a few kilobytes per token and layer). :mod:`acs_core.attention` later scores the relevant
ones against the keys, so attention needs no second forward.

The attention function is registered with transformers under one name and has no state: the caller of a forward passes a
:class:`SharedPrefixCache` or a :class:`QueryRecorder` as a keyword argument, which reaches every layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from acs_core.device_array import upload
from acs_core.lvlm.base import LVLM

IMPLEMENTATION = "acs_branches"
_GROWTH = 64  # minimum number of tokens by which the buffers of own tokens grow


@dataclass(frozen=True)
class CacheSegment:
    """Keys and values of consecutive tokens, (G, S, D) per layer, after rope; G key groups of D channels."""

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]

    @property
    def length(self) -> int:
        """Number of tokens S."""
        return self.keys[0].shape[1]

    def followed_by(self, more: CacheSegment) -> CacheSegment:
        """Return a copy of these tokens followed by those of ``more``."""
        return CacheSegment(
            tuple(torch.cat(pair, dim=1) for pair in zip(self.keys, more.keys, strict=True)),
            tuple(torch.cat(pair, dim=1) for pair in zip(self.values, more.values, strict=True)),
        )


class QueryRecorder:
    """Recorder of the queries of a prompt's last tokens during a forward.

    Args:
        count: number of tokens whose queries are recorded.

    Attributes:
        layers: (B, count, K, D) for each layer.
    """

    def __init__(self, count: int = 1) -> None:
        self._count = count
        self.layers: list[torch.Tensor] = []

    def attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, scaling: float
    ) -> torch.Tensor:
        """Record the last queries and return the SDPA of ``query`` (B, K, Q, D) over ``key`` and ``value``
        (B, G, S, D).

        Returns:
            (B, Q, K, D).
        """
        self.layers.append(query[:, :, -self._count :].transpose(1, 2).clone())
        return sdpa_attention_forward(module, query, key, value, mask, scaling=scaling)[0]


class AttentionHandler(Protocol):
    """Object that computes the attention of a forward for :func:`shared_prefix_attention`."""

    def attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, scaling: float
    ) -> torch.Tensor:
        """Return the attention output (B, Q, K, D) for ``query`` (B, K, Q, D)."""


@dataclass(frozen=True)
class Opening:
    """The first q tokens that the responses to a prompt probably begin with, run together with the prompt.

    Attributes:
        tokens: their ids.
        segment: their keys and values.
        queries: (L, q, K, D).
        logits: (q, V), those after each of the tokens.
    """

    tokens: tuple[int, ...]
    segment: CacheSegment
    queries: torch.Tensor
    logits: torch.Tensor


class SharedPrefixCache:
    """Key-value cache of N responses to prompts that share a prefix.

    A step (:meth:`begin_step`, a forward, :meth:`end_step`, :meth:`keep`) feeds each running row one token or more: its
    newest one, and drafted ones after it. Every fed token is a row of the forward by itself, so that rows may be fed
    different numbers of tokens without padding; it attends to the prompt, and to its row's own tokens up to itself.
    Drafted tokens that turn out wrong are not kept, and the next step overwrites them.

    Args:
        prefix: tokens shared by all rows.
        suffixes: tokens after the prefix, one segment per prompt; None if the prefix is the whole prompt.
        counts: number of rows of each prompt; rows are ordered by prompt.

    Attributes:
        keys, values: own tokens, (N, G, capacity, D) per layer.
        lengths: number of own tokens of each of the N rows.
        queries: for each step, the queries (L, M, K, D) of the M tokens that it fed.
    """

    def __init__(self, prefix: CacheSegment, suffixes: Sequence[CacheSegment | None], counts: Sequence[int]) -> None:
        self.prefix, self.suffixes, self.counts = prefix, tuple(suffixes), tuple(counts)
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.lengths = [0] * sum(counts)
        self.queries: list[torch.Tensor] = []
        self._places: list[list[tuple[int, int]]] = [[] for _ in self.lengths]  # step and index of each own token
        self._step: list[torch.Tensor] = []
        self._fed: tuple[tuple[int, int], ...] = ()  # of the step: rows and their numbers of tokens
        self._rows = torch.arange(len(self.lengths))  # (M,) row of each fed token, ascending, on the CPU
        self._index: torch.Tensor | None = None  # (M,), the same on the device
        self._slots: torch.Tensor | None = None  # (M,) index of each fed token among its row's own tokens
        self._hidden: torch.Tensor | None = None  # (M, T) what a fed token must not see; None if it is nothing
        self._even: int | None = 0  # the slot, if all rows are fed one token each and have the same length
        self._longest = 0

    @property
    def length(self) -> int:
        """Largest number of own tokens of a row."""
        return max(self.lengths)

    def begin_with(self, openings: Sequence[Opening | None], kept: Sequence[int]) -> None:
        """Begin the N rows with the first ``kept`` tokens of the opening of their prompt; called before any step."""
        first = 0
        for opening, count in zip(openings, self.counts, strict=True):
            rows = range(first, first + count)
            first += count
            if opening is None or not any(kept[row] for row in rows):
                continue
            for layer, (keys, values) in enumerate(zip(opening.segment.keys, opening.segment.values, strict=True)):
                self._make_room(keys[None], layer, keys.shape[1])
                self.keys[layer][rows.start : rows.stop, :, : keys.shape[1]] = keys
                self.values[layer][rows.start : rows.stop, :, : keys.shape[1]] = values
            for row in rows:
                self._places[row] = [(len(self.queries), i) for i in range(kept[row])]
                self.lengths[row] = kept[row]
            self.queries.append(opening.queries)

    def begin_step(self, fed: Mapping[int, int]) -> None:
        """Prepare the forward of the next tokens.

        Args:
            fed: number of tokens, at least one, of each row that is fed, rows ascending.
        """
        self._fed = tuple(fed.items())
        rows = [row for row, count in self._fed for _ in range(count)]
        slots = [self.lengths[row] + i for row, count in self._fed for i in range(count)]
        self._rows, self._longest = torch.tensor(rows), max(slots) + 1
        same = len(set(slots)) == 1
        self._even = slots[0] if same and len(rows) == len(self.lengths) else None
        if self._even is not None:
            return
        device = self.prefix.keys[0].device
        self._index, self._slots = upload([rows, slots], device).unbind()
        self._hidden = None if same else torch.arange(self._longest, device=device) > self._slots[:, None]

    def end_step(self) -> None:
        """Store the queries of the step; call after its forward."""
        self.queries.append(torch.stack(self._step))
        self._step = []

    def keep(self, kept: Sequence[int]) -> None:
        """Add the first ``kept`` fed tokens of each fed row to the row; call after :meth:`end_step`."""
        first = 0
        for (row, count), number in zip(self._fed, kept, strict=True):
            self._places[row] += [(len(self.queries) - 1, first + i) for i in range(number)]
            self.lengths[row] += number
            first += count

    def query(self, row: int, token: int) -> torch.Tensor:
        """Return the queries (L, K, D) of ``row`` at its own token ``token``, counted from 0."""
        step, at = self._places[row][token]
        return self.queries[step][:, at]

    def own_keys(self, layer: int) -> torch.Tensor:
        """Return the keys (N, G, T, D) of the rows' own tokens; entries after the end of a row are arbitrary."""
        return self.keys[layer][:, :, : self.length]

    @classmethod
    def of_buffers(
        cls,
        prefix: CacheSegment,
        suffixes: Sequence[CacheSegment | None],
        counts: Sequence[int],
        keys: Sequence[torch.Tensor],
        queries: torch.Tensor,
        lengths: Sequence[int],
    ) -> SharedPrefixCache:
        """Create the cache of finished rows from their own keys, (N, G, T, D) per layer, and queries, (L, N * T, K, D);
        it cannot take further steps."""
        cache = cls(prefix, suffixes, counts)
        cache.keys, cache.lengths, cache.queries = list(keys), list(lengths), [queries]
        width = queries.shape[1] // len(lengths)
        cache._places = [[(0, row * width + i) for i in range(length)] for row, length in enumerate(lengths)]
        return cache

    # The cache interface of transformers.

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of tokens of the prefix and of the longest row."""
        return self.prefix.length + self.length

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store ``key`` and ``value`` (M, G, 1, D) of the fed tokens; return those of their rows, (M, G, T, D)."""
        self._make_room(key, layer_idx, self._longest)
        found = []
        for store, new in ((self.keys[layer_idx], key), (self.values[layer_idx], value)):
            if self._even is not None:
                store[:, :, self._even] = new[:, :, 0]
                found.append(store[:, :, : self._longest])
            else:
                store[self._index, :, self._slots] = new[:, :, 0]
                found.append(store[self._index, :, : self._longest])
        return found[0], found[1]

    def _make_room(self, like: torch.Tensor, layer: int, needed: int) -> None:
        _, groups, _, dim = like.shape
        if layer == len(self.keys):
            for stores in (self.keys, self.values):
                # Zeros, since weight 0 does not hide NaN in slots that a shorter row has not written.
                capacity = -(-needed // _GROWTH) * _GROWTH
                stores.append(like.new_zeros(len(self.lengths), groups, capacity, dim))
        elif needed > self.keys[layer].shape[2]:
            more = max(_GROWTH, needed // 2)
            room = like.new_zeros(len(self.lengths), groups, more, dim)
            for stores in (self.keys, self.values):
                stores[layer] = torch.cat([stores[layer], room], dim=2)

    # Attention.

    def attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, scaling: float
    ) -> torch.Tensor:
        """Attend with ``query`` (M, K, 1, D) to the prompt and to the rows' own ``key``, ``value`` (M, G, T, D).

        Returns:
            (M, 1, K, D).
        """
        layer = module.layer_idx
        rows, heads, _, dim = query.shape
        groups = key.shape[1]
        self._step.append(query[:, :, 0])
        query = query.view(rows, groups, heads // groups, dim)
        shared = [_Part(self.prefix.keys[layer], self.prefix.values[layer], 0, rows)] if self.prefix.length else []
        prompt = [*shared, *self._suffix_parts(layer)]
        # Of the parts that are attended to, not of all suffixes: a column that no part fills has no value.
        width = max((part.start + part.keys.shape[1] for part in prompt), default=0)
        weights = self._weights(query, key, prompt, width, scaling)
        out = weights[..., width:] @ value  # (M, G, K/G, T) x (M, G, T, D)
        for part in prompt:
            here = weights[part.first : part.last, ..., part.start : part.start + part.keys.shape[1]]
            out[part.first : part.last] += across(here, part.values)
        return out.view(rows, 1, heads, dim)

    def _suffix_parts(self, layer: int) -> list[_Part]:
        if not any(self.suffixes):
            return []
        ends = torch.tensor(self.counts).cumsum(0)
        phrase = torch.bucketize(self._rows, ends, right=True)  # (M,) ascending
        edges = torch.searchsorted(phrase, torch.arange(len(self.counts) + 1)).tolist()
        return [
            _Part(suffix.keys[layer], suffix.values[layer], edges[k], edges[k + 1], self.prefix.length)
            for k, suffix in enumerate(self.suffixes)
            if suffix is not None and edges[k] < edges[k + 1]
        ]

    def _weights(
        self, query: torch.Tensor, own: torch.Tensor, prompt: Sequence[_Part], width: int, scaling: float
    ) -> torch.Tensor:
        """Return the softmax, computed in float32, over prompt and own tokens: (M, G, K/G, width + T) in the model's
        dtype."""
        shape = (*query.shape[:-1], width + own.shape[2])
        # Suffixes differ in length: the columns after a shorter one get weight 0.
        scores = query.new_full(shape, -torch.inf) if len(prompt) > 1 else query.new_empty(shape)
        for part in prompt:
            columns = slice(part.start, part.start + part.keys.shape[1])
            scores[part.first : part.last, ..., columns] = across(
                query[part.first : part.last], part.keys.transpose(1, 2)
            )
        scores[..., width:] = query @ own.transpose(-1, -2)
        if self._even is None and self._hidden is not None:
            scores[..., width:].masked_fill_(self._hidden[:, None, None], -torch.inf)
        return scores.mul_(scaling).softmax(dim=-1, dtype=torch.float32).to(query.dtype)


@dataclass(frozen=True)
class _Part:
    """A segment of the prompt, (G, S, D), that the fed tokens ``first`` to ``last`` attend to, from column ``start``
    on."""

    keys: torch.Tensor
    values: torch.Tensor
    first: int
    last: int
    start: int = 0


def across(rows: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Multiply (b, G, r, A) by (G, A, B) with all b in one product, so that ``matrix`` is read once.

    Returns:
        (b, G, r, B).
    """
    b, groups, r, _ = rows.shape
    folded = rows.transpose(0, 1).reshape(groups, b * r, -1)
    return torch.bmm(folded, matrix).view(groups, b, r, -1).transpose(0, 1)


def shared_prefix_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    acs_attending: AttentionHandler | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention function registered with transformers: calls ``acs_attending``, or SDPA if none is passed."""
    if acs_attending is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)[0], None
    return acs_attending.attend(module, query, key, value, attention_mask, scaling), None


@contextmanager
def use_shared_prefix_attention(lvlm: LVLM) -> Iterator[None]:
    """Set the attention of the language model to ours inside the block, and restore it afterwards.

    All layers read it from the one configuration of the language model. (``set_attn_implementation`` of transformers
    does the same after a walk through all modules, which takes longer than a decode step of a small model.)
    """
    config = lvlm.text_model.config
    before = config._attn_implementation
    config._attn_implementation = IMPLEMENTATION
    try:
        yield
    finally:
        config._attn_implementation = before


def no_mask(device: torch.device) -> torch.Tensor:
    """Return the attention mask of a decode step, (1, 1, 1, 1) zeros.

    The caches know what a token attends to, but the models build a mask unless they are given one of four axes, which
    all of them take as it is. :func:`shared_prefix_attention` ignores it.
    """
    return torch.zeros(1, 1, 1, 1, device=device)


# In both registries: without the second, transformers drops the mask.
AttentionInterface.register(IMPLEMENTATION, shared_prefix_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
