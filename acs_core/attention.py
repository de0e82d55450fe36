"""Attention maps and their entropies for the coordinates of all candidates, computed after sampling.

The attention of a coordinate is that of its first token (paper appendix A), at the position before it, which emits the
token; for an ablation, the position that reads the token can be captured instead. Sampling keeps the queries and keys
of every position (:mod:`acs_core.generation.prefill`). Here the queries of the coordinates are scored against the keys,
in float32 whatever the dtype of the model, and the columns of the image tokens are kept. No layer of the model is run
again. What is computed stays on the device, and the layers are computed in as few operations as memory allows, so that
the host does not wait; :class:`AttentionRecord` copies what is read.

Maps are raw weights: the part of a softmax over all visible tokens that falls on the image tokens. They do not sum to
one; the entropy normalises them (section 4.3, equation 3): ``H(A) = - sum_uv p_uv log p_uv`` with ``p = A / sum(A)``
and the natural logarithm, so H lies in [0, log(number of cells)]. Zero is a single cell, ``log(cells)`` a uniform map.
A map without any mass counts as uniform, so that it never looks concentrated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional

from acs_core.device_array import chosen, held, joined, read_on_host, upload
from acs_core.errors import NonFiniteError
from acs_core.generation.generate import Generations, responses_of
from acs_core.generation.shared_cache import CacheSegment, SharedPrefixCache, across
from acs_core.generation.token_statistics import TokenStatistics
from acs_core.lvlm.base import LVLM, Prompt
from acs_core.types import COORDINATES, Candidate

Heads = tuple[tuple[tuple[int, int], ...], ...]
Step = Literal["emitting", "consuming"]
_CHUNK_BYTES = 64 * 2**20  # of float32 weights held at a time


@dataclass(frozen=True)
class AttentionNeeds:
    """The attention that a selector needs.

    Attributes:
        heads: for each of x1, y1, x2, y2 the 0-based (layer, head) pairs whose entropies are needed.
        maps: whether the maps of all heads are needed.
        map_size: (h, w) of the maps; None for the prompt's own grid.
        all_entropies: whether the entropies of all heads are needed.
        step: "emitting" for the position that emits a coordinate's first token, "consuming" for the next one, which
            reads it.
        token_statistics: whether the model's certainty about the written tokens is needed.
        whole_responses: whether responses must not end with their first box, since what follows it is read, too.
    """

    heads: Heads | None = None
    maps: bool = False
    map_size: tuple[int, int] | None = None
    all_entropies: bool = False
    step: Step = "emitting"
    token_statistics: bool = False
    whole_responses: bool = False

    @property
    def reads_attention(self) -> bool:
        """Whether maps or entropies are needed."""
        return self.maps or self.all_entropies or self.heads is not None

    @property
    def end_with_first_box(self) -> bool:
        """Whether responses about one object may end with their first box. Log-probabilities of responses, which only
        selectors read, are those of whole ones."""
        return not (self.token_statistics or self.whole_responses)


@read_on_host("entropy", "maps", "hidden")
@dataclass(frozen=True)
class AttentionRecord:
    """Attention of C candidates over the coordinates x1, y1, x2, y2, L layers and K heads.

    Entropies and maps may be given as tensors on a device, and are then copied to the host when they are first read
    (:func:`acs_core.device_array.read_on_host`).

    Attributes:
        entropy: (C, 4, L, K) float32 in nats, of the maps on ``grid``; NaN if not requested.
        maps: (C, 4, L, K, h, w) float32 raw weights; resizing keeps their sum. None if not requested.
        grid: (Hv, Wv), the prompt's own grid.
        tokens: certainty of the model about the tokens of the candidates; None if not requested.
        num_responses: number of responses, including those without a candidate, without those that the deadline cut off
            before their first box, which say nothing; None if it is unknown.
        hidden: (D,) float32, the model's last hidden state at the end of the prompt, of the first look; None if it is
            unknown.
    """

    entropy: np.ndarray
    maps: np.ndarray | None
    grid: tuple[int, int]
    tokens: TokenStatistics | None = None
    num_responses: int | None = None
    hidden: np.ndarray | None = None

    @property
    def device_bytes(self) -> int:
        """Bytes of entropies and maps that are in the memory of a device other than the CPU."""
        values = (held(self, "entropy"), held(self, "maps"))
        kept = [v for v in values if isinstance(v, torch.Tensor) and v.device.type != "cpu"]
        return sum(v.numel() * v.element_size() for v in kept)

    def of_responses(self, number: int) -> AttentionRecord:
        """Return this record with another number of responses."""
        entropy, maps, hidden = (held(self, name) for name in ("entropy", "maps", "hidden"))
        return AttentionRecord(entropy, maps, self.grid, self.tokens, number, hidden)

    def on_host(self) -> AttentionRecord:
        """Return this record with everything on the host."""
        return AttentionRecord(self.entropy, self.maps, self.grid, self.tokens, self.num_responses, self.hidden)

    def evened(self) -> AttentionRecord:
        """Return this record with its attention taken out: each map constant, of the mean mass of all candidates, and
        each entropy that of an even map. What a selector then still chooses by is not attention."""
        maps = self.maps
        if maps is not None and maps.size:
            part, exponent = np.frexp(maps.mean(axis=(0, -2, -1), keepdims=True, dtype=np.float64))
            # With few binary digits, so that sums over cells are exact and equal maps have exactly equal shares.
            mean = np.ldexp(np.round(part * 4096) / 4096, exponent).astype(maps.dtype)
            maps = np.ascontiguousarray(np.broadcast_to(mean, maps.shape))
        cells = self.grid[0] * self.grid[1]
        entropy = np.where(np.isnan(self.entropy), np.nan, math.log(cells)).astype(np.float32)
        return AttentionRecord(entropy, maps, self.grid, self.tokens, self.num_responses, held(self, "hidden"))

    def only(self, index: Sequence[int] | np.ndarray) -> AttentionRecord:
        """Return the record of some of the candidates, given their indices or a (C,) bool mask."""
        at = np.asarray(index, dtype=None if len(index) else int)
        at = np.flatnonzero(at) if at.dtype == bool else at
        return AttentionRecord(
            chosen(held(self, "entropy"), at),
            chosen(held(self, "maps"), at),
            self.grid,
            None if self.tokens is None else self.tokens.only(at),
            self.num_responses,
            held(self, "hidden"),
        )

    def followed_by(self, more: AttentionRecord) -> AttentionRecord:
        """Return the record of these candidates followed by those of ``more``.

        Raises:
            ValueError: the grids differ, or only one of the records has maps or token statistics.
        """
        if self.grid != more.grid:
            raise ValueError(f"attention on grids of {self.grid} and {more.grid} cells cannot be joined")
        maps, others = held(self, "maps"), held(more, "maps")
        if (maps is None) is not (others is None) or (self.tokens is None) is not (more.tokens is None):
            raise ValueError("maps or token statistics were captured for only one of the two records")
        counts = (self.num_responses, more.num_responses)
        return AttentionRecord(
            joined(held(self, "entropy"), held(more, "entropy")),
            None if maps is None else joined(maps, others),
            self.grid,
            self.tokens.followed_by(more.tokens) if self.tokens and more.tokens else None,
            sum(n for n in counts if n is not None) if None not in counts else None,
            held(self, "hidden"),
        )


def capture(
    lvlm: LVLM, prompt: Prompt, samples: Generations, candidates: Sequence[Candidate], needs: AttentionNeeds
) -> AttentionRecord:
    """Compute the attention at the coordinates of ``candidates``.

    Args:
        lvlm: the model.
        prompt: the prompt of the responses.
        samples: the responses.
        candidates: boxes of the responses.
        needs: what to compute.

    Raises:
        ValueError: ``needs`` names a layer or head that the model does not have, does not have four coordinates, or
            needs token statistics that were not kept during sampling.
        NonFiniteError: the attention is NaN.
    """
    layers, heads = lvlm.num_layers, lvlm.num_heads
    asked = _asked(needs, layers, heads)  # (4, L, K) bool
    shape = (len(candidates), len(COORDINATES), layers, heads)
    size = (needs.map_size or prompt.grid) if needs.maps else None
    tokens = _token_statistics(samples, candidates) if needs.token_statistics else None
    drawn = len(samples.response_ids)
    hidden: Any = samples.state.hidden[samples.prompt].float()  # a tensor here, read as an array
    if not candidates or not (asked.any() or size):
        maps = np.zeros((*shape, *size), np.float32) if size else None
        return AttentionRecord(np.full(shape, np.nan, np.float32), maps, prompt.grid, tokens, drawn, hidden)

    device = lvlm.device
    with torch.inference_mode():
        queries = _Queries.of(samples, candidates, needs.step)
        like = queries.queries.new_empty((), dtype=torch.float32)
        entropy = like.new_full((queries.count, layers, heads), torch.nan)
        sized = like.new_empty((queries.count, layers, heads, *size)) if size else None
        scaling = lvlm.text_model.layers[0].self_attn.scaling
        whole = torch.ones((), dtype=torch.bool, device=device)
        looked = [layer for layer in range(layers) if size or asked[:, layer].any()]
        for some, part in queries.chunks(looked, _layers_at_once(device)):
            found = queries.weights(some, part, scaling)[..., slice(*prompt.map_slice)]  # (p, l, K, Hv * Wv)
            whole &= found[..., 0].isfinite().all()  # NaN in a row of a softmax fills the whole row
            at = _index(some, device)
            wanted = np.flatnonzero(asked[:, some].any(axis=(0, 1))).tolist()
            if len(wanted) == heads:
                entropy[part, at] = row_entropy(found)
            elif wanted:
                of_heads = upload(wanted, device)
                rows = at if isinstance(at, slice) else at[:, None]
                entropy[part, rows, of_heads] = row_entropy(found[:, :, of_heads])
            if sized is not None and size is not None:
                sized[part, at] = resize_maps(found.unflatten(-1, prompt.grid), size)
        kept = _of_candidates(entropy, queries.place)
        if not asked.all():
            kept = torch.where(upload(torch.from_numpy(asked), device), kept, torch.nan)
        all_maps = None if sized is None else _of_candidates(sized, queries.place)
        if not whole:  # the only wait for the device
            raise NonFiniteError(
                "the model gave NaN attention: its weights or the dtype are broken; try float32, or get the weights "
                "again"
            )
    entropies: Any = kept  # tensors here, read as arrays
    maps_of_all: Any = all_maps
    return AttentionRecord(entropies, maps_of_all, prompt.grid, tokens, drawn, hidden)


def _layers_at_once(device: torch.device) -> int:
    """Return the largest number of layers in one operation: on a CPU one, whose weights its caches hold."""
    return 1 if device.type == "cpu" else 2**20


def _index(layers: Sequence[int], device: torch.device) -> slice | torch.Tensor:
    """Return an index of ``layers``, ascending: a slice where they follow each other."""
    first, last = layers[0], layers[-1]
    return slice(first, last + 1) if last - first + 1 == len(layers) else upload(layers, device)


@dataclass(frozen=True)
class _Batch:
    """Positions in one batch of responses: rows (p,) on the device."""

    prefix_cache: SharedPrefixCache
    rows: torch.Tensor


@dataclass(frozen=True)
class _Queries:
    """The P distinct positions at which coordinates were emitted or read, ordered by batch.

    Attributes:
        prompt: segments of the prompt.
        batches: rows of the positions, per batch.
        queries: (L, P, K, D).
        own: (P,) number of the response's own tokens that each position attends to, besides the prompt.
        longest: the largest of them.
        place: (C, 4) index of the position of each coordinate, on the CPU.
    """

    prompt: tuple[CacheSegment, ...]
    batches: tuple[_Batch, ...]
    queries: torch.Tensor
    own: torch.Tensor
    longest: int
    place: torch.Tensor

    @property
    def count(self) -> int:
        """Number of positions P."""
        return self.queries.shape[1]

    @classmethod
    def of(cls, samples: Generations, candidates: Sequence[Candidate], step: Step) -> _Queries:
        written = list(responses_of(samples))
        # A spot: (response, number of own tokens visible there). The position that emits a token sees those before it.
        more = 1 if step == "consuming" else 0
        spots = [(c.response, token + more) for c in candidates for token in c.coordinate_tokens]
        # Sorted by response, so that spots of one batch are adjacent: batches hold consecutive responses.
        distinct = {spot: p for p, spot in enumerate(sorted(set(spots)))}
        state, k = samples.state, samples.prompt
        queries, batches = [], []
        for prefix_cache in dict.fromkeys(written[response][0] for response, _ in distinct):
            mine = [(written[i][1], seen) for i, seen in distinct if written[i][0] is prefix_cache]
            batches.append(_Batch(prefix_cache, upload([row for row, _ in mine], state.queries[k].device)))
            # The first token is emitted by the prompt's last position, whose query all responses share.
            queries += [
                prefix_cache.query(row, seen - 1) if seen else state.queries[k] for row, seen in mine
            ]  # (L, K, D) each
        tail = state.suffixes[k]
        seen = [number for _, number in distinct]
        return cls(
            prompt=(state.prefix, tail) if tail else (state.prefix,),
            batches=tuple(batches),
            queries=torch.stack(queries, dim=1),
            own=upload(seen, state.queries[k].device),
            longest=max(seen),
            place=torch.tensor([distinct[spot] for spot in spots]).view(len(candidates), len(COORDINATES)),
        )

    def chunks(self, layers: Sequence[int], at_once: int) -> Iterator[tuple[list[int], slice]]:
        """Yield parts of ``layers`` and of the positions, so that the float32 weights and keys of each fit into
        :data:`_CHUNK_BYTES`; at most ``at_once`` layers, and parts of the positions only of a single layer."""
        groups, length, dim = self.prompt[0].keys[0].shape
        length = sum(segment.length for segment in self.prompt)
        per_position = 4 * self.queries.shape[2] * (length + self.longest)
        per_layer = self.count * (per_position + 4 * groups * dim * self.longest) + 4 * groups * dim * length
        step = max(1, min(at_once, _CHUNK_BYTES // per_layer))
        rows = max(1, _CHUNK_BYTES // per_position) if step == 1 else self.count
        for first in range(0, len(layers), step):
            for start in range(0, self.count, rows):
                yield [*layers[first : first + step]], slice(start, start + rows)

    def weights(self, layers: Sequence[int], part: slice, scaling: float) -> torch.Tensor:
        """Return the softmax (p, l, K, S + T) in float32 over the prompt and the own tokens, for the positions ``part``
        and l layers."""
        # In bfloat16 a score of 20 is rounded by up to 0.06, which changes its weight by 6 %.
        query = torch.stack([self.queries[layer, part] for layer in layers], dim=1).float()  # (p, l, K, D)
        count, _, heads, dim = query.shape
        groups = self.prompt[0].keys[0].shape[0]
        query = query.view(count, len(layers) * groups, heads // groups, dim)  # the groups of all layers side by side
        scores = []
        for segment in self.prompt:
            keys = _side_by_side([segment.keys[layer] for layer in layers], 0).float()  # (l * G, S, D)
            scores.append(across(query, keys.transpose(1, 2)))
        if self.longest:
            own = self._own_keys(layers)[part].float()  # (p, l * G, T, D)
            seen = torch.arange(own.shape[2], device=own.device) < self.own[part, None]  # (p, T)
            hidden = ~seen[:, None, None]
            scores.append((query @ own.transpose(-1, -2)).masked_fill_(hidden, -torch.inf))
        weights = torch.cat(scores, dim=-1).mul_(scaling).softmax(dim=-1)
        return weights.view(count, len(layers), heads, -1)

    def _own_keys(self, layers: Sequence[int]) -> torch.Tensor:
        """Return the own keys (P, l * G, T, D), with T = ``longest``; slots that a batch never wrote are zero."""
        keys = []
        for batch in self.batches:
            stores = [batch.prefix_cache.own_keys(layer) for layer in layers]
            written = _side_by_side([store[batch.rows, :, : self.longest] for store in stores], 1)
            keys.append(functional.pad(written, (0, 0, 0, self.longest - written.shape[2])))
        return torch.cat(keys)


def _side_by_side(tensors: Sequence[torch.Tensor], dim: int) -> torch.Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors), dim=dim)


def _of_candidates(found: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Return the values ``found`` (P, ...) of the positions ``place`` (C, 4), on the device: (C, 4, ...)."""
    if torch.equal(place.flatten(), torch.arange(len(found))):
        return found.unflatten(0, place.shape)  # the usual case, without a copy (70 MB for a 7B model)
    return found[upload(place, found.device)]


