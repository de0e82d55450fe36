"""Decode steps on static tensors, recorded once as a CUDA graph and replayed for every token.

Launching the roughly thousand small kernels of a step takes the CPU several times as long as the GPU needs to run them.
A CUDA graph launches them all at once, but only with the addresses and shapes it was recorded with. Prompt, own tokens
and queries are therefore kept in buffers of fixed capacity, a bias masks the slots that are not written yet, and the
index of the next slot is a tensor, too.

The code also runs without a graph on a CPU, for the tests. On a CPU :mod:`acs_core.generation.generate` uses the eager
decoder instead.
"""

from __future__ import annotations

import gc
import logging
from typing import Any

import torch

from acs_core.generation.prefill import (
    CacheSegment,
    PrefillState,
    SharedPrefixCache,
    across,
    cache_name,
    no_mask,
)
from acs_core.lvlm.base import LVLM

log = logging.getLogger(__name__)

PREFIX_STEP, OWN_STEP = 256, 64  # capacities are multiples of these, so that one graph serves many images
KEPT_GRAPHS = 4  # per model; the buffers of each take up to 0.8 GB for a 7B model


class StaticRows:
    """Key-value cache of N responses to one prompt in static buffers.

    The counterpart of :class:`acs_core.generation.prefill.SharedPrefixCache` with fixed shapes.

    Attributes:
        capacity: (S', T'), the maximum number of prompt tokens and of own tokens.
        n: number of responses N.
        keys, values: prompt, (G, S', D) per layer; G key groups of D channels.
        own_keys, own_values: own tokens, (N, G, T', D) per layer.
        queries: (N, K, T', D) per layer; K heads.
        bias: (S' + T',), 0 for visible slots and -inf for others.
        slot: (1,), index of the next own token.
    """

    def __init__(self, state: PrefillState, heads: int, n: int, capacity: tuple[int, int]) -> None:
        prefix, own = capacity
        like = state.prefix.keys[0]  # (G, S, D)
        groups, _, dim = like.shape
        layers = range(len(state.prefix.keys))
        self.capacity, self.n = capacity, n
        self.keys = [like.new_zeros(groups, prefix, dim) for _ in layers]
        self.values = [like.new_zeros(groups, prefix, dim) for _ in layers]
        self.own_keys = [like.new_zeros(n, groups, own, dim) for _ in layers]
        self.own_values = [like.new_zeros(n, groups, own, dim) for _ in layers]
        self.queries = [like.new_zeros(n, heads, own, dim) for _ in layers]
        self.bias = like.new_zeros(prefix + own)
        self.slot = torch.zeros(1, dtype=torch.long, device=like.device)

    def begin(self, prefix: CacheSegment) -> None:
        """Reset the buffers to the keys and values of ``prefix``."""
        for mine, given in ((self.keys, prefix.keys), (self.values, prefix.values)):
            for buffer, tensor in zip(mine, given, strict=True):
                buffer[:, : prefix.length].copy_(tensor)
                buffer[:, prefix.length :].zero_()
        # A failed call may have left NaN, which a weight of 0 does not mask.
        for store in (*self.own_keys, *self.own_values):
            store.zero_()
        self.bias.fill_(-torch.inf)
        self.bias[: prefix.length] = 0.0
        self.slot.zero_()

    def open_slot(self) -> None:
        """Unmask the slot that is written next."""
        self.bias.index_fill_(0, self.slot + self.capacity[0], 0.0)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return 0: part of the cache interface of transformers, unused since positions are passed explicitly."""
        return 0

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store ``key`` and ``value`` (N, G, 1, D) of the new token; return the buffers (N, G, T', D)."""
        for store, new in ((self.own_keys[layer_idx], key), (self.own_values[layer_idx], value)):
            store.index_copy_(2, self.slot, new)
        return self.own_keys[layer_idx], self.own_values[layer_idx]

    def attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, scaling: float
    ) -> torch.Tensor:
        """Attend with ``query`` (N, K, 1, D) to the prompt and to ``key``, ``value`` (N, G, T', D).

        Returns:
            (N, 1, K, D).
        """
        layer = module.layer_idx
        n, heads, _, dim = query.shape
        groups = key.shape[1]
        self.queries[layer].index_copy_(2, self.slot, query)
        query = query.view(n, groups, heads // groups, dim)
        scores = torch.cat([across(query, self.keys[layer].transpose(1, 2)), query @ key.transpose(-1, -2)], dim=-1)
        weights = (scores * scaling + self.bias).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
        prefix = self.capacity[0]
        out = across(weights[..., :prefix], self.values[layer]) + weights[..., prefix:] @ value
        return out.reshape(n, 1, heads, dim)

    def copy_out(self, state: PrefillState, length: int) -> SharedPrefixCache:
        """Return a copy of the first ``length`` tokens of all rows as a :class:`SharedPrefixCache`."""
        prefix_cache = SharedPrefixCache(state.prefix, state.suffixes, [self.n])
        prefix_cache.length = length
        prefix_cache.keys = [keys[:, :, :length].clone() for keys in self.own_keys]
        queries = torch.stack([q[:, :, :length] for q in self.queries])  # (L, N, K, T, D), a copy
        prefix_cache.queries = [(prefix_cache.rows, queries[:, :, :, step]) for step in range(length)]
        return prefix_cache


class StaticDecoder:
    """A decode step for N responses to a prompt of at most S' tokens; a CUDA graph on a GPU.

    Args:
        lvlm: the model.
        state: prefill of one prompt.
        n: number of responses N.
        capacity: (S', T'), the maximum number of prompt tokens and of own tokens.
    """

    def __init__(self, lvlm: LVLM, state: PrefillState, n: int, capacity: tuple[int, int]) -> None:
        # No reference to the LVLM, which caches this decoder: the cycle would delay the release of both.
        self._text_model, self._device = lvlm.text_model, lvlm.device
        self.rows = StaticRows(state, lvlm.num_heads, n, capacity)
        self.rows.begin(state.prefix)
        axes = state.prompts[0].position_ids.shape[:-2]  # () or (3,)
        self._tokens = torch.zeros(n, dtype=torch.long, device=lvlm.device)
        self._positions = torch.zeros(*axes, n, 1, dtype=torch.long, device=lvlm.device)
        self._embed, self._head = lvlm.text_model.get_input_embeddings(), lvlm.hf_model.get_output_embeddings()
        self._mask = no_mask(lvlm.device)  # made before the recording, which reads it
        self._graph: Any = None
        self._logits: torch.Tensor | None = None
        if lvlm.device.type == "cuda":
            self._record()

    def begin(self, state: PrefillState) -> None:
        """Reset the decoder to the only prompt of ``state``."""
        self.rows.begin(state.prefix)
        self._positions.fill_(state.prompts[0].next_position)

    def advance(self, tokens: torch.Tensor) -> torch.Tensor:
        """Decode one step.

        Args:
            tokens: (N,) newest token of each row.

        Returns:
            (N, V) logits; overwritten by the next call.
        """
        self._tokens.copy_(tokens)
        if self._graph is None:
            return self._step()
        with torch.cuda.device(self._device):
            self._graph.replay()
        if self._logits is None:
            raise RuntimeError("a recorded step has no logits")
        return self._logits

    def _step(self) -> torch.Tensor:
        rows = self.rows
        rows.open_slot()
        hidden = self._text_model(
            inputs_embeds=self._embed(self._tokens[:, None]),
            attention_mask=self._mask,
            position_ids=self._positions,
            use_cache=True,
            acs_attending=rows,
            **{cache_name(self._text_model.__class__): rows},
        ).last_hidden_state
        rows.slot.add_(1)
        self._positions.add_(1)
        return self._head(hidden[:, -1])

    def _record(self) -> None:
        """Record a step as a CUDA graph, after two warm-up steps in which libraries initialise themselves."""
        gc.collect()  # destroying an old graph during a recording would break it
        # Streams belong to the current device, which need not be the model's. The outer stream context restores the
        # current stream even if the recording fails, which its own context does not.
        with torch.cuda.device(self._device), torch.cuda.stream(torch.cuda.current_stream(self._device)):
            side = torch.cuda.Stream(self._device)
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(2):
                    self._step()
                    self.rows.slot.zero_()
            torch.cuda.current_stream().wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            # "thread_local" lets other threads use the GPU meanwhile.
            with torch.cuda.graph(
                self._graph, stream=torch.cuda.Stream(self._device), capture_error_mode="thread_local"
            ):
                self._logits = self._step()


def static_decoder(lvlm: LVLM, state: PrefillState, n: int, limit: int) -> StaticDecoder | None:
    """Return a decoder of ``n`` responses of up to ``limit`` tokens to the only prompt of ``state``, reset to it.

    Decoders are cached per model by their sizes.

    Returns:
        The decoder; None if a step cannot be recorded, or for several prompts.

    Raises:
        torch.OutOfMemoryError: the GPU has no memory for the buffers.
    """
    if len(state.prompts) != 1 or state.suffixes[0] is not None or limit < 2 or not lvlm.graphs.usable:
        return None
    capacity = _up(state.prefix.length, PREFIX_STEP), _up(limit, OWN_STEP)
    key = (n, *capacity)
    decoder = lvlm.graphs.kept.pop(key, None)
    if decoder is None:
        while len(lvlm.graphs.kept) >= KEPT_GRAPHS:
            lvlm.graphs.kept.pop(next(iter(lvlm.graphs.kept)))
        try:
            decoder = StaticDecoder(lvlm, state, n, capacity)
        except RuntimeError as error:  # an operation that cannot be recorded, such as those of quantised layers
            lvlm.graphs.kept.clear()
            first = _first(error)
            if isinstance(first, torch.OutOfMemoryError):
                raise first from None
            lvlm.graphs.usable = False
            log.warning("decode steps cannot be recorded as a CUDA graph and will be slower: %s", first)
            return None
    lvlm.graphs.kept[key] = decoder  # the most recently used last
    decoder.begin(state)
    return decoder


def _first(error: BaseException) -> BaseException:
    """Return the original error: a recording that fails raises further errors while it is closed."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
