"""Draws N responses to one prompt, and reads the prompt only once.

``generate(num_return_sequences=N)`` runs the language model over the prompt N times. Here the prompt is read at batch
one, its key-value cache is repeated, and stock ``generate`` goes on from there, without pixels. Attention is not
recorded on the way; :mod:`acs_core.attention` looks once, afterwards, into the cache that is handed on.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from acs_core.errors import Cancelled
from acs_core.lvlm.base import LVLM, Prompt
from acs_core.types import SamplingConfig, ShouldStop


@dataclass(frozen=True)
class Samples:
    """N responses to one prompt.

    ``sequences`` (N, S + T): prompt and response ids, shorter responses filled with pads. ``response_ids[i]`` are the
    tokens of response i without its end token; ``finished[i]`` says whether it had one. ``cache`` holds keys and
    values of the first S + T - 1 tokens of every row. ``seed`` repeats the draw. ``token_entropy[i]`` is the entropy
    in nats of the vocabulary distribution (before temperature and cuts) at each token of response i, if asked for.
    """

    sequences: torch.Tensor
    prompt_length: int
    response_ids: tuple[tuple[int, ...], ...]
    finished: tuple[bool, ...]
    cache: Any
    seed: int
    token_entropy: tuple[tuple[float, ...], ...] | None = None

    @property
    def num_samples(self) -> int:
        """Number of responses N."""
        return len(self.response_ids)


def sample(
    lvlm: LVLM,
    prompt: Prompt,
    config: SamplingConfig,
    should_stop: ShouldStop | None = None,
    forced: Sequence[Sequence[int]] | None = None,
    token_entropy: bool = False,
) -> Samples:
    """N responses drawn with the temperature, top-p, top-k and seed of ``config`` (paper section 5.1).

    The caller's random state stays as it is. A seed repeats as long as no other thread draws from torch's own
    generators meanwhile. ``forced`` gives the token ids of every response instead (one row per sample, end token
    added): it is how known answers are looked at.

    Raises:
        Cancelled: ``should_stop`` returned True, asked once per token.
        ValueError: ``forced`` has another number of rows than ``config.num_samples``.
    """
    if forced is not None and len(forced) != config.num_samples:
        raise ValueError(f"forced has {len(forced)} rows for {config.num_samples} samples: they must be as many")
    drawn: dict[str, Any] = {
        "do_sample": forced is None,
        "max_new_tokens": config.max_new_tokens if forced is None else max(map(len, forced)) + 1,
    }
    if forced is None:
        drawn |= {"temperature": config.temperature, "top_p": config.top_p, "top_k": config.top_k}
    seed = secrets.randbits(31) if config.seed is None else config.seed
    return _generate(lvlm, prompt, config.num_samples, drawn, seed, should_stop, forced, token_entropy)


def greedy(
    lvlm: LVLM,
    prompt: Prompt,
    max_new_tokens: int = 256,
    should_stop: ShouldStop | None = None,
    token_entropy: bool = False,
) -> Samples:
    """The most likely response, N = 1, without any randomness (seed 0). Raises Cancelled."""
    drawn = {"do_sample": False, "max_new_tokens": max_new_tokens}
    return _generate(lvlm, prompt, 1, drawn, 0, should_stop, None, token_entropy)


def _generate(
    lvlm: LVLM,
    prompt: Prompt,
    n: int,
    drawn: dict[str, Any],
    seed: int,
    should_stop: ShouldStop | None,
    forced: Sequence[Sequence[int]] | None,
    token_entropy: bool,
) -> Samples:
    settings = GenerationConfig(
        **drawn, eos_token_id=list(lvlm.eos_ids), pad_token_id=lvlm.pad_id, return_dict_in_generate=True
    )
    processors = LogitsProcessorList()
    entropies = _VocabularyEntropy()
    if token_entropy:
        processors.append(entropies)
    if forced is not None:
        processors.append(_Force(forced, prompt.length, lvlm.eos_ids[0]))
    stop = StoppingCriteriaList([_CancelWhen(should_stop)] if should_stop else [])
    with lvlm.lock, torch.inference_mode(), _seeded(seed, lvlm.device):
        if should_stop and should_stop():
            raise Cancelled("stopped before the model read the prompt")
        cache = _prefill(lvlm, prompt, n)
        batch = prompt.position_ids.ndim - 2  # (1, S) or (3, 1, S)
        out = lvlm.hf_model.generate(
            input_ids=prompt.input_ids.repeat(n, 1),
            attention_mask=torch.ones_like(prompt.input_ids).repeat(n, 1),
            position_ids=prompt.position_ids.repeat_interleave(n, dim=batch),
            past_key_values=cache,
            generation_config=settings,
            logits_processor=processors,
            stopping_criteria=stop,
        )
    ids, finished = _cut(out.sequences[:, prompt.length :].tolist(), lvlm.eos_ids)
    return Samples(
        sequences=out.sequences,
        prompt_length=prompt.length,
        response_ids=ids,
        finished=finished,
        cache=out.past_key_values,
        seed=seed,
        token_entropy=entropies.per_response(ids) if token_entropy else None,
    )


def _prefill(lvlm: LVLM, prompt: Prompt, n: int) -> Any:
    """Cache of the prompt without its last token (which ``generate`` feeds, to get the first logits), n rows."""
    cache = lvlm.hf_model(
        input_ids=prompt.input_ids,
        attention_mask=torch.ones_like(prompt.input_ids),
        position_ids=prompt.position_ids,
        use_cache=True,
        logits_to_keep=1,
        **prompt.vision,
    ).past_key_values
    cache.crop(-1)
    cache.batch_repeat_interleave(n)
    return cache


def _cut(rows: list[list[int]], eos_ids: Sequence[int]) -> tuple[tuple[tuple[int, ...], ...], tuple[bool, ...]]:
    """Rows up to their first end token, and whether there was one."""
    ends = [next((k for k, token in enumerate(row) if token in eos_ids), None) for row in rows]
    return tuple(tuple(row[:end]) for row, end in zip(rows, ends, strict=True)), tuple(e is not None for e in ends)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds the generators that sampling draws from, the CPU's and the model's GPU's, and puts them back after."""
    gpus = [device.index if device.index is not None else torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            torch.cuda.default_generators[gpu].manual_seed(seed)
        yield


class _CancelWhen(StoppingCriteria):
    def __init__(self, should_stop: ShouldStop) -> None:
        self._should_stop = should_stop

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        if self._should_stop():
            raise Cancelled("stopped while the model was answering")
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


class _Force(LogitsProcessor):
    """Leaves only the given token at every step, the end token after the last one."""

    def __init__(self, rows: Sequence[Sequence[int]], prompt_length: int, eos_id: int) -> None:
        self._rows, self._start, self._eos = rows, prompt_length, eos_id

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = input_ids.shape[1] - self._start
        wanted = torch.tensor([row[step] if step < len(row) else self._eos for row in self._rows], device=scores.device)
        return torch.full_like(scores, -torch.inf).scatter(1, wanted[:, None], 0.0)


class _VocabularyEntropy(LogitsProcessor):
    """Notes the entropy of each step's distribution (N, V) and passes the scores on unchanged."""

    def __init__(self) -> None:
        self._steps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._steps.append(torch.special.entr(scores.float().softmax(dim=-1)).sum(dim=-1))
        return scores

    def per_response(self, ids: Sequence[Sequence[int]]) -> tuple[tuple[float, ...], ...]:
        rows = torch.stack(self._steps, dim=1).tolist()  # (N, T)
        return tuple(tuple(row[: len(tokens)]) for row, tokens in zip(rows, ids, strict=True))
