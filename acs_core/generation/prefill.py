"""Prefill of prompts, and the key-value cache that their responses share.

:func:`prefill` runs one forward over the tokens that the prompts have in common, including the image, and a short one
over the rest of each prompt. Its result holds keys, values, the first logits, and the queries of the last token; any
number of responses can be generated from it (:mod:`acs_core.generation.generate`).

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

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from acs_core.errors import Cancelled
from acs_core.lvlm.base import LVLM, Prompt
from acs_core.types import ShouldStop

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


class QueryRecorder:
    """Recorder of the query of a prompt's last token during a forward.

    Attributes:
        layers: (B, K, D) for each layer.
    """

    def __init__(self) -> None:
        self.layers: list[torch.Tensor] = []

    def attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, scaling: float
    ) -> torch.Tensor:
        """Record the last query and return the SDPA of ``query`` (B, K, Q, D) over ``key`` and ``value`` (B, G, S, D).

        Returns:
            (B, Q, K, D).
        """
        self.layers.append(query[:, :, -1].clone())
        return sdpa_attention_forward(module, query, key, value, mask, scaling=scaling)[0]


class AttentionHandler(Protocol):
    """Object that computes the attention of a forward for :func:`shared_prefix_attention`."""

    def attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, scaling: float
    ) -> torch.Tensor:
        """Return the attention output (B, Q, K, D) for ``query`` (B, K, Q, D)."""


class SharedPrefixCache:
    """Key-value cache of N responses to prompts that share a prefix; each decode step adds one token to each running
    row.

    Finished rows can be removed from the batch (:meth:`narrow`); their keys, values and queries are kept.

    Args:
        prefix: tokens shared by all rows.
        suffixes: tokens after the prefix, one segment per prompt; None if the prefix is the whole prompt.
        counts: number of rows of each prompt; rows are ordered by prompt.

    Attributes:
        rows: indices of the running rows (b,), ascending, on the CPU.
        keys, values: own tokens, (N, G, capacity, D) per layer.
        length: number of own tokens of every running row.
        queries: for each step, the row indices (b,) and the queries (L, b, K, D).
    """

    def __init__(self, prefix: CacheSegment, suffixes: Sequence[CacheSegment | None], counts: Sequence[int]) -> None:
        self.prefix, self.suffixes, self.counts = prefix, tuple(suffixes), tuple(counts)
        self.rows = torch.arange(sum(counts))
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.length = 0
        self.queries: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._step: list[torch.Tensor] = []
        self._index: torch.Tensor | None = None  # the running rows on the device; None while all run

    def narrow(self, rows: Sequence[int]) -> None:
        """Keep only ``rows`` (indices into all N rows, ascending) in the batch."""
        self.rows = torch.tensor(list(rows))
        whole = len(self.rows) == sum(self.counts)
        self._index = None if whole else self.rows.to(self.prefix.keys[0].device)

    def end_step(self) -> None:
        """Store the queries of the step and count its token; call after each forward."""
        self.queries.append((self.rows, torch.stack(self._step)))
        self._step = []
        self.length += 1

    def query(self, row: int, token: int) -> torch.Tensor:
        """Return the queries (L, K, D) of ``row`` at its own token ``token``, counted from 0."""
        rows, queries = self.queries[token]
        return queries[:, int(torch.searchsorted(rows, row))]

    def own_keys(self, layer: int) -> torch.Tensor:
        """Return the keys (N, G, T, D) of the rows' own tokens; entries after the end of a row are arbitrary."""
        return self.keys[layer][:, :, : self.length]

    # The cache interface of transformers.

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of tokens before the one being fed."""
        return self.prefix.length + self.length

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store ``key`` and ``value`` (b, G, 1, D) of the new token; return those of all own tokens (b, G, T, D)."""
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
        """Attend with ``query`` (b, K, 1, D) to the prompt and to the rows' own ``key``, ``value`` (b, G, T, D).

        No mask is needed, since a row attends to all its tokens.

        Returns:
            (b, 1, K, D).
        """
        layer = module.layer_idx
        rows, heads, _, dim = query.shape
        groups = key.shape[1]
        self._step.append(query[:, :, 0])
        query = query.view(rows, groups, heads // groups, dim)
        shared = [_Part(self.prefix.keys[layer], self.prefix.values[layer], 0, rows)] if self.prefix.length else []
        prompt = [*shared, *self._suffix_parts(layer)]
        width = self.prefix.length + max((t.length for t in self.suffixes if t), default=0)
        weights = self._weights(query, key, prompt, width, scaling)
        out = weights[..., width:] @ value  # (b, G, K/G, T) x (b, G, T, D)
        for part in prompt:
            here = weights[part.first : part.last, ..., part.start : part.start + part.keys.shape[1]]
            out[part.first : part.last] += across(here, part.values)
        return out.view(rows, 1, heads, dim)

    def _suffix_parts(self, layer: int) -> list[_Part]:
        if not any(self.suffixes):
            return []
        ends = torch.tensor(self.counts).cumsum(0)
        phrase = torch.bucketize(self.rows, ends, right=True)  # (b,) ascending
        edges = torch.searchsorted(phrase, torch.arange(len(self.counts) + 1)).tolist()
        return [
            _Part(suffix.keys[layer], suffix.values[layer], edges[k], edges[k + 1], self.prefix.length)
            for k, suffix in enumerate(self.suffixes)
            if suffix is not None and edges[k] < edges[k + 1]
        ]

    def _weights(
        self, query: torch.Tensor, own: torch.Tensor, prompt: Sequence[_Part], width: int, scaling: float
    ) -> torch.Tensor:
        """Return the softmax, computed in float32, over prompt and own tokens: (b, G, K/G, width + T) in the model's
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
        return scores.mul_(scaling).softmax(dim=-1, dtype=torch.float32).to(query.dtype)


@dataclass(frozen=True)
class _Part:
    """A segment of the prompt, (G, S, D), that the running rows ``first`` to ``last`` attend to, from column ``start``
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
    """Set the attention of the language model to ours inside the block, and restore it afterwards."""
    before = lvlm.text_model.config._attn_implementation
    lvlm.hf_model.set_attn_implementation({"text_config": IMPLEMENTATION})
    try:
        yield
    finally:
        lvlm.hf_model.set_attn_implementation({"text_config": before})


def no_mask(device: torch.device) -> torch.Tensor:
    """Return the attention mask of a decode step, (1, 1, 1, 1) zeros.

    No mask is needed, since every row attends to all its tokens, but the models build one unless they are given a mask
    of four axes, which all of them take as it is. :func:`shared_prefix_attention` ignores it.
    """
    return torch.zeros(1, 1, 1, 1, device=device)


# In both registries: without the second, transformers drops the mask.
AttentionInterface.register(IMPLEMENTATION, shared_prefix_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)


@lru_cache
def cache_name(model: Any) -> str:
    """Return the name of the key-value cache among the arguments and outputs of a transformers model class: "cache"
    from release 5.24 on, "past_key_values" before."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


@dataclass(frozen=True)
class PrefillState:
    """Prefill of prompts that share an image, or of any prompts side by side with an empty prefix.

    Attributes:
        prompts: the prompts.
        prefix: tokens that all prompts begin with.
        suffixes: further tokens of each prompt; None if there are none.
        logits: (V,) for each prompt, the logits of the first response token.
        queries: (L, K, D) for each prompt, the queries of its last token.
    """

    prompts: tuple[Prompt, ...]
    prefix: CacheSegment
    suffixes: tuple[CacheSegment | None, ...]
    logits: tuple[torch.Tensor, ...]
    queries: tuple[torch.Tensor, ...]

    def only(self, prompts: Sequence[int]) -> PrefillState:
        """Return the state of the prompts with the indices ``prompts``."""
        if list(prompts) == list(range(len(self.prompts))):
            return self
        return PrefillState(
            prompts=tuple(self.prompts[k] for k in prompts),
            prefix=self.prefix,
            suffixes=tuple(self.suffixes[k] for k in prompts),
            logits=tuple(self.logits[k] for k in prompts),
            queries=tuple(self.queries[k] for k in prompts),
        )


def prefill(lvlm: LVLM, prompts: Sequence[Prompt], should_stop: ShouldStop | None = None) -> PrefillState:
    """Run the model over prompts about the same image (:meth:`LVLM.prepare_many`).

    Args:
        lvlm: the model.
        prompts: one or more prompts that share their pixel inputs.
        should_stop: checked before each forward; True cancels the call.

    Raises:
        ValueError: no prompts, or prompts about different images.
        Cancelled: ``should_stop`` returned True.
    """
    if not prompts:
        raise ValueError("no prompts to read")
    if any(p.vision is not prompts[0].vision for p in prompts):
        raise ValueError("the prompts are about different pictures: prepare them together")
    shared = prompts[0].length if len(prompts) == 1 else _shared_length(prompts)
    with lvlm.lock, torch.inference_mode(), use_shared_prefix_attention(lvlm):
        cache, logits, queries = _forward(lvlm, prompts[0], 0, shared, None, should_stop)
        prefix = _segment(cache, 0)
        if len(prompts) == 1:
            return PrefillState(tuple(prompts), prefix, (None,), (logits,), (queries,))
        ends = []
        for prompt in prompts:
            _, logits, queries = _forward(lvlm, prompt, shared, prompt.length, cache, should_stop)
            ends.append((_segment(cache, shared), logits, queries))
            cache.crop(shared - prompt.length)
    suffixes, first, last = zip(*ends, strict=True)
    return PrefillState(tuple(prompts), prefix, suffixes, first, last)


def stack_states(prefill_states: Sequence[PrefillState]) -> PrefillState:
    """Join states of one prompt each, about any images, into one state with an empty prefix.

    Their responses can then be decoded in one batch: for a small model a step over many rows costs hardly more than one
    over few.

    Raises:
        ValueError: no states, or a state of several prompts.
    """
    if not prefill_states or any(len(r.prompts) != 1 or r.suffixes[0] is not None for r in prefill_states):
        raise ValueError("only prefill states of one prompt each can be stacked")
    first = prefill_states[0].prefix
    nothing = CacheSegment(tuple(k[:, :0] for k in first.keys), tuple(v[:, :0] for v in first.values))
    prompts, suffixes = tuple(r.prompts[0] for r in prefill_states), tuple(r.prefix for r in prefill_states)
    logits, queries = tuple(r.logits[0] for r in prefill_states), tuple(r.queries[0] for r in prefill_states)
    return PrefillState(prompts, nothing, suffixes, logits, queries)


def _shared_length(prompts: Sequence[Prompt]) -> int:
    """Return the number of tokens that all prompts begin with, leaving at least one token to each."""
    rows = [prompt.input_ids[0].tolist() for prompt in prompts]
    shortest = min(map(len, rows)) - 1
    return next((k for k in range(shortest) if len({row[k] for row in rows}) > 1), shortest)


def _forward(
    lvlm: LVLM, prompt: Prompt, start: int, stop: int, cache: Any, should_stop: ShouldStop | None
) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """Run the model over tokens ``start`` to ``stop`` of a prompt, after those in ``cache``.

    Returns:
        The cache, the logits (V,) and the queries (L, K, D) of the last token.
    """
    if should_stop and should_stop():
        raise Cancelled("stopped before the model read the prompt")
    noted = QueryRecorder()
    name = cache_name(lvlm.hf_model.__class__)
    out = lvlm.hf_model(
        input_ids=prompt.input_ids[:, start:stop],
        attention_mask=torch.ones_like(prompt.input_ids[:, :stop]),
        position_ids=prompt.position_ids[..., start:stop],
        use_cache=True,
        logits_to_keep=1,
        acs_attending=noted,
        **{name: cache},
        **(prompt.vision if start == 0 else {}),
    )
    return getattr(out, name), out.logits[0, -1], torch.stack(noted.layers)[:, 0]


def _segment(cache: Any, start: int) -> CacheSegment:
    """Return the tokens of a cache from ``start`` on; copied if the cache will be cropped."""
    keep = (lambda t: t[0, :, start:].clone()) if start else (lambda t: t[0])
    return CacheSegment(
        tuple(keep(layer.keys) for layer in cache.layers), tuple(keep(layer.values) for layer in cache.layers)
    )
