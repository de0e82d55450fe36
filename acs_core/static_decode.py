"""Decode steps on tensors that never move, so that a GPU can replay one recorded graph for every token.

Launching the thousand small kernels of a step takes a CPU several times as long as a GPU needs to run them. A CUDA
graph launches them at once, but it repeats the very addresses and shapes it was recorded with. So here prompt, own
tokens and queries live in buffers of fixed capacity, a bias hides what is not written yet, and the place to write is a
tensor too.

The same code runs without a graph on a CPU, which is how it is tested; there :mod:`acs_core.sampling` prefers rows that
grow and leave.
"""

from __future__ import annotations

import gc
import logging
from typing import Any

import torch

from acs_core.branches import Branches, Segment, across
from acs_core.lvlm.base import LVLM
from acs_core.reading import Reading

log = logging.getLogger(__name__)

TRUNK_STEP, OWN_STEP = 256, 64  # capacities are multiples of these, so that one graph serves many pictures
KEPT_GRAPHS = 4  # per model: waves of 10, or of 4 and 3; the buffers of each take up to 0.8 GB for a 7B model


class StaticRows:
    """N rows behind one prompt, in buffers: what :class:`acs_core.branches.Branches` is, without moving parts.

    ``bias`` (S' + T',) is 0 where a row may look and -inf elsewhere, S' and T' the capacities for prompt and own
    tokens; ``slot`` (1,) is where the next own token goes.
    """

    def __init__(self, reading: Reading, heads: int, n: int, capacity: tuple[int, int]) -> None:
        trunk, own = capacity
        like = reading.trunk.keys[0]  # (G, S, D)
        groups, _, dim = like.shape
        layers = range(len(reading.trunk.keys))
        self.capacity, self.n = capacity, n
        self.keys = [like.new_zeros(groups, trunk, dim) for _ in layers]
        self.values = [like.new_zeros(groups, trunk, dim) for _ in layers]
        self.own_keys = [like.new_zeros(n, groups, own, dim) for _ in layers]
        self.own_values = [like.new_zeros(n, groups, own, dim) for _ in layers]
        self.queries = [like.new_zeros(n, heads, own, dim) for _ in layers]
        self.bias = like.new_zeros(trunk + own)
        self.slot = torch.zeros(1, dtype=torch.long, device=like.device)

    def begin(self, trunk: Segment) -> None:
        """Starts anew behind ``trunk``."""
        for mine, given in ((self.keys, trunk.keys), (self.values, trunk.values)):
            for buffer, tensor in zip(mine, given, strict=True):
                buffer[:, : trunk.length].copy_(tensor)
                buffer[:, trunk.length :].zero_()
        # What a call that went wrong has left may not be a number, which a weight of 0 does not silence.
        for store in (*self.own_keys, *self.own_values):
            store.zero_()
        self.bias.fill_(-torch.inf)
        self.bias[: trunk.length] = 0.0
        self.slot.zero_()

    def open_slot(self) -> None:
        """Lets the rows see the slot that is about to be written."""
        self.bias.index_fill_(0, self.slot + self.capacity[0], 0.0)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """What transformers asks of a cache; positions are given, so it is not used."""
        return 0

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Files the new token's ``key`` and ``value`` (N, G, 1, D); gives the buffers (N, G, T', D)."""
        for store, new in ((self.own_keys[layer_idx], key), (self.own_values[layer_idx], value)):
            store.index_copy_(2, self.slot, new)
        return self.own_keys[layer_idx], self.own_values[layer_idx]

    def attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, scaling: float
    ) -> torch.Tensor:
        """``query`` (N, K, 1, D) over the prompt and ``key``, ``value`` (N, G, T', D): (N, 1, K, D)."""
        layer = module.layer_idx
        n, heads, _, dim = query.shape
        groups = key.shape[1]
        self.queries[layer].index_copy_(2, self.slot, query)
        query = query.view(n, groups, heads // groups, dim)
        scores = torch.cat([across(query, self.keys[layer].transpose(1, 2)), query @ key.transpose(-1, -2)], dim=-1)
        weights = (scores * scaling + self.bias).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
        trunk = self.capacity[0]
        out = across(weights[..., :trunk], self.values[layer]) + weights[..., trunk:] @ value
        return out.reshape(n, 1, heads, dim)

    def copy_out(self, reading: Reading, length: int) -> Branches:
        """What the rows have written in ``length`` steps, free of the buffers."""
        branches = Branches(reading.trunk, reading.tails, [self.n])
        branches.length = length
        branches.keys = [keys[:, :, :length].clone() for keys in self.own_keys]
        queries = torch.stack([q[:, :, :length] for q in self.queries])  # (L, N, K, T, D), a copy
        branches.queries = [(branches.rows, queries[:, :, :, step]) for step in range(length)]
        return branches


class StaticDecoder:
    """A decode step for N rows behind a prompt of at most S' tokens, recorded as a CUDA graph where there is a GPU."""

    def __init__(self, lvlm: LVLM, reading: Reading, n: int, capacity: tuple[int, int]) -> None:
        # Not the LVLM, which keeps this decoder: together they would stay in memory until a collection of cycles.
        self._text_model, self._device = lvlm.text_model, lvlm.device
        self.rows = StaticRows(reading, lvlm.num_heads, n, capacity)
        self.rows.begin(reading.trunk)
        axes = reading.prompts[0].position_ids.shape[:-2]  # () or (3,)
        self._tokens = torch.zeros(n, dtype=torch.long, device=lvlm.device)
        self._positions = torch.zeros(*axes, n, 1, dtype=torch.long, device=lvlm.device)
        self._embed, self._head = lvlm.text_model.get_input_embeddings(), lvlm.hf_model.get_output_embeddings()
        self._graph: Any = None
        self._logits: torch.Tensor | None = None
        if lvlm.device.type == "cuda":
            self._record()

    def begin(self, reading: Reading) -> None:
        """Starts anew behind the reading's only prompt."""
        self.rows.begin(reading.trunk)
        self._positions.fill_(reading.prompts[0].next_position)

    def advance(self, tokens: torch.Tensor) -> torch.Tensor:
        """Feeds ``tokens`` (N,): logits (N, V), good until the next call."""
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
            attention_mask={"full_attention": None},
            position_ids=self._positions,
            past_key_values=rows,
            use_cache=True,
            acs_attending=rows,
        ).last_hidden_state
        rows.slot.add_(1)
        self._positions.add_(1)
        return self._head(hidden[:, -1])

    def _record(self) -> None:
        """Records a step; libraries set themselves up in the steps before, which a recording must not see."""
        gc.collect()  # an old graph that is destroyed in the middle of a recording would break it
        # Streams belong to the device that is current, which need not be the model's. The outer stream context is left
        # in any case; that of a recording that fails is not.
        with torch.cuda.device(self._device), torch.cuda.stream(torch.cuda.current_stream(self._device)):
            side = torch.cuda.Stream(self._device)
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(2):
                    self._step()
                    self.rows.slot.zero_()
            torch.cuda.current_stream().wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            # Other threads may go on using the GPU meanwhile.
            with torch.cuda.graph(
                self._graph, stream=torch.cuda.Stream(self._device), capture_error_mode="thread_local"
            ):
                self._logits = self._step()


def static_decoder(lvlm: LVLM, reading: Reading, n: int, limit: int) -> StaticDecoder | None:
    """A decoder for ``n`` responses of up to ``limit`` tokens to the reading's only prompt, begun; kept for later calls
    of the like. None where a step cannot be recorded, or for several prompts."""
    if len(reading.prompts) != 1 or reading.tails[0] is not None or limit < 2 or not lvlm.graphs.usable:
        return None
    capacity = _up(reading.trunk.length, TRUNK_STEP), _up(limit, OWN_STEP)
    key = (n, *capacity)
    decoder = lvlm.graphs.kept.pop(key, None)
    if decoder is None:
        while len(lvlm.graphs.kept) >= KEPT_GRAPHS:
            lvlm.graphs.kept.pop(next(iter(lvlm.graphs.kept)))
        try:
            decoder = StaticDecoder(lvlm, reading, n, capacity)
        except RuntimeError as error:  # an operation that cannot be recorded, such as those of quantised layers
            lvlm.graphs.kept.clear()
            first = _first(error)
            if isinstance(first, torch.OutOfMemoryError):
                raise first from None
            lvlm.graphs.usable = False
            log.warning("decode steps cannot be recorded as a CUDA graph and will be slower: %s", first)
            return None
    lvlm.graphs.kept[key] = decoder  # the latest last
    decoder.begin(reading)
    return decoder


def _first(error: BaseException) -> BaseException:
    """What an error began with: when a recording breaks off, its end raises another one over the cause."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
