"""The ways of answering that are compared. All are made to write the same tokens, so that the work is equal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from acs_bench.errors import BenchError
from acs_core.attention import AttentionNeeds, Evidence, capture
from acs_core.candidates import find_candidates
from acs_core.drawing import Forced
from acs_core.geometry import Box
from acs_core.lvlm.base import LVLM, Prompt
from acs_core.reading import read
from acs_core.sampling import sample, write
from acs_core.selection import Selector
from acs_core.types import Candidate, SamplingConfig


@dataclass(frozen=True)
class Work:
    """What every method does: ``responses`` (N rows of T - 1 token ids, then an end token) to ``prompt``, one
    candidate a response, its coordinates stated by the tokens ``coordinates``."""

    lvlm: LVLM
    prompt: Prompt
    responses: tuple[tuple[int, ...], ...]
    coordinates: tuple[int, int, int, int]

    @classmethod
    def of(cls, lvlm: LVLM, prompt: Prompt, words: Sequence[int], samples: int, new_tokens: int) -> Work:
        """Responses of ``new_tokens`` tokens out of ``words``, each another, with coordinates spread over them."""
        rows = tuple(
            tuple(words[(row + 3 * step) % len(words)] for step in range(new_tokens - 1)) for row in range(samples)
        )
        x1, y1, x2, y2 = (round((k + 1) * (new_tokens - 2) / 5) for k in range(4))
        return cls(lvlm, prompt, rows, (x1, y1, x2, y2))

    @property
    def new_tokens(self) -> int:
        """Tokens of each response, its end token counted."""
        return len(self.responses[0]) + 1

    def candidates(self) -> list[Candidate]:
        """One for each response."""
        box = Box(0.0, 0.0, 10.0, 10.0)
        return [Candidate(box, "", row, 0, self.coordinates) for row in range(len(self.responses))]


@dataclass(frozen=True)
class Ours:
    """What our way gave, and the milliseconds of its stages."""

    evidence: Evidence
    qualities: np.ndarray
    stages_ms: dict[str, float]


def eager(work: Work) -> np.ndarray:
    """``generate(num_return_sequences=N, output_attentions=True)`` with eager attention, and the coordinates' maps
    from what it returns: (N, 4, L, K, Hv, Wv)."""
    with _attention(work.lvlm, "eager"):
        out = _generate(work, len(work.responses), output_attentions=True)
    columns = slice(*work.prompt.map_slice)
    maps = [
        # A step has for each layer (N, K, queries, keys); the last query emitted the step's token.
        torch.stack([layer[:, :, -1, columns].float().cpu() for layer in out.attentions[step]], dim=1)
        for step in work.coordinates
    ]
    return torch.stack(maps, dim=1).unflatten(-1, work.prompt.grid).numpy()


def plain(work: Work) -> None:
    """N responses by ``generate`` with SDPA, no attention."""
    with _attention(work.lvlm, "sdpa"):
        _generate(work, len(work.responses))


def greedy(work: Work) -> None:
    """One response by ``generate`` with SDPA."""
    with _attention(work.lvlm, "sdpa"):
        _generate(work, 1)


def ours(work: Work, selector: Selector) -> Ours:
    """N responses, the attention that ``selector`` needs, and its qualities."""
    candidates = work.candidates()
    lvlm = work.lvlm
    clock = _Laps(lvlm.device)
    reading = read(lvlm, [work.prompt])
    clock.lap("reading")
    draw = Forced(work.responses, lvlm.eos_ids[0])
    (samples,) = write(lvlm, reading, draw, len(work.responses), work.new_tokens)
    clock.lap("sampling")
    evidence = capture(lvlm, work.prompt, samples, candidates, selector.needs)
    clock.lap("attention")
    qualities = selector.qualities(candidates, evidence, work.prompt.image_size)
    clock.lap("selection")
    return Ours(evidence, qualities, clock.laps)


def our_maps(work: Work) -> np.ndarray:
    """All maps as our way sees them, on their own grid: (N, 4, L, K, Hv, Wv)."""
    (samples,) = write(
        work.lvlm,
        read(work.lvlm, [work.prompt]),
        Forced(work.responses, work.lvlm.eos_ids[0]),
        len(work.responses),
        work.new_tokens,
    )
    return maps_of(capture(work.lvlm, work.prompt, samples, work.candidates(), AttentionNeeds(maps=True)))


def look_at(lvlm: LVLM, prompt: Prompt, responses: Sequence[Sequence[int]], needs: AttentionNeeds) -> Evidence:
    """The attention at the C boxes in ``responses``, token ids that the model is made to write."""
    samples = sample(lvlm, prompt, SamplingConfig(num_samples=len(responses)), forced=responses)
    candidates, _ = find_candidates(lvlm, prompt, samples)
    return capture(lvlm, prompt, samples, candidates, needs)


def maps_of(evidence: Evidence) -> np.ndarray:
    """Its maps (C, 4, L, K, Hv, Wv).

    Raises:
        BenchError: it has none.
    """
    if evidence.maps is None:
        raise BenchError("no maps were captured although they were asked for")
    return evidence.maps


def _generate(work: Work, n: int, **settings: Any) -> Any:
    lvlm, prompt = work.lvlm, work.prompt
    inputs = {"input_ids": prompt.input_ids, "attention_mask": torch.ones_like(prompt.input_ids), **prompt.vision}
    if lvlm.family == "qwen2_5_vl":
        inputs["mm_token_type_ids"] = (prompt.input_ids == lvlm.hf_model.config.image_token_id).int()
    # One response is the greedy one, which does without the cuts.
    drawn: dict[str, Any] = {"do_sample": True, "temperature": 1.0, "top_p": 0.9, "top_k": 100}
    config = GenerationConfig(
        **(drawn if n > 1 else {"do_sample": False}),
        num_return_sequences=n,
        max_new_tokens=work.new_tokens,
        eos_token_id=list(lvlm.eos_ids),
        pad_token_id=lvlm.pad_id,
        return_dict_in_generate=True,
        **settings,
    )
    force = _Force([*work.responses[:n]], prompt.length, lvlm.eos_ids[0])
    with torch.inference_mode():
        return lvlm.hf_model.generate(**inputs, generation_config=config, logits_processor=LogitsProcessorList([force]))


class _Force(LogitsProcessor):
    """Leaves only the given token at every step, the end token after the last one."""

    def __init__(self, rows: Sequence[Sequence[int]], prompt_length: int, eos_id: int) -> None:
        self._rows, self._start, self._eos = rows, prompt_length, eos_id

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = input_ids.shape[1] - self._start
        wanted = torch.tensor([row[step] if step < len(row) else self._eos for row in self._rows], device=scores.device)
        return torch.full_like(scores, -torch.inf).scatter(1, wanted[:, None], 0.0)


@contextmanager
def _attention(lvlm: LVLM, implementation: str) -> Iterator[None]:
    lvlm.hf_model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        lvlm.hf_model.set_attn_implementation("sdpa")


class _Laps:
    """Milliseconds between calls, of work that the device has done."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.laps[stage] = (now - self._last) * 1e3
        self._last = now
