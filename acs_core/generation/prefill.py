"""Prefill of prompts about one image.

:func:`prefill` runs one forward over the tokens that the prompts have in common, including the image, and a short one
over the rest of each prompt. Its result holds keys, values, the first logits, and the queries of the last token; any
number of responses can be generated from it (:mod:`acs_core.generation.generate`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch

from acs_core.device_array import upload
from acs_core.errors import Cancelled
from acs_core.generation.patch_projection import patches_by_products
from acs_core.generation.shared_cache import CacheSegment, Opening, QueryRecorder, use_shared_prefix_attention
from acs_core.generation.speculation import AnswerDrafts
from acs_core.generation.vision_graph import recorded_vision
from acs_core.generation.vision_windows import batched_windows
from acs_core.lvlm.base import LVLM, Prompt
from acs_core.types import ShouldStop


@lru_cache
def cache_name(model: Any) -> str:
    """Return the name of the key-value cache among the arguments and outputs of a transformers model class: "cache"
    from release 5.24 on, "past_key_values" before."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


@dataclass(frozen=True)
class PrefillState:
    """Prefill of prompts that share an image, or of any prompts side by side with an empty prefix.

    Attributes:
        prompts: the prompts.
        prefix: tokens that all prompts begin with.
        suffixes: further tokens of each prompt; None if there are none.
        logits: (V,) for each prompt, the logits of the first response token.
        queries: (L, K, D) for each prompt, the queries of its last token.
        openings: for each prompt the tokens that its responses probably begin with; None if there are none.
        hidden: (D,) for each prompt, the last hidden state of its last token, from which ``logits`` are computed.
    """

    prompts: tuple[Prompt, ...]
    prefix: CacheSegment
    suffixes: tuple[CacheSegment | None, ...]
    logits: tuple[torch.Tensor, ...]
    queries: tuple[torch.Tensor, ...]
    openings: tuple[Opening | None, ...]
    hidden: tuple[torch.Tensor, ...]

    def only(self, prompts: Sequence[int]) -> PrefillState:
        """Return the state of the prompts with the indices ``prompts``."""
        if list(prompts) == list(range(len(self.prompts))):
            return self
        return PrefillState(
            prompts=tuple(self.prompts[k] for k in prompts),
            prefix=self.prefix,
            suffixes=tuple(self.suffixes[k] for k in prompts),
            logits=tuple(self.logits[k] for k in prompts),
            queries=tuple(self.queries[k] for k in prompts),
            openings=tuple(self.openings[k] for k in prompts),
            hidden=tuple(self.hidden[k] for k in prompts),
        )

    def apart(self) -> tuple[PrefillState, ...]:
        """Return a state of its own for each prompt, with all tokens of the prompt as its prefix."""
        return tuple(
            PrefillState(
                (prompt,),
                self.prefix if suffix is None else self.prefix.followed_by(suffix),
                (None,),
                (logits,),
                (queries,),
                (opening,),
                (hidden,),
            )
            for prompt, suffix, logits, queries, opening, hidden in zip(
                self.prompts, self.suffixes, self.logits, self.queries, self.openings, self.hidden, strict=True
            )
        )


@dataclass(frozen=True)
class PromptEnd:
    """Result of the forward over the last tokens of a prompt, and over an opening: see :class:`PrefillState`."""

    segment: CacheSegment
    logits: torch.Tensor
    queries: torch.Tensor
    opening: Opening | None
    hidden: torch.Tensor


def prefill(
    lvlm: LVLM, prompts: Sequence[Prompt], should_stop: ShouldStop | None = None, drafts: AnswerDrafts | None = None
) -> PrefillState:
    """Run the model over prompts about the same image (:meth:`LVLM.prepare_many`).

    Args:
        lvlm: the model.
        prompts: one or more prompts that share their pixel inputs.
        should_stop: checked before each forward; True cancels the call.
        drafts: predicts the tokens that the responses begin with, which are run with the prompts; None for no openings.

    Raises:
        ValueError: no prompts, or prompts about different images.
        Cancelled: ``should_stop`` returned True.
    """
    if not prompts:
        raise ValueError("no prompts to read")
    if any(p.vision is not prompts[0].vision for p in prompts):
        raise ValueError("the prompts are about different pictures: prepare them together")
    with lvlm.lock, torch.inference_mode(), use_shared_prefix_attention(lvlm):
        if len(prompts) == 1:
            _, end = _forward(lvlm, prompts[0], 0, None, should_stop, drafts)
            return replace(joined(prompts, end.segment, [end]), suffixes=(None,))
        shared = _shared_length(prompts)
        cache, begin = _forward(lvlm, prompts[0], 0, None, should_stop, None, shared)
        ends = []
        for prompt in prompts:
            _, end = _forward(lvlm, prompt, shared, cache, should_stop, drafts)
            ends.append(end)
            cache.crop(shared - cache.get_seq_length())
    return joined(prompts, begin.segment, ends)


def read_prefix(lvlm: LVLM, prompt: Prompt, stop: int, should_stop: ShouldStop | None = None) -> CacheSegment:
    """Run the model over the first ``stop`` tokens of a prompt, the image among them, and return their keys and values.

    The caller holds the model's lock, in inference mode and with :func:`use_shared_prefix_attention`.

    Raises:
        Cancelled: ``should_stop`` returned True.
    """
    return _forward(lvlm, prompt, 0, None, should_stop, None, stop)[1].segment


