"""Reads prompts: one forward over what they share, the image before all, and a short one for what each has of its own.

What comes out holds keys, values, the first logits, and the last token's queries; any number of responses can be drawn
from it, again and again (:mod:`acs_core.sampling`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from acs_core.branches import LastQueries, Segment, branch_attention_of
from acs_core.errors import Cancelled
from acs_core.lvlm.base import LVLM, Prompt
from acs_core.types import ShouldStop


@dataclass(frozen=True)
class Reading:
    """Prompts as the model has read them, about one image, or side by side without a trunk.

    ``trunk`` are the tokens all of them begin with; ``tails[k]`` what prompt k adds, None if nothing. ``logits[k]``
    (V,) are those of its first response token, ``queries[k]`` (L, K, D) the queries that emitted them.
    """

    prompts: tuple[Prompt, ...]
    trunk: Segment
    tails: tuple[Segment | None, ...]
    logits: tuple[torch.Tensor, ...]
    queries: tuple[torch.Tensor, ...]

    def only(self, prompts: Sequence[int]) -> Reading:
        """The reading of some of the prompts."""
        if list(prompts) == list(range(len(self.prompts))):
            return self
        return Reading(
            prompts=tuple(self.prompts[k] for k in prompts),
            trunk=self.trunk,
            tails=tuple(self.tails[k] for k in prompts),
            logits=tuple(self.logits[k] for k in prompts),
            queries=tuple(self.queries[k] for k in prompts),
        )


def read(lvlm: LVLM, prompts: Sequence[Prompt], should_stop: ShouldStop | None = None) -> Reading:
    """Reads the prompts, which must be about the same picture (:meth:`LVLM.prepare_many`).

    Raises:
        ValueError: no prompts, or of different pictures.
        Cancelled: ``should_stop`` returned True, asked before each forward.
    """
    if not prompts:
        raise ValueError("no prompts to read")
    if any(p.vision is not prompts[0].vision for p in prompts):
        raise ValueError("the prompts are about different pictures: prepare them together")
    shared = prompts[0].length if len(prompts) == 1 else _shared_length(prompts)
    with lvlm.lock, torch.inference_mode(), branch_attention_of(lvlm):
        cache, logits, queries = _forward(lvlm, prompts[0], 0, shared, None, should_stop)
        trunk = _segment(cache, 0)
        if len(prompts) == 1:
            return Reading(tuple(prompts), trunk, (None,), (logits,), (queries,))
        ends = []
        for prompt in prompts:
            _, logits, queries = _forward(lvlm, prompt, shared, prompt.length, cache, should_stop)
            ends.append((_segment(cache, shared), logits, queries))
            cache.crop(shared - prompt.length)
    tails, first, last = zip(*ends, strict=True)
    return Reading(tuple(prompts), trunk, tails, first, last)


def side_by_side(readings: Sequence[Reading]) -> Reading:
    """Readings of one prompt each, of whatever pictures, as one without a trunk, so that their responses are written in
    one batch: a step over many rows costs a small model hardly more than one over few.

    Raises:
        ValueError: no readings, or one of several prompts.
    """
    if not readings or any(len(r.prompts) != 1 or r.tails[0] is not None for r in readings):
        raise ValueError("only readings of one prompt each can be put side by side")
    first = readings[0].trunk
    nothing = Segment(tuple(k[:, :0] for k in first.keys), tuple(v[:, :0] for v in first.values))
    prompts, tails = tuple(r.prompts[0] for r in readings), tuple(r.trunk for r in readings)
    logits, queries = tuple(r.logits[0] for r in readings), tuple(r.queries[0] for r in readings)
    return Reading(prompts, nothing, tails, logits, queries)


def _shared_length(prompts: Sequence[Prompt]) -> int:
    """Number of tokens that all prompts begin with, leaving each at least one of its own."""
    rows = [prompt.input_ids[0].tolist() for prompt in prompts]
    shortest = min(map(len, rows)) - 1
    return next((k for k in range(shortest) if len({row[k] for row in rows}) > 1), shortest)


def _forward(
    lvlm: LVLM, prompt: Prompt, start: int, stop: int, cache: Any, should_stop: ShouldStop | None
) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """Tokens ``start`` to ``stop`` of a prompt, behind those in ``cache``: cache, logits (V,), queries (L, K, D)."""
    if should_stop and should_stop():
        raise Cancelled("stopped before the model read the prompt")
    noted = LastQueries()
    out = lvlm.hf_model(
        input_ids=prompt.input_ids[:, start:stop],
        attention_mask=torch.ones_like(prompt.input_ids[:, :stop]),
        position_ids=prompt.position_ids[..., start:stop],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
        acs_attending=noted,
        **(prompt.vision if start == 0 else {}),
    )
    return out.past_key_values, out.logits[0, -1], torch.stack(noted.layers)[:, 0]


def _segment(cache: Any, start: int) -> Segment:
    """What a cache holds from token ``start`` on. Copied where the rest will change under it."""
    keep = (lambda t: t[0, :, start:].clone()) if start else (lambda t: t[0])
    return Segment(
        tuple(keep(layer.keys) for layer in cache.layers), tuple(keep(layer.values) for layer in cache.layers)
    )
