"""Attention maps and their entropies for the coordinates of all candidates, computed after sampling.

The attention of a coordinate is that of its first token (paper appendix A), at the position before it, which emits the
token; for an ablation, the position that reads the token can be captured instead. Sampling keeps the queries and keys
of every position (:mod:`acs_core.generation.prefill`). Here the queries of the coordinates are scored against the keys,
in float32 whatever the dtype of the model, and the columns of the image tokens are kept. No layer of the model is run
again.

Maps are raw weights: the part of a softmax over all visible tokens that falls on the image tokens. They do not sum to
one; the entropy normalises them (section 4.3, equation 3): ``H(A) = - sum_uv p_uv log p_uv`` with ``p = A / sum(A)``
and the natural logarithm, so H lies in [0, log(number of cells)]. Zero is a single cell, ``log(cells)`` a uniform map.
A map without any mass counts as uniform, so that it never looks concentrated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from acs_core.errors import NonFiniteError
from acs_core.generation.generate import Generations, responses_of
from acs_core.generation.shared_cache import CacheSegment, SharedPrefixCache, across
from acs_core.generation.token_statistics import TokenStatistics
from acs_core.lvlm.base import LVLM, Prompt
from acs_core.types import COORDINATES, Candidate

Heads = tuple[tuple[tuple[int, int], ...], ...]
Step = Literal["emitting", "consuming"]
_CHUNK_BYTES = 256 * 2**20  # of float32 weights held at a time


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


@dataclass(frozen=True)
class AttentionRecord:
    """Attention of C candidates over the coordinates x1, y1, x2, y2, L layers and K heads.

    Attributes:
        entropy: (C, 4, L, K) float32 in nats, of the maps on ``grid``; NaN if not requested.
        maps: (C, 4, L, K, h, w) float32 raw weights; resizing keeps their sum. None if not requested.
        grid: (Hv, Wv), the prompt's own grid.
        tokens: certainty of the model about the tokens of the candidates; None if not requested.
        num_responses: number of responses, including those without a candidate; 0 if unknown.
    """

    entropy: np.ndarray
    maps: np.ndarray | None
    grid: tuple[int, int]
    tokens: TokenStatistics | None = None
    num_responses: int = 0

    def only(self, index: Sequence[int] | np.ndarray) -> AttentionRecord:
        """Return the record of some of the candidates, given their indices or a (C,) bool mask."""
        at = np.asarray(index, dtype=None if len(index) else int)
        maps, tokens = self.maps, self.tokens
        return replace(
            self,
            entropy=self.entropy[at],
            maps=None if maps is None else maps[at],
            tokens=None if tokens is None else tokens.only(at),
        )

    def followed_by(self, more: AttentionRecord) -> AttentionRecord:
        """Return the record of these candidates followed by those of ``more``.

        Raises:
            ValueError: the grids differ, or only one of the records has maps or token statistics.
        """
        if self.grid != more.grid:
            raise ValueError(f"attention on grids of {self.grid} and {more.grid} cells cannot be joined")
        if (self.maps is None) is not (more.maps is None) or (self.tokens is None) is not (more.tokens is None):
            raise ValueError("maps or token statistics were captured for only one of the two records")
        maps = None if self.maps is None or more.maps is None else np.concatenate([self.maps, more.maps])
        return replace(
            self,
            entropy=np.concatenate([self.entropy, more.entropy]),
            maps=maps,
            tokens=self.tokens.followed_by(more.tokens) if self.tokens and more.tokens else None,
            num_responses=self.num_responses + more.num_responses,
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
    if not candidates or not (asked.any() or size):
        maps = np.zeros((*shape, *size), np.float32) if size else None
        return AttentionRecord(np.full(shape, np.nan, np.float32), maps, prompt.grid, tokens, drawn)

    with torch.inference_mode():
        queries = _Queries.of(samples, candidates, needs.step)
        entropy = torch.full((queries.count, layers, heads), torch.nan, device=lvlm.device)
        sized = torch.empty((queries.count, layers, heads, *size), device=lvlm.device) if size else None
        per_position = 4 * heads * (prompt.length + queries.longest)  # bytes of weights
        step = max(1, _CHUNK_BYTES // per_position)
        scaling = lvlm.text_model.layers[0].self_attn.scaling
        whole = torch.ones((), dtype=torch.bool, device=lvlm.device)
        for layer in range(layers):
            wanted = np.flatnonzero(asked[:, layer].any(axis=0)).tolist()
            if not wanted and sized is None:
                continue
            for start in range(0, queries.count, step):
                part = slice(start, start + step)
                found = queries.weights(layer, part, scaling)[..., slice(*prompt.map_slice)]  # (p, K, Hv * Wv)
                whole &= found[..., 0].isfinite().all()  # NaN in a row of a softmax fills the whole row
                if wanted:
                    entropy[part, layer, wanted] = row_entropy(found[:, wanted])
                if sized is not None and size is not None:
                    sized[part, layer] = resize_maps(found.unflatten(-1, prompt.grid), size)
        kept = _of_candidates(entropy, queries.place)
        maps = _of_candidates(sized, queries.place) if sized is not None else None
        if not whole:
            raise NonFiniteError(
                "the model gave NaN attention: its weights or the dtype are broken; try float32, or get the weights "
                "again"
            )
    return AttentionRecord(np.where(asked[None], kept, np.float32(np.nan)), maps, prompt.grid, tokens, drawn)


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
        place: (C, 4) index of the position of each coordinate.
    """

    prompt: tuple[CacheSegment, ...]
    batches: tuple[_Batch, ...]
    queries: torch.Tensor
    own: torch.Tensor
    place: torch.Tensor

    @property
    def count(self) -> int:
        """Number of positions P."""
        return self.queries.shape[1]

    @property
    def longest(self) -> int:
        """Largest number of own tokens that a position attends to."""
        return int(self.own.max())

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
            rows = torch.tensor([row for row, _ in mine])
            batches.append(_Batch(prefix_cache, rows.to(state.queries[k].device)))
            # The first token is emitted by the prompt's last position, whose query all responses share.
            queries += [
                prefix_cache.query(row, seen - 1) if seen else state.queries[k] for row, seen in mine
            ]  # (L, K, D) each
        tail = state.suffixes[k]
        device = state.queries[k].device
        return cls(
            prompt=(state.prefix, tail) if tail else (state.prefix,),
            batches=tuple(batches),
            queries=torch.stack(queries, dim=1),
            own=torch.tensor([seen for _, seen in distinct], device=device),
            place=torch.tensor([distinct[spot] for spot in spots]).view(len(candidates), len(COORDINATES)),
        )

    def weights(self, layer: int, part: slice, scaling: float) -> torch.Tensor:
        """Return the softmax (p, K, S + T) in float32 over the prompt and the own tokens, for the positions
        ``part``."""
        # In bfloat16 a score of 20 is rounded by up to 0.06, which changes its weight by 6 %.
        query = self.queries[layer, part].float()  # (p, K, D)
        count, heads, dim = query.shape
        groups = self.prompt[0].keys[layer].shape[0]
        query = query.view(count, groups, heads // groups, dim)
        scores = [across(query, segment.keys[layer].float().transpose(1, 2)) for segment in self.prompt]
        if self.longest:
            own = self._own_keys(layer)[part].float()  # (p, G, T, D)
            seen = torch.arange(own.shape[2], device=own.device) < self.own[part, None]  # (p, T)
            hidden = ~seen[:, None, None]
            scores.append((query @ own.transpose(-1, -2)).masked_fill_(hidden, -torch.inf))
        return (torch.cat(scores, dim=-1) * scaling).softmax(dim=-1).flatten(1, 2)

    def _own_keys(self, layer: int) -> torch.Tensor:
        """Return the own keys (P, G, T, D), with T = ``longest``; slots that a batch never wrote are zero."""
        keys = []
        for batch in self.batches:
            written = batch.prefix_cache.own_keys(layer)[batch.rows, :, : self.longest]
            keys.append(torch.nn.functional.pad(written, (0, 0, 0, self.longest - written.shape[2])))
        return torch.cat(keys)


def _of_candidates(found: torch.Tensor, place: torch.Tensor) -> np.ndarray:
    """Return the values ``found`` (P, ...) of the positions ``place`` (C, 4): (C, 4, ...)."""
    host = found.cpu()
    if torch.equal(place.flatten(), torch.arange(len(host))):
        return host.unflatten(0, place.shape).numpy()  # the usual case, without a copy (70 MB for a 7B model)
    return host[place].numpy()


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
