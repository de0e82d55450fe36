"""Decode steps on static tensors, recorded once as a CUDA graph and replayed for every token.

Launching the roughly thousand small kernels of a step takes the CPU several times as long as the GPU needs to run them.
A CUDA graph launches them all at once, but only with the addresses and shapes it was recorded with. Prompt, own tokens
and queries are therefore kept in buffers of fixed capacity, a bias masks the slots that are not written yet, and the
index of the next slot of each row is a tensor, too. A step feeds every row the same number of tokens, one of
:data:`WIDTHS`; each width has a graph of its own on the same buffers.

The code also runs without a graph on a CPU, for the tests. On a CPU :mod:`acs_core.generation.generate` uses the eager
decoder instead.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from acs_core.device_array import upload
from acs_core.generation.device_draw import DeviceDraw
from acs_core.generation.prefill import PrefillState, cache_name
from acs_core.generation.shared_cache import Opening, SharedPrefixCache, across, no_mask
from acs_core.generation.token_sampler import TableSampler
from acs_core.lvlm.base import LVLM

log = logging.getLogger(__name__)

PREFIX_STEP, OWN_STEP = 256, 64  # capacities are multiples of these, so that one graph serves many images
WIDTHS = (1, 4, 16)  # tokens per row and step: the newest alone, with a separator drafted, with the end of a response
KEPT_DRAWS = 2  # per decoder: steps that draw, with other temperatures or cuts
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
        bias: (S',), 0 for the tokens of the prompt and -inf for other slots.
        starts: (N,), index of the next own token of each row.
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
        self.bias = like.new_zeros(prefix)
        self.starts = torch.zeros(n, dtype=torch.long, device=like.device)
        self._slots = torch.zeros(n, 1, dtype=torch.long, device=like.device)  # (N, W) of the step
        self._hidden = torch.zeros(n, 1, own, dtype=torch.bool, device=like.device)  # (N, W, T')

    def begin(self, state: PrefillState) -> None:
        """Reset the buffers to the keys and values of the only prompt of ``state``."""
        (suffix,) = state.suffixes
        parts = [state.prefix, suffix] if suffix else [state.prefix]
        length = sum(part.length for part in parts)
        for name, buffers in (("keys", self.keys), ("values", self.values)):
            for layer, buffer in enumerate(buffers):
                start = 0
                for part in parts:
                    buffer[:, start : start + part.length].copy_(getattr(part, name)[layer])
                    start += part.length
                buffer[:, length:].zero_()
        # A failed call may have left NaN, which a weight of 0 does not mask.
        for store in (*self.own_keys, *self.own_values):
            store.zero_()
        self.bias.fill_(-torch.inf)
        self.bias[:length] = 0.0
        self.starts.zero_()

    def begin_with(self, opening: Opening) -> None:
        """Write the tokens of ``opening`` as the first own tokens of all rows."""
        q = len(opening.tokens)
        for layer in range(len(self.own_keys)):
            self.own_keys[layer][:, :, :q] = opening.segment.keys[layer]
            self.own_values[layer][:, :, :q] = opening.segment.values[layer]
            self.queries[layer][:, :, :q] = opening.queries[layer].transpose(0, 1)  # (q, K, D) to (K, q, D)

    def begin_step(self, width: int) -> None:
        """Prepare a forward of ``width`` tokens per row, from its slot ``starts`` on."""
        own = self.capacity[1]
        steps = torch.arange(width, device=self.starts.device)
        # The last slot never holds a token that is kept: what lies beyond is written there.
        self._slots = (self.starts[:, None] + steps).clamp_max(own - 1)
        self._hidden = torch.arange(own, device=self.starts.device) > self._slots[..., None]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return 0: part of the cache interface of transformers, unused since positions are passed explicitly."""
        return 0

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store ``key`` and ``value`` (N, G, W, D) of the fed tokens; return the buffers (N, G, T', D)."""
        slots = self._slots[:, None, :, None].expand_as(key)
        for store, new in ((self.own_keys[layer_idx], key), (self.own_values[layer_idx], value)):
            store.scatter_(2, slots, new)
        return self.own_keys[layer_idx], self.own_values[layer_idx]

    def attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, scaling: float
    ) -> torch.Tensor:
        """Attend with ``query`` (N, K, W, D) to the prompt and to ``key``, ``value`` (N, G, T', D).

        Returns:
            (N, W, K, D).
        """
        layer = module.layer_idx
        n, heads, width, dim = query.shape
        groups = key.shape[1]
        self.queries[layer].scatter_(2, self._slots[:, None, :, None].expand_as(query), query)
        query = query.reshape(n, groups, heads // groups * width, dim)  # (N, G, K/G * W, D)
        shared = across(query, self.keys[layer].transpose(1, 2)) * scaling + self.bias
        own = (query @ key.transpose(-1, -2) * scaling).unflatten(2, (-1, width))  # (N, G, K/G, W, T')
        own = own.masked_fill(self._hidden[:, None, None], -torch.inf).flatten(2, 3)
        weights = torch.cat([shared, own], dim=-1).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
        prefix = self.capacity[0]
        out = across(weights[..., :prefix], self.values[layer]) + weights[..., prefix:] @ value
        return out.reshape(n, heads, width, dim).transpose(1, 2)

    def copy_out(self, state: PrefillState, lengths: Sequence[int]) -> SharedPrefixCache:
        """Return a copy of the first ``lengths`` own tokens of the rows as a :class:`SharedPrefixCache`."""
        longest = max(lengths)
        keys = [keys[:, :, :longest].clone() for keys in self.own_keys]
        queries = torch.stack([q[:, :, :longest].transpose(1, 2) for q in self.queries])  # (L, N, T, K, D), a copy
        return SharedPrefixCache.of_buffers(state.prefix, state.suffixes[0], keys, queries.flatten(1, 2), lengths)


class StaticDecoder:
    """A decode step for N responses to a prompt of at most S' tokens; CUDA graphs on a GPU.

    Args:
        lvlm: the model.
        state: prefill of one prompt.
        n: number of responses N.
        capacity: (S', T'), the maximum number of prompt tokens and of own tokens.
        widths: numbers of tokens per row that a step may have, ascending.
    """

    def __init__(
        self, lvlm: LVLM, state: PrefillState, n: int, capacity: tuple[int, int], widths: Sequence[int] = WIDTHS
    ) -> None:
        # No reference to the LVLM, which caches this decoder: the cycle would delay the release of both.
        self._text_model, self._device = lvlm.text_model, lvlm.device
        self.rows = StaticRows(state, lvlm.num_heads, n, capacity)
        self.rows.begin(state)
        self._axes = state.prompts[0].position_ids.shape[:-2]  # () or (3,)
        # Tokens, and per row the index of its next own token: one transfer for both.
        self._inputs = {w: torch.zeros(n, w + 1, dtype=torch.long, device=lvlm.device) for w in widths}
        self._first = torch.zeros(1, dtype=torch.long, device=lvlm.device)  # rope position of the first own token
        self._embed, self._head = lvlm.text_model.get_input_embeddings(), lvlm.hf_model.get_output_embeddings()
        self._mask = no_mask(lvlm.device)  # made before the recording, which reads it
        self._graphs: dict[int, Any] = {}
        self._logits: dict[int, torch.Tensor] = {}
        self._draws: dict[tuple[object, ...], DeviceDraw] = {}
        self._can_draw = True  # False after a recording has failed
        if lvlm.device.type == "cuda":
            for width in widths:
                self._graphs[width], self._logits[width] = self._recorded(partial(self._step, width))

    def begin(self, state: PrefillState) -> None:
        """Reset the decoder to the only prompt of ``state``."""
        self.rows.begin(state)
        self._first.fill_(state.prompts[0].next_position)

    def advance(self, tokens: Mapping[int, Sequence[int]], lengths: Sequence[int]) -> torch.Tensor:
        """Decode one step.

        Args:
            tokens: the tokens to feed to each row, at most as many as the largest width; rows without any get filler.
            lengths: number of own tokens of each of the N rows.

        Returns:
            (N, W, V) logits for a width W of at least the largest number of tokens of a row; overwritten by the next
            call.
        """
        most = max(map(len, tokens.values()))
        width = next(w for w in self._inputs if w >= most)
        filled = [[*tokens.get(row, ())] for row in range(len(lengths))]
        table = [[*ids, *[0] * (width - len(ids)), length] for ids, length in zip(filled, lengths, strict=True)]
        self._inputs[width].copy_(upload(table, self._device))
        if width not in self._graphs:
            return self._step(width)
        with torch.cuda.device(self._device):
            self._graphs[width].replay()
        return self._logits[width]

    def _step(self, width: int) -> torch.Tensor:
        rows, inputs = self.rows, self._inputs[width]
        tokens = inputs[:, :width]
        rows.starts.copy_(inputs[:, width])
        rows.begin_step(width)
        positions = self._first + rows.starts[:, None] + torch.arange(width, device=inputs.device)  # (N, W)
        hidden = self._text_model(
            inputs_embeds=self._embed(tokens),
            attention_mask=self._mask,
            position_ids=positions.expand(*self._axes, *positions.shape),
            use_cache=True,
            acs_attending=rows,
            **{cache_name(self._text_model.__class__): rows},
        ).last_hidden_state
        return self._head(hidden)

    def drawing(self, sampler: TableSampler, statistics: bool) -> DeviceDraw | None:
        """Return the buffers of steps that draw with ``sampler``; on a GPU, such a step is recorded at the first call.

        Returns:
            The buffers; None if the step cannot be recorded.

        Raises:
            torch.OutOfMemoryError: the GPU has no memory for that.
        """
        if not self._can_draw:
            return None
        key = (*sampler.key(), statistics)
        drawn = self._draws.pop(key, None)
        if drawn is None:
            while len(self._draws) >= KEPT_DRAWS:
                self._draws.pop(next(iter(self._draws)))
            drawn = DeviceDraw(sampler, self.rows.n, self.rows.capacity[1], statistics, self._device)
            if self._device.type == "cuda":
                try:
                    drawn.recorded, _ = self._recorded(partial(self._draw_step, drawn))
                except RuntimeError as error:
                    first = _first(error)
                    if isinstance(first, torch.OutOfMemoryError):
                        raise first from None
                    self._can_draw = False
                    log.warning("tokens cannot be drawn in a CUDA graph, which will be slower: %s", first)
                    return None
        self._draws[key] = drawn  # the most recently used last
        return drawn

    def draw(self, drawn: DeviceDraw) -> None:
        """Feed the newest tokens of ``drawn`` and draw the next ones."""
        if drawn.recorded is None:
            self._draw_step(drawn)
            return
        with torch.cuda.device(self._device):
            drawn.recorded.replay()

    def _draw_step(self, drawn: DeviceDraw) -> None:
        self._inputs[1][:, :1].copy_(drawn.newest)
        self._inputs[1][:, 1].copy_(drawn.fed)
        drawn.draw(self._step(1)[:, 0])

    def _recorded(self, step: Callable[[], Any]) -> tuple[Any, Any]:
        """Record ``step`` as a CUDA graph, after two warm-up steps in which libraries initialise themselves; return the
        graph, and what ``step`` returned while it was recorded."""
        gc.collect()  # destroying an old graph during a recording would break it
        # Streams belong to the current device, which need not be the model's. The outer stream context restores the
        # current stream even if the recording fails, which its own context does not.
        with torch.cuda.device(self._device), torch.cuda.stream(torch.cuda.current_stream(self._device)):
            side = torch.cuda.Stream(self._device)
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(2):
                    step()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # "thread_local" lets other threads use the GPU meanwhile.
            with torch.cuda.graph(graph, stream=torch.cuda.Stream(self._device), capture_error_mode="thread_local"):
                made = step()
            return graph, made


def static_decoder(lvlm: LVLM, state: PrefillState, n: int, limit: int) -> StaticDecoder | None:
    """Return a decoder of ``n`` responses of up to ``limit`` tokens to the only prompt of ``state``, reset to it.

    Decoders are cached per model by their sizes.

    Returns:
        The decoder; None if a step cannot be recorded, or for several prompts.

    Raises:
        torch.OutOfMemoryError: the GPU has no memory for the buffers.
    """
    if len(state.prompts) != 1 or limit < 2 or not lvlm.graphs.usable:
        return None
    capacity = _up(state.prompts[0].length, PREFIX_STEP), _up(limit, OWN_STEP)
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
