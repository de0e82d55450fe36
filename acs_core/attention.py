"""Look once: the attention maps and entropies of all coordinates of all responses, when the answers are there.

The token that matters for a coordinate is its first (paper appendix A), and the attention that emitted it is that of
the position before; for an ablation, that of the position which reads it can be looked at instead. Sampling kept every
position's queries and keys (:mod:`acs_core.branches`); here those of the coordinates alone are scored against the keys,
in float32 whatever the model's dtype, and the columns of the image tokens are kept. No layer of the model runs again.

Maps are raw weights: what a head gives to the image tokens, out of a softmax over all the tokens it sees. They do not
sum to one; entropy normalises them itself (equation 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from acs_core.branches import Branches, Segment, across
from acs_core.entropy import row_entropy
from acs_core.lvlm.base import LVLM, Prompt
from acs_core.maps import resize_maps
from acs_core.sampling import Samples, responses_of
from acs_core.types import COORDINATES, Candidate

Heads = tuple[tuple[tuple[int, int], ...], ...]
Step = Literal["emitting", "consuming"]
_CHUNK_BYTES = 256 * 2**20  # of float32 weights held at a time


@dataclass(frozen=True)
class AttentionNeeds:
    """What a selector wants captured.

    ``heads``: for x1, y1, x2, y2 the (layer, head) pairs, 0-based, whose entropies are wanted. ``all_entropies``:
    those of every head. ``maps``: every head's map, at ``map_size`` (h, w) or, with None, on the prompt's own grid.
    ``step``: whose attention that is, of the position that emits a coordinate's first token, or of the next one, which
    reads it. ``token_entropy``: how unsure the model was of the coordinates' first tokens.
    """

    heads: Heads | None = None
    maps: bool = False
    map_size: tuple[int, int] | None = None
    all_entropies: bool = False
    step: Step = "emitting"
    token_entropy: bool = False


@dataclass(frozen=True)
class Evidence:
    """Attention of C candidates, over coordinates x1, y1, x2, y2, L layers and K heads.

    ``entropy`` (C, 4, L, K) float32 in nats, of the maps on the native ``grid`` (Hv, Wv), NaN where not asked for.
    ``maps`` (C, 4, L, K, h, w) float32 raw weights, or None; resized ones keep their sum. ``token_entropy`` (C, 4)
    float64 in nats, of the vocabulary distribution that each coordinate's first token was drawn from (before
    temperature and cuts), or None. ``num_responses``: how many were drawn, those without a candidate included; 0 where
    that is not known.
    """

    entropy: np.ndarray
    maps: np.ndarray | None
    grid: tuple[int, int]
    token_entropy: np.ndarray | None = None
    num_responses: int = 0

    def only(self, index: Sequence[int] | np.ndarray) -> Evidence:
        """That of some of the candidates: their numbers, or (C,) bool."""
        at = np.asarray(index, dtype=None if len(index) else int)
        maps, unsure = self.maps, self.token_entropy
        return replace(
            self,
            entropy=self.entropy[at],
            maps=None if maps is None else maps[at],
            token_entropy=None if unsure is None else unsure[at],
        )

    def followed_by(self, more: Evidence) -> Evidence:
        """That of these candidates and then of ``more``.

        Raises:
            ValueError: the maps have another grid, or one of the two has them and the other not.
        """
        if self.grid != more.grid:
            raise ValueError(f"attention on grids of {self.grid} and {more.grid} cells cannot be put together")
        return replace(
            self,
            entropy=np.concatenate([self.entropy, more.entropy]),
            maps=_both(self.maps, more.maps),
            token_entropy=_both(self.token_entropy, more.token_entropy),
            num_responses=self.num_responses + more.num_responses,
        )


def _both(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    if first is None or second is None:
        if first is not second:
            raise ValueError("what was captured for one of the two was not captured for the other")
        return None
    return np.concatenate([first, second])


def capture(
    lvlm: LVLM, prompt: Prompt, samples: Samples, candidates: Sequence[Candidate], needs: AttentionNeeds
) -> Evidence:
    """The attention with which ``samples`` stated the coordinates of ``candidates``. It can be looked at again.

    Raises:
        ValueError: ``needs`` names a layer or head the model does not have, or not four coordinates, or wants token
            entropies that were not kept when the responses were drawn.
    """
    layers, heads = lvlm.num_layers, lvlm.num_heads
    asked = _asked(needs, layers, heads)  # (4, L, K) bool
    shape = (len(candidates), len(COORDINATES), layers, heads)
    size = (needs.map_size or prompt.grid) if needs.maps else None
    unsure = _token_entropy(samples, candidates) if needs.token_entropy else None
    drawn = len(samples.response_ids)
    if not candidates or not (asked.any() or size):
        maps = np.zeros((*shape, *size), np.float32) if size else None
        return Evidence(np.full(shape, np.nan, np.float32), maps, prompt.grid, unsure, drawn)

    with torch.inference_mode():
        queries = _Queries.of(samples, candidates, needs.step)
        entropy = torch.full((queries.count, layers, heads), torch.nan, device=lvlm.device)
        sized = torch.empty((queries.count, layers, heads, *size), device=lvlm.device) if size else None
        per_position = 4 * heads * (prompt.length + queries.longest)  # bytes of weights
        step = max(1, _CHUNK_BYTES // per_position)
        scaling = lvlm.text_model.layers[0].self_attn.scaling
        for layer in range(layers):
            wanted = np.flatnonzero(asked[:, layer].any(axis=0)).tolist()
            if not wanted and sized is None:
                continue
            for start in range(0, queries.count, step):
                part = slice(start, start + step)
                found = queries.weights(layer, part, scaling)[..., slice(*prompt.map_slice)]  # (p, K, Hv * Wv)
                if wanted:
                    entropy[part, layer, wanted] = row_entropy(found[:, wanted])
                if sized is not None and size is not None:
                    sized[part, layer] = resize_maps(found.unflatten(-1, prompt.grid), size)
        kept = _of_candidates(entropy, queries.place)
        maps = _of_candidates(sized, queries.place) if sized is not None else None
    return Evidence(np.where(asked[None], kept, np.float32(np.nan)), maps, prompt.grid, unsure, drawn)


@dataclass(frozen=True)
class _Batch:
    """Positions of one batch of responses: rows (p,) on the device."""

    branches: Branches
    rows: torch.Tensor


@dataclass(frozen=True)
class _Queries:
    """The P distinct positions that candidates' coordinates were emitted or read at, batch after batch.

    ``queries`` (L, P, K, D); ``own`` (P,) says how many of the response's own tokens each sees, besides all of the
    ``prompt``; ``place`` (C, 4) says which position a coordinate has.
    """

    prompt: tuple[Segment, ...]
    batches: tuple[_Batch, ...]
    queries: torch.Tensor
    own: torch.Tensor
    place: torch.Tensor

    @property
    def count(self) -> int:
        """P."""
        return self.queries.shape[1]

    @property
    def longest(self) -> int:
        """The most own tokens that any position sees."""
        return int(self.own.max())

    @classmethod
    def of(cls, samples: Samples, candidates: Sequence[Candidate], step: Step) -> _Queries:
        written = list(responses_of(samples))
        # A spot: response, and how many of its own tokens are seen from there. What emits a token sees those before it.
        more = 1 if step == "consuming" else 0
        spots = [(c.response, token + more) for c in candidates for token in c.coordinate_tokens]
        # By response, so that those written in one batch are together: batches hold consecutive responses.
        distinct = {spot: p for p, spot in enumerate(sorted(set(spots)))}
        reading, k = samples.reading, samples.prompt
        queries, batches = [], []
        for branches in dict.fromkeys(written[response][0] for response, _ in distinct):
            mine = [(written[i][1], seen) for i, seen in distinct if written[i][0] is branches]
            rows = torch.tensor([row for row, _ in mine])
            batches.append(_Batch(branches, rows.to(reading.queries[k].device)))
            # What emits the first token is the prompt's last position, whose query all responses share.
            queries += [
                branches.query(row, seen - 1) if seen else reading.queries[k] for row, seen in mine
            ]  # (L, K, D) each
        tail = reading.tails[k]
        device = reading.queries[k].device
        return cls(
            prompt=(reading.trunk, tail) if tail else (reading.trunk,),
            batches=tuple(batches),
            queries=torch.stack(queries, dim=1),
            own=torch.tensor([seen for _, seen in distinct], device=device),
            place=torch.tensor([distinct[spot] for spot in spots]).view(len(candidates), len(COORDINATES)),
        )

    def weights(self, layer: int, part: slice, scaling: float) -> torch.Tensor:
        """Softmax (p, K, S + T) in float32 over the prompt and the own tokens, of the positions ``part``."""
        # In bfloat16 a score of 20 is rounded by up to 0.06, and its weight by 6 %.
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
        """(P, G, T, D), T the ``longest``; slots that a batch never wrote hold zeros."""
        keys = []
        for batch in self.batches:
            written = batch.branches.own_keys(layer)[batch.rows, :, : self.longest]
            keys.append(torch.nn.functional.pad(written, (0, 0, 0, self.longest - written.shape[2])))
        return torch.cat(keys)


def _of_candidates(found: torch.Tensor, place: torch.Tensor) -> np.ndarray:
    """(C, 4, ...) of what was ``found`` (P, ...) at the positions ``place`` (C, 4)."""
    host = found.cpu()
    if torch.equal(place.flatten(), torch.arange(len(host))):
        return host.unflatten(0, place.shape).numpy()  # the usual case; of a 7B model a copy would take 70 MB
    return host[place].numpy()


def _token_entropy(samples: Samples, candidates: Sequence[Candidate]) -> np.ndarray:
    """(C, 4) float64 in nats, at the coordinates' first tokens."""
    kept = samples.token_entropy
    if kept is None:
        raise ValueError("token entropies are asked for, but the responses were drawn without keeping them")
    return np.array([[kept[c.response][t] for t in c.coordinate_tokens] for c in candidates]).reshape(-1, 4)


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
