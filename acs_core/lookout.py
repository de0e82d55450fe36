"""The attention function of the look-once forward, and the recorder that reduces its weights inside each layer.

The function is registered once under one name. It holds no state: whoever runs a forward with it hands a
:class:`Recorder` along as a keyword argument, which transformers passes down to every attention layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from acs_core.entropy import row_entropy

IMPLEMENTATION = "acs_look_once"
_CHUNK_BYTES = 256 * 2**20  # of float32 weights held at a time


class DeepestLayerSeen(Exception):
    """Ends a forward whose remaining layers nobody asked for; never leaves :mod:`acs_core.attention`."""


@dataclass(frozen=True)
class Look:
    """The query positions of one forward: ``rows`` and ``columns`` (P,) say where, in the batch (N, Q) of queries,
    each of the P looked-at positions is. ``map_slice`` and ``grid`` as in a Prompt."""

    rows: torch.Tensor
    columns: torch.Tensor
    map_slice: tuple[int, int]
    grid: tuple[int, int]


class Recorder:
    """Keeps entropies (P, L, K) and, if asked, maps (P, L, K, h, w) of one forward, float32 on the CPU; scores and
    weights are computed in float32, whatever the model's dtype.

    ``entropy_heads`` maps a layer to the heads whose entropies are wanted; ``map_size`` (h, w) asks for the maps of all
    layers. Entropies that nobody asked for stay NaN.
    """

    def __init__(
        self,
        look: Look,
        shape: tuple[int, int],
        entropy_heads: Mapping[int, Sequence[int]],
        map_size: tuple[int, int] | None,
    ) -> None:
        layers, heads = shape
        positions = len(look.rows)
        self._look = look
        self._heads = entropy_heads
        self._deepest = layers - 1 if map_size else max(entropy_heads, default=-1)
        self.entropy = torch.full((positions, layers, heads), torch.nan)
        self.maps = torch.empty((positions, layers, heads, *map_size)) if map_size else None

    def record(self, layer: int, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor, scaling: float) -> None:
        """Reduces the weights of ``query`` (N, K, Q, D) over ``key`` (N, G, S, D); ``mask`` (N, 1, Q, S) is True where
        a query sees a key. Heads k * K/G ... share the keys of group k.

        Raises:
            DeepestLayerSeen: nothing is wanted from the layers that follow.
        """
        if self.maps is not None or layer in self._heads:
            # In bfloat16 a score of 20 is rounded by up to 0.06, and its weight by 6 %. One layer's keys in float32
            # are little beside the cache they come from, which holds keys and values of all layers.
            query, key = query.float(), key.float()
            n, heads, queries, _ = query.shape
            step = max(1, _CHUNK_BYTES // (4 * n * heads * key.shape[2]))
            for start in range(0, queries, step):
                self._reduce(
                    layer, start, query[:, :, start : start + step], key, mask[:, :, start : start + step], scaling
                )
        if layer == self._deepest:
            raise DeepestLayerSeen

    def _reduce(
        self, layer: int, start: int, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor, scaling: float
    ) -> None:
        n, heads, queries, _ = query.shape
        here = (self._look.columns >= start) & (self._look.columns < start + queries)  # (P,)
        scores = (_fold(query, key.shape[1]) @ key.transpose(-1, -2)).view(n, heads, queries, -1) * scaling
        weights = scores.masked_fill(~mask, -torch.inf).softmax(dim=-1)  # (N, K, Q, S)
        rows, columns = self._look.rows[here], self._look.columns[here] - start
        found = weights[rows, :, columns, slice(*self._look.map_slice)]  # (p, K, Hv * Wv)
        places = torch.nonzero(here)[:, 0].cpu()
        if layer in self._heads:
            wanted = torch.tensor(list(self._heads[layer]), device=found.device)
            self.entropy[places[:, None], layer, wanted.cpu()] = row_entropy(found[:, wanted]).cpu()
        if self.maps is not None:
            sized = resize_maps(found.unflatten(-1, self._look.grid), self.maps.shape[-2:])
            self.maps[places, layer] = sized.cpu()


def look_once_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    acs_recorder: Recorder | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of ``query`` (N, K, Q, D) after rope over ``key`` and ``value`` (N, G, S, D), noted by the recorder.

    Returns the output (N, Q, K, D). ``attention_mask`` (N, 1, Q, S) is True where a query sees a key.
    """
    if acs_recorder is not None:
        acs_recorder.record(module.layer_idx, query, key, attention_mask, scaling)
    groups, per_group = key.shape[1], query.shape[1] // key.shape[1]
    out = functional.scaled_dot_product_attention(
        _fold(query, groups), key, value, attn_mask=attention_mask.repeat(1, 1, per_group, 1), scale=scaling
    )  # (N, G, K/G * Q, D)
    return out.reshape(query.shape).transpose(1, 2).contiguous(), None


def resize_maps(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Maps (..., Hv, Wv) at ``size`` (h, w), each with the mass (sum) it had: (..., h, w).

    Area averaging where both sides shrink, bilinear otherwise. A map of that size comes back as it is. Keeping the
    mass keeps a value's meaning, the share of attention a place gets, whatever the picture's own grid was.
    """
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    flat = maps.reshape(1, -1, *maps.shape[-2:])
    if size[0] <= maps.shape[-2] and size[1] <= maps.shape[-1]:
        sized = functional.interpolate(flat, size=tuple(size), mode="area")
    else:
        sized = functional.interpolate(flat, size=tuple(size), mode="bilinear", align_corners=False)
    before, after = flat.sum((-2, -1), keepdim=True), sized.sum((-2, -1), keepdim=True)
    sized = sized * (before / after.clamp_min(torch.finfo(sized.dtype).tiny))
    return sized.reshape(*maps.shape[:-2], *size)


def _fold(query: torch.Tensor, groups: int) -> torch.Tensor:
    """(N, K, Q, D) -> (N, G, K/G * Q, D): heads that share keys side by side, so that keys need no repeating."""
    n, heads, queries, dim = query.shape
    return query.reshape(n, groups, heads // groups * queries, dim)


# Under one name in both registries; without the second, transformers drops the mask.
AttentionInterface.register(IMPLEMENTATION, look_once_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
