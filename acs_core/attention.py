"""Look once: the attention maps and entropies of all coordinates of all responses, in one forward.

The token that matters for a coordinate is its first (paper appendix A), and the attention that emitted it is that of
the position before. After sampling, those positions alone are run through the language model again, all responses at
once. Each sees the keys that sampling left in the cache, up to and including its own. The registered attention
function (:mod:`acs_core.lookout`) computes the softmax in float32 and keeps the columns of the image tokens.

Maps are raw weights: what a head gives to the image tokens, out of a softmax over all the tokens it sees. They do not
sum to one; entropy normalises them itself (equation 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from acs_core.lookout import IMPLEMENTATION, DeepestLayerSeen, Look, Recorder
from acs_core.lvlm.base import LVLM, Prompt
from acs_core.sampling import Samples
from acs_core.types import COORDINATES, Candidate

Heads = tuple[tuple[tuple[int, int], ...], ...]


@dataclass(frozen=True)
class AttentionNeeds:
    """What a selector wants captured.

    ``heads``: for x1, y1, x2, y2 the (layer, head) pairs, 0-based, whose entropies are wanted. ``all_entropies``:
    those of every head. ``maps``: every head's map, at ``map_size`` (h, w) or, with None, on the prompt's own grid.
    """

    heads: Heads | None = None
    maps: bool = False
    map_size: tuple[int, int] | None = None
    all_entropies: bool = False


@dataclass(frozen=True)
class Evidence:
    """Attention of C candidates, over coordinates x1, y1, x2, y2, L layers and K heads.

    ``entropy`` (C, 4, L, K) float32 in nats, of the maps on the native ``grid`` (Hv, Wv), NaN where not asked for.
    ``maps`` (C, 4, L, K, h, w) float32 raw weights, or None; resized ones keep their sum.
    """

    entropy: np.ndarray
    maps: np.ndarray | None
    grid: tuple[int, int]


def capture(
    lvlm: LVLM, prompt: Prompt, samples: Samples, candidates: Sequence[Candidate], needs: AttentionNeeds
) -> Evidence:
    """The attention with which ``samples`` stated the coordinates of ``candidates``.

    The cache in ``samples`` is read, not extended, so it can be looked at again.

    Raises:
        ValueError: ``needs`` names a layer or head the model does not have, or not four coordinates.
    """
    layers, heads = lvlm.num_layers, lvlm.num_heads
    asked = _asked(needs, layers, heads)  # (4, L, K) bool
    shape = (len(candidates), len(COORDINATES), layers, heads)
    size = (needs.map_size or prompt.grid) if needs.maps else None
    if not candidates or not (asked.any() or size):
        maps = np.zeros((*shape, *size), np.float32) if size else None
        return Evidence(np.full(shape, np.nan, np.float32), maps, prompt.grid)

    queries = _Queries.of(prompt.length, candidates, samples.num_samples, lvlm.device)
    per_layer = {
        int(k): np.flatnonzero(asked[:, k].any(axis=0)).tolist() for k in np.flatnonzero(asked.any(axis=(0, 2)))
    }
    look = Look(queries.rows, queries.columns, prompt.map_slice, prompt.grid)
    recorder = Recorder(look, (layers, heads), per_layer, size)
    _look(lvlm, prompt, samples, queries.positions, recorder)

    entropy = recorder.entropy[queries.place].numpy()  # (C, 4, L, K)
    maps = recorder.maps[queries.place].numpy() if recorder.maps is not None else None
    return Evidence(np.where(asked[None], entropy, np.float32(np.nan)), maps, prompt.grid)


@dataclass(frozen=True)
class _Queries:
    """Positions to look from, made rectangular: ``positions`` (N, Q), rows with fewer filled up by the prompt's last.
    Position p of the P distinct ones is at ``rows[p], columns[p]``; ``place`` (C, 4) says which p a coordinate has."""

    positions: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    place: torch.Tensor

    @classmethod
    def of(cls, prompt_length: int, candidates: Sequence[Candidate], n: int, device: torch.device) -> _Queries:
        per_row: list[dict[int, int]] = [{} for _ in range(n)]  # per response: sequence position -> column
        spots = []
        for candidate in candidates:
            row = per_row[candidate.response]
            for token in candidate.coordinate_tokens:
                position = prompt_length + token - 1  # the step that emits the token
                spots.append((candidate.response, row.setdefault(position, len(row))))
        distinct = {spot: p for p, spot in enumerate(dict.fromkeys(spots))}
        positions = torch.full((n, max(map(len, per_row))), prompt_length - 1)
        for i, row in enumerate(per_row):
            positions[i, : len(row)] = torch.tensor(list(row), dtype=torch.long)
        rows, columns = torch.tensor(list(distinct)).unbind(dim=1)
        place = torch.tensor([distinct[spot] for spot in spots]).view(len(candidates), len(COORDINATES))
        return cls(positions.to(device), rows.to(device), columns.to(device), place)


def _look(lvlm: LVLM, prompt: Prompt, samples: Samples, positions: torch.Tensor, recorder: Recorder) -> None:
    """Runs the tokens at ``positions`` (N, Q) through the language model, layer by layer noted by ``recorder``."""
    cached = samples.cache.get_seq_length()
    slots = torch.arange(cached, device=positions.device)
    mask = slots <= positions[:, None, :, None]  # (N, 1, Q, cached): up to and including the query's own slot
    # Text positions differ from token indices by a constant, which is 0 unless the rope folds image tokens.
    rope = positions + (prompt.next_position - prompt.length)  # (N, Q)
    rope = rope.expand(*prompt.position_ids.shape[:-2], *rope.shape)  # (N, Q) or (3, N, Q)
    with lvlm.lock, torch.inference_mode(), _attention_of(lvlm):
        try:
            lvlm.text_model(
                inputs_embeds=lvlm.text_model.get_input_embeddings()(samples.sequences.gather(1, positions)),
                attention_mask=mask,
                position_ids=rope,
                past_key_values=_FilledCache(samples.cache),
                use_cache=True,
                acs_recorder=recorder,
            )
        except DeepestLayerSeen:
            return


class _FilledCache:
    """Stands in for a cache whose slots already hold what this forward would append: it hands out, and keeps, nothing
    new. So the forward leaves no trace, and keys are not copied."""

    def __init__(self, cache: Any) -> None:
        self._layers = cache.layers

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (N, G, S, D) of the layer as sampling left them."""
        layer = self._layers[layer_idx]
        return layer.keys, layer.values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of filled slots."""
        return self._layers[layer_idx].get_seq_length()


@contextmanager
def _attention_of(lvlm: LVLM) -> Iterator[None]:
    """The language model attends by our function inside, and as before afterwards, whatever happens."""
    before = lvlm.text_model.config._attn_implementation
    lvlm.hf_model.set_attn_implementation({"text_config": IMPLEMENTATION})
    try:
        yield
    finally:
        lvlm.hf_model.set_attn_implementation({"text_config": before})


def _asked(needs: AttentionNeeds, layers: int, heads: int) -> np.ndarray:
    """Which entropies are wanted: (4, L, K) bool."""
    asked = np.full((len(COORDINATES), layers, heads), needs.all_entropies)
    if needs.heads is None:
        return asked
    if len(needs.heads) != len(COORDINATES):
        raise ValueError(f"heads must be given for {', '.join(COORDINATES)}; got {len(needs.heads)} groups")
    for c, pairs in enumerate(needs.heads):
        for layer, head in pairs:
            if not (0 <= layer < layers and 0 <= head < heads):
                raise ValueError(
                    f"head ({layer}, {head}) is not in a model of {layers} layers x {heads} heads (0-based)"
                )
            asked[c, layer, head] = True
    return asked