def _token_statistics(samples: Generations, candidates: Sequence[Candidate]) -> TokenStatistics:
    entropies, logprobs = samples.token_entropy, samples.token_logprob
    if entropies is None or logprobs is None:
        raise ValueError("token statistics are asked for, but the responses were drawn without keeping them")
    return TokenStatistics.of(candidates, dict(enumerate(entropies)), dict(enumerate(logprobs)))


def _asked(needs: AttentionNeeds, layers: int, heads: int) -> np.ndarray:
    """Return which entropies are needed: (4, L, K) bool."""
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


def entropy(maps: np.ndarray) -> np.ndarray:
    """Return the entropy of maps (..., Hv, Wv) of non-negative weights, in nats: float64 (...); NaN for maps that are
    not finite."""
    flat = np.asarray(maps, dtype=np.float64).reshape(*np.shape(maps)[:-2], -1)  # (..., Hv * Wv)
    mass = flat.sum(axis=-1, keepdims=True)
    empty = mass <= 0  # False for NaN, which is kept
    with np.errstate(invalid="ignore"):
        p = np.divide(flat, mass, out=np.zeros_like(flat), where=~empty)
        nats = -(p * np.log(p, out=np.zeros_like(p), where=p > 0)).sum(axis=-1)
    nats = np.where(np.isfinite(mass[..., 0]), nats, np.nan)
    return np.where(empty[..., 0], math.log(flat.shape[-1]), nats)


def row_entropy(rows: torch.Tensor) -> torch.Tensor:
    """Return the entropy of flattened maps (..., cells) of non-negative float32 weights, in nats, on their device:
    (...); NaN for maps that are not finite."""
    mass = rows.sum(dim=-1, keepdim=True)
    empty = mass <= 0  # False for NaN, which is kept
    p = rows / torch.where(empty, 1.0, mass)
    nats = torch.special.entr(p).sum(dim=-1)  # entr(p) = -p log p, and 0 at p = 0
    return torch.where(empty[..., 0], math.log(rows.shape[-1]), nats)


def resize_maps(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resize maps (..., Hv, Wv) to ``size`` (h, w), keeping the sum of each map: (..., h, w).

    Area averaging if neither side grows, else bilinear. A map of that size already is returned unchanged. With its sum
    kept, a value means the same for any grid: the share of attention that a region gets.
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