def read_end(
    lvlm: LVLM, prompt: Prompt, start: int, cache: Any, should_stop: ShouldStop | None, drafts: AnswerDrafts | None
) -> PromptEnd:
    """Run the model over the tokens of a prompt from ``start`` on, after those in ``cache``, which is changed.

    The caller's part is that of :func:`read_prefix`.

    Raises:
        Cancelled: ``should_stop`` returned True.
    """
    return _forward(lvlm, prompt, start, cache, should_stop, drafts)[1]


def joined(prompts: Sequence[Prompt], prefix: CacheSegment, ends: Sequence[PromptEnd]) -> PrefillState:
    """Return the state of prompts that begin with ``prefix``, one end per prompt."""
    return PrefillState(
        tuple(prompts),
        prefix,
        tuple(end.segment for end in ends),
        tuple(end.logits for end in ends),
        tuple(end.queries for end in ends),
        tuple(end.opening for end in ends),
        tuple(end.hidden for end in ends),
    )


def stack_states(prefill_states: Sequence[PrefillState]) -> PrefillState:
    """Join states of one prompt each, about any images, into one state with an empty prefix.

    Their responses can then be decoded in one batch: for a small model a step over many rows costs hardly more than one
    over few.

    Raises:
        ValueError: no states, or a state of several prompts.
    """
    if not prefill_states or any(len(r.prompts) != 1 or r.suffixes[0] is not None for r in prefill_states):
        raise ValueError("only prefill states of one prompt each can be stacked")
    first = prefill_states[0].prefix
    nothing = CacheSegment(tuple(k[:, :0] for k in first.keys), tuple(v[:, :0] for v in first.values))
    prompts, suffixes = tuple(r.prompts[0] for r in prefill_states), tuple(r.prefix for r in prefill_states)
    logits, queries = tuple(r.logits[0] for r in prefill_states), tuple(r.queries[0] for r in prefill_states)
    openings, hidden = tuple(r.openings[0] for r in prefill_states), tuple(r.hidden[0] for r in prefill_states)
    return PrefillState(prompts, nothing, suffixes, logits, queries, openings, hidden)


def _shared_length(prompts: Sequence[Prompt]) -> int:
    """Return the number of tokens that all prompts begin with, leaving at least one token to each."""
    rows = [prompt.token_ids for prompt in prompts]
    shortest = min(map(len, rows)) - 1
    return next((k for k in range(shortest) if len({row[k] for row in rows}) > 1), shortest)


def _forward(
    lvlm: LVLM,
    prompt: Prompt,
    start: int,
    cache: Any,
    should_stop: ShouldStop | None,
    drafts: AnswerDrafts | None,
    stop: int | None = None,
) -> tuple[Any, PromptEnd]:
    """Run the model over the tokens of a prompt from ``start`` on, after those in ``cache``.

    Args:
        lvlm: the model.
        prompt: the prompt.
        start: index of the first token.
        cache: cache of transformers with the tokens before it; None if there are none.
        should_stop: checked before.
        drafts: predicts the opening, which is run too; None for none.
        stop: index after the last token; by default the whole prompt.

    Returns:
        The cache, with the opening, and the result.
    """
    if should_stop and should_stop():
        raise Cancelled("stopped before the model read the prompt")
    stop = prompt.length if stop is None else stop
    drafted = tuple(drafts.draft((), prompt.phrase)) if drafts else ()
    more = len(drafted)
    noted = QueryRecorder(1 + more)
    name = cache_name(lvlm.hf_model.__class__)
    ids, positions = prompt.input_ids[:, start:stop], prompt.position_ids[..., start:stop]
    if drafted:
        ids = torch.cat([ids, upload([drafted], ids.device)], dim=1)
        later = prompt.next_position + torch.arange(more, device=ids.device)
        positions = torch.cat([positions, later.expand(*positions.shape[:-1], more)], dim=-1)
    with patches_by_products(lvlm), batched_windows(lvlm), recorded_vision(lvlm, prompt), _last_hidden(lvlm) as kept:
        out = lvlm.hf_model(
            input_ids=ids,
            attention_mask=ids.new_ones(1, stop + more),
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1 + more,
            acs_attending=noted,
            **{name: cache},
            **(prompt.vision if start == 0 else {}),
        )
    cache = getattr(out, name)
    queries = torch.stack(noted.layers)[:, 0]  # (L, 1 + q, K, D)
    logits = out.logits[0]  # (1 + q, V)
    opening = Opening(drafted, _segment(cache, stop, stop + more), queries[:, 1:], logits[1:]) if drafted else None
    return cache, PromptEnd(_segment(cache, start, stop), logits[0], queries[:, 0], opening, kept[0][0, 0])


@contextmanager
def _last_hidden(lvlm: LVLM) -> Iterator[list[torch.Tensor]]:
    """Note what the output layer reads in a forward: (1, 1 + q, D) last hidden states of the tokens whose logits are
    computed. They are there in any case."""
    kept: list[torch.Tensor] = []
    hook = lvlm.hf_model.get_output_embeddings().register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    try:
        yield kept
    finally:
        hook.remove()


def _segment(cache: Any, start: int, stop: int) -> CacheSegment:
    """Return the tokens of a cache from ``start`` to ``stop``; copied if they are not its first, which other tokens may
    follow."""
    keep = (lambda t: t[0, :, start:stop].clone()) if start else (lambda t: t[0, :, :stop])
    return CacheSegment(
        tuple(keep(layer.keys) for layer in cache.layers), tuple(keep(layer.values) for layer in cache.layers)
    )
