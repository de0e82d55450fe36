"""How N responses attend to one prompt: its keys and values are stored once, and no row gets a copy of them.

A key-value cache of N rows repeats the prompt N times, and every decode step reads all of it again. Here each row's
query goes to the prompt's keys in one product with the other rows' queries, and to the row's own few keys apart; one
softmax runs over both. That is exact, needs memory for one prompt, and reads it once a step for all rows together.

On the way the queries are kept (a few kilobytes a token and layer). :mod:`acs_core.attention` scores those that matter
against the keys afterwards, so looking at attention costs no second forward.

The attention function is registered with transformers under one name. It holds no state: whoever runs a forward with
it hands a :class:`Branches` or a :class:`LastQueries` along as a keyword argument, which reaches every layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from acs_core.lvlm.base import LVLM

IMPLEMENTATION = "acs_branches"
_GROWTH = 64  # tokens by which the rows' own buffers grow


@dataclass(frozen=True)
class Segment:
    """Keys and values of consecutive tokens, for every layer (G, S, D), after rope; G key groups of D channels."""

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]

    @property
    def length(self) -> int:
        """Number of tokens S."""
        return self.keys[0].shape[1]


class LastQueries:
    """Notes the query of the last token of a forward over a prompt: ``layers[l]`` (B, K, D)."""

    def __init__(self) -> None:
        self.layers: list[torch.Tensor] = []

    def attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, scaling: float
    ) -> torch.Tensor:
        """SDPA of ``query`` (B, K, Q, D) over ``key`` and ``value`` (B, G, S, D): (B, Q, K, D)."""
        self.layers.append(query[:, :, -1].clone())
        return sdpa_attention_forward(module, query, key, value, mask, scaling=scaling)[0]


class Attending(Protocol):
    """What the registered function leaves the work to."""

    def attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, scaling: float
    ) -> torch.Tensor:
        """Output (B, Q, K, D) of attention of ``query`` (B, K, Q, D)."""


class Branches:
    """The rows that grow from a trunk; it stands in for the cache of a decode step, one new token for each row.

    ``trunk`` is shared by all rows. ``tails`` are what follows it for one phrase each, None where the trunk is the
    whole prompt, and ``counts`` how many rows in turn belong to each phrase. Rows that ended can be left out
    (:meth:`narrow`); what they wrote stays.
    """

    def __init__(self, trunk: Segment, tails: Sequence[Segment | None], counts: Sequence[int]) -> None:
        self.trunk, self.tails, self.counts = trunk, tuple(tails), tuple(counts)
        self.rows = torch.arange(sum(counts))  # of the batch that is running, ascending; on the CPU
        self.keys: list[torch.Tensor] = []  # per layer (N, G, capacity, D)
        self.values: list[torch.Tensor] = []
        self.length = 0  # tokens that every running row has
        self.queries: list[tuple[torch.Tensor, torch.Tensor]] = []  # per step: rows (b,), queries (L, b, K, D)
        self._step: list[torch.Tensor] = []
        self._index: torch.Tensor | None = None  # the running rows on the device; None while all run

    def narrow(self, rows: Sequence[int]) -> None:
        """Goes on with these rows (indices into all N, ascending) only."""
        self.rows = torch.tensor(list(rows))
        whole = len(self.rows) == sum(self.counts)
        self._index = None if whole else self.rows.to(self.trunk.keys[0].device)

    def end_step(self) -> None:
        """To be called after each forward: files the step's queries and counts its token."""
        self.queries.append((self.rows, torch.stack(self._step)))
        self._step = []
        self.length += 1

    def query(self, row: int, token: int) -> torch.Tensor:
        """The queries (L, K, D) at the own token number ``token``, from 0, of ``row``."""
        rows, queries = self.queries[token]
        return queries[:, int(torch.searchsorted(rows, row))]

    def own_keys(self, layer: int) -> torch.Tensor:
        """Keys (N, G, T, D) of the rows' own tokens; what a row that ended did not write is arbitrary."""
        return self.keys[layer][:, :, : self.length]

    # What transformers asks of a cache.

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens before the one that is being fed."""
        return self.trunk.length + self.length

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Files the new token's ``key`` and ``value`` (b, G, 1, D); gives those of all own tokens (b, G, T, D)."""
        self._make_room(key, layer_idx)
        stop = self.length + 1
        found = []
        for store, new in ((self.keys[layer_idx], key), (self.values[layer_idx], value)):
            if self._index is None:
                store[:, :, self.length] = new[:, :, 0]
                found.append(store[:, :, :stop])
            else:
                store[self._index, :, self.length] = new[:, :, 0]
                found.append(store[self._index, :, :stop])
        return found[0], found[1]

    def _make_room(self, like: torch.Tensor, layer: int) -> None:
        _, groups, _, dim = like.shape
        if layer == len(self.keys):
            for stores in (self.keys, self.values):
                stores.append(like.new_empty(sum(self.counts), groups, _GROWTH, dim))
        elif self.length == self.keys[layer].shape[2]:
            room = like.new_empty(sum(self.counts), groups, max(_GROWTH, self.length // 2), dim)
            for stores in (self.keys, self.values):
                stores[layer] = torch.cat([stores[layer], room], dim=2)

    # Attention.

    def attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, scaling: float
    ) -> torch.Tensor:
        """``query`` (b, K, 1, D) over the prompt and the rows' own ``key``, ``value`` (b, G, T, D): (b, 1, K, D).

        A row sees all that is there, so there is no mask.
        """
        layer = module.layer_idx
        rows, heads, _, dim = query.shape
        groups = key.shape[1]
        self._step.append(query[:, :, 0])
        query = query.view(rows, groups, heads // groups, dim)
        shared = [_Part(self.trunk.keys[layer], self.trunk.values[layer], 0, rows)] if self.trunk.length else []
        prompt = [*shared, *self._tails(layer)]
        width = self.trunk.length + max((t.length for t in self.tails if t), default=0)
        weights = self._weights(query, key, prompt, width, scaling)
        out = weights[..., width:] @ value  # (b, G, K/G, T) x (b, G, T, D)
        for part in prompt:
            here = weights[part.first : part.last, ..., part.start : part.start + part.keys.shape[1]]
            out[part.first : part.last] += across(here, part.values)
        return out.view(rows, 1, heads, dim)

    def _tails(self, layer: int) -> list[_Part]:
        if not any(self.tails):
            return []
        ends = torch.tensor(self.counts).cumsum(0)
        phrase = torch.bucketize(self.rows, ends, right=True)  # (b,) ascending
        edges = torch.searchsorted(phrase, torch.arange(len(self.counts) + 1)).tolist()
        return [
            _Part(tail.keys[layer], tail.values[layer], edges[k], edges[k + 1], self.trunk.length)
            for k, tail in enumerate(self.tails)
            if tail is not None and edges[k] < edges[k + 1]
        ]

    def _weights(
        self, query: torch.Tensor, own: torch.Tensor, prompt: Sequence[_Part], width: int, scaling: float
    ) -> torch.Tensor:
        """Softmax, in float32, over prompt and own tokens: (b, G, K/G, width + T) in the model's dtype."""
        shape = (*query.shape[:-1], width + own.shape[2])
        # Tails differ in length: what a shorter one leaves open has weight zero.
        scores = query.new_full(shape, -torch.inf) if len(prompt) > 1 else query.new_empty(shape)
        for part in prompt:
            columns = slice(part.start, part.start + part.keys.shape[1])
            scores[part.first : part.last, ..., columns] = across(
                query[part.first : part.last], part.keys.transpose(1, 2)
            )
        scores[..., width:] = query @ own.transpose(-1, -2)
        return scores.mul_(scaling).softmax(dim=-1, dtype=torch.float32).to(query.dtype)


@dataclass(frozen=True)
class _Part:
    """A stretch of the prompt, (G, S, D), that the running rows ``first`` to ``last`` see from column ``start`` on."""

    keys: torch.Tensor
    values: torch.Tensor
    first: int
    last: int
    start: int = 0


def across(rows: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """(b, G, r, A) x (G, A, B) -> (b, G, r, B), the rows of all b side by side so that ``matrix`` is read once."""
    b, groups, r, _ = rows.shape
    folded = rows.transpose(0, 1).reshape(groups, b * r, -1)
    return torch.bmm(folded, matrix).view(groups, b, r, -1).transpose(0, 1)


def branch_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    acs_attending: Attending | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """The registered function: what ``acs_attending`` makes of it, or plain SDPA where none was handed along."""
    if acs_attending is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)[0], None
    return acs_attending.attend(module, query, key, value, attention_mask, scaling), None


@contextmanager
def branch_attention_of(lvlm: LVLM) -> Iterator[None]:
    """The language model attends by our function inside, and as before afterwards, whatever happens."""
    before = lvlm.text_model.config._attn_implementation
    lvlm.hf_model.set_attn_implementation({"text_config": IMPLEMENTATION})
    try:
        yield
    finally:
        lvlm.hf_model.set_attn_implementation({"text_config": before})


# Under one name in both registries; without the second, transformers drops the mask.
AttentionInterface.register(IMPLEMENTATION, branch_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
