"""Key-value cache with fixed addresses and shapes, for recorded decode steps (:mod:`acs_core.generation.cuda_graph`).

Prompt, own tokens and queries are kept in buffers of fixed capacity, lengths on the device and a bias mask the slots
that are not written yet, and the index of the next slot of each row is a tensor, too. Several prompts about one image
share the buffers of what they have in common, and have buffers of their own for the rest. Their attention is computed
in operations of PyTorch, or by kernels of :mod:`acs_core.generation.attention_kernel`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch

from acs_core.generation.prefill import PrefillState
from acs_core.generation.shared_cache import CacheSegment, Opening, SharedPrefixCache, across

PREFIX_STEP, SUFFIX_STEP, OWN_STEP = 256, 64, 64  # capacities are multiples of these: one graph serves many images


@dataclass(frozen=True)
class Capacity:
    """Sizes of static buffers.

    Attributes:
        prompts: number of prompts P.
        each: number of responses to each of them.
        prefix: tokens that the prompts have in common, S'.
        suffix: further tokens of a prompt, U'; 0 for a single one, all of whose tokens count as common.
        own: own tokens of a response, T'.
    """

    prompts: int
    each: int
    prefix: int
    suffix: int
    own: int

    @classmethod
    def for_state(cls, state: PrefillState, each: int, limit: int) -> Capacity:
        """Return what ``each`` responses of up to ``limit`` tokens to each prompt of ``state`` need."""
        own = _up(limit, OWN_STEP)
        if len(state.prompts) == 1:
            return cls(1, each, _up(state.prompts[0].length, PREFIX_STEP), 0, own)
        longest = max(suffix.length if suffix else 0 for suffix in state.suffixes)
        return cls(
            len(state.prompts), each, _up(state.prefix.length, PREFIX_STEP), _up(max(1, longest), SUFFIX_STEP), own
        )

    @property
    def rows(self) -> int:
        """Number of responses N."""
        return self.prompts * self.each

    def holds(self, needed: Capacity) -> bool:
        """Return whether buffers of this size serve ``needed`` with prompts to spare, no more than are needed: each is
        computed like the others."""
        spare = self.prompts - needed.prompts
        return replace(self, prompts=needed.prompts) == needed and 0 <= spare <= needed.prompts

    def nbytes(self, state: PrefillState, heads: int) -> int:
        """Return the bytes of the buffers, for K ``heads``."""
        like = state.prefix.keys[0]
        groups, _, dim = like.shape
        slots = groups * (self.prefix + self.prompts * self.suffix + self.rows * self.own)
        return len(state.prefix.keys) * like.element_size() * dim * (2 * slots + self.rows * heads * self.own)


class StaticRows:
    """Key-value cache of N responses to P prompts in static buffers.

    The counterpart of :class:`acs_core.generation.shared_cache.SharedPrefixCache` with fixed shapes. Rows are ordered
    by prompt, the same number for each.

    Args:
        state: prefill of prompts of the same model.
        heads: number of query heads K.
        capacity: the sizes.
        kernel: the module :mod:`acs_core.generation.attention_kernel`, to attend with its kernels; None for operations
            of PyTorch.

    Attributes:
        capacity: the sizes.
        n: number of responses N.
        kernel: as given.
        keys, values: what the prompts have in common, (G, S', D) per layer; G key groups of D channels.
        suffix_keys, suffix_values: further tokens of the prompts, (P, G, U', D) per layer.
        own_keys, own_values: own tokens, (N, G, T', D) per layer.
        queries: (N, K, T', D) per layer; K heads.
        bias, suffix_bias: (S',) and (P, U'), 0 for the tokens of the prompts and -inf for other slots.
        used, suffix_used: (1,) and (P,), numbers of these tokens.
        starts: (N,), index of the next own token of each row.
    """

    def __init__(self, state: PrefillState, heads: int, capacity: Capacity, kernel: ModuleType | None = None) -> None:
        like = state.prefix.keys[0]  # (G, S, D)
        groups, _, dim = like.shape
        layers = range(len(state.prefix.keys))
        n, own = capacity.rows, capacity.own
        self.capacity, self.n, self.kernel = capacity, n, kernel
        self.keys = [like.new_zeros(groups, capacity.prefix, dim) for _ in layers]
        self.values = [like.new_zeros(groups, capacity.prefix, dim) for _ in layers]
        self.suffix_keys = [like.new_zeros(capacity.prompts, groups, capacity.suffix, dim) for _ in layers]
        self.suffix_values = [like.new_zeros(capacity.prompts, groups, capacity.suffix, dim) for _ in layers]
        self.own_keys = [like.new_zeros(n, groups, own, dim) for _ in layers]
        self.own_values = [like.new_zeros(n, groups, own, dim) for _ in layers]
        self.queries = [like.new_zeros(n, heads, own, dim) for _ in layers]
        self.bias = like.new_zeros(capacity.prefix)
        self.suffix_bias = like.new_zeros(capacity.prompts, capacity.suffix)
        self.used = torch.zeros(1, dtype=torch.long, device=like.device)
        self.suffix_used = torch.zeros(capacity.prompts, dtype=torch.long, device=like.device)
        self.starts = torch.zeros(n, dtype=torch.long, device=like.device)
        self._slots = torch.zeros(n, 1, dtype=torch.long, device=like.device)  # (N, W) of the step
        self._hidden = torch.zeros(n, 1, own, dtype=torch.bool, device=like.device)  # (N, W, T')

    def begin(self, state: PrefillState) -> None:
        """Reset the buffers to the keys and values of the prompts of ``state``, of which there may be fewer."""
        common, apart = [state.prefix], state.suffixes
        if not self.capacity.suffix:
            common += [suffix for suffix in state.suffixes if suffix]
            apart = ()
        self._fill(self.keys, self.values, self.bias, common)
        self.used.fill_(sum(part.length for part in common))
        self.suffix_bias.fill_(-torch.inf)
        self.suffix_used.zero_()
        for k, suffix in enumerate(apart):
            keys, values = [b[k] for b in self.suffix_keys], [b[k] for b in self.suffix_values]
            self._fill(keys, values, self.suffix_bias[k], [suffix] if suffix else [])
            self.suffix_used[k].fill_(suffix.length if suffix else 0)
        # A failed call may have left NaN, which a weight of 0 does not mask.
        for store in (*self.own_keys, *self.own_values, *(b[len(apart) :] for b in self.suffix_values)):
            store.zero_()
        self.starts.zero_()

    def _fill(
        self,
        keys: Sequence[torch.Tensor],
        values: Sequence[torch.Tensor],
        bias: torch.Tensor,
        parts: Sequence[CacheSegment],
    ) -> None:
        """Copy ``parts``, one after the other, into buffers (G, slots, D) per layer with the ``bias`` (slots,)."""
        length = sum(part.length for part in parts)
        for name, buffers in (("keys", keys), ("values", values)):
            for layer, buffer in enumerate(buffers):
                start = 0
                for part in parts:
                    buffer[:, start : start + part.length].copy_(getattr(part, name)[layer])
                    start += part.length
                buffer[:, length:].zero_()
        bias.fill_(-torch.inf)
        bias[:length] = 0.0

    def begin_with(self, prompt: int, opening: Opening) -> None:
        """Write the tokens of ``opening`` as the first own tokens of all rows of ``prompt``."""
        q = len(opening.tokens)
        rows = slice(prompt * self.capacity.each, (prompt + 1) * self.capacity.each)
        for layer in range(len(self.own_keys)):
            self.own_keys[layer][rows, :, :q] = opening.segment.keys[layer]
            self.own_values[layer][rows, :, :q] = opening.segment.values[layer]
            self.queries[layer][rows, :, :q] = opening.queries[layer].transpose(0, 1)  # (q, K, D) to (K, q, D)

    def begin_step(self, width: int) -> None:
        """Prepare a forward of ``width`` tokens per row, from its slot ``starts`` on."""
        own = self.capacity.own
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
        if self.kernel is not None:
            return self._by_kernel(layer, query, key, value, scaling, self.kernel)
        query = query.reshape(n, groups, heads // groups * width, dim)  # (N, G, K/G * W, D)
        scores = [across(query, self.keys[layer].transpose(1, 2)) * scaling + self.bias]
        if self.capacity.suffix:
            apart = self._of_prompts(query, self.suffix_keys[layer].transpose(2, 3)) * scaling  # (N, G, K/G * W, U')
            bias = self.suffix_bias[:, None].expand(-1, self.capacity.each, -1).reshape(n, 1, 1, -1)
            scores.append(apart + bias)
        own = (query @ key.transpose(-1, -2) * scaling).unflatten(2, (-1, width))  # (N, G, K/G, W, T')
        scores.append(own.masked_fill(self._hidden[:, None, None], -torch.inf).flatten(2, 3))
        weights = torch.cat(scores, dim=-1).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
        prefix, suffix = self.capacity.prefix, self.capacity.suffix
        out = across(weights[..., :prefix], self.values[layer]) + weights[..., prefix + suffix :] @ value
        if suffix:
            out += self._of_prompts(weights[..., prefix : prefix + suffix], self.suffix_values[layer])
        return out.reshape(n, heads, width, dim).transpose(1, 2)

    def _by_kernel(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, kernel: Any
    ) -> torch.Tensor:
        prefix = kernel.KeysAndValues(self.keys[layer], self.values[layer], self.used)
        suffix = kernel.KeysAndValues(self.suffix_keys[layer], self.suffix_values[layer], self.suffix_used)
        own = kernel.KeysAndValues(key, value, self._slots)
        made: torch.Tensor = kernel.decode_attention(
            query, prefix, suffix if self.capacity.suffix else None, own, scaling
        )
        return made

    def _of_prompts(self, rows: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
        """Multiply (N, G, r, A) by the (P, G, A, B) of the rows' prompts, each of which is read once.

        Returns:
            (N, G, r, B).
        """
        count, groups, r, _ = rows.shape
        prompts, each = self.capacity.prompts, self.capacity.each
        folded = rows.view(prompts, each, groups, r, -1).transpose(1, 2).reshape(prompts * groups, each * r, -1)
        made = torch.bmm(folded, matrices.flatten(0, 1)).view(prompts, groups, each, r, -1)
        return made.transpose(1, 2).reshape(count, groups, r, -1)

    def copy_out(self, state: PrefillState, lengths: Sequence[int]) -> SharedPrefixCache:
        """Return a copy of the first ``lengths`` own tokens of the rows of the prompts of ``state`` as a
        :class:`SharedPrefixCache`."""
        count, longest = len(lengths), max(lengths)
        keys = [keys[:count, :, :longest].clone() for keys in self.own_keys]
        queries = torch.stack([q[:count, :, :longest].transpose(1, 2) for q in self.queries])  # (L, N, T, K, D), a copy
        counts = [self.capacity.each] * len(state.prompts)
        return SharedPrefixCache.of_buffers(state.prefix, state.suffixes, counts, keys, queries.flatten(1, 2), lengths)


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
