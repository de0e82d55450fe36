"""The compared ways of answering. All are forced to write the same tokens, so that the work is equal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from acs_core.attention import AttentionNeeds, AttentionRecord, capture
from acs_core.errors import BenchError
from acs_core.generation.candidates import find_candidates
from acs_core.generation.generate import generate
from acs_core.generation.prefill import prefill
from acs_core.generation.sample import sample_responses
from acs_core.generation.speculation import AnswerDrafts
from acs_core.generation.token_sampler import TeacherForcing, TokenSampler, TopPSampler
from acs_core.geometry import Box
from acs_core.lvlm.base import LVLM, Prompt
from acs_core.selection.registry import Selector
from acs_core.types import Candidate, SamplingConfig

DRAWN = SamplingConfig(temperature=1.0, top_p=0.9, top_k=100)  # how every method draws


@dataclass(frozen=True)
class Work:
    """Work that is the same for every method.

    Attributes:
        lvlm: the model.
        prompt: the prompt.
        responses: N rows of at most T - 1 token ids, which an end token follows; each states one candidate.
        coordinates: indices of the four coordinates' tokens.
    """

    lvlm: LVLM
    prompt: Prompt
    responses: tuple[tuple[int, ...], ...]
    coordinates: tuple[int, int, int, int]

    @classmethod
    def of(cls, lvlm: LVLM, prompt: Prompt, words: Sequence[int], samples: int, new_tokens: int) -> Work:
        """Return work with ``samples`` different responses of ``new_tokens`` tokens from ``words``, and coordinates
        spread over them."""
        rows = tuple(
            tuple(words[(row + 3 * step) % len(words)] for step in range(new_tokens - 1)) for row in range(samples)
        )
        return cls.writing(lvlm, prompt, rows)

    @classmethod
    def writing(cls, lvlm: LVLM, prompt: Prompt, responses: Sequence[Sequence[int]]) -> Work:
        """Return work with the given responses (token ids without an end token), and coordinates spread over the
        shortest of them."""
        shortest = min(map(len, responses))
        x1, y1, x2, y2 = (round((k + 1) * (shortest - 1) / 5) for k in range(4))
        return cls(lvlm, prompt, tuple(map(tuple, responses)), (x1, y1, x2, y2))

    @property
    def new_tokens(self) -> int:
        """Number of tokens T of the longest response, including its end token."""
        return max(map(len, self.responses)) + 1

    def candidates(self) -> list[Candidate]:
        """Return one candidate per response."""
        box = Box(0.0, 0.0, 10.0, 10.0)
        return [Candidate(box, "", row, 0, self.coordinates) for row in range(len(self.responses))]


@dataclass(frozen=True)
class Ours:
    """Result of our method, and the time of each stage in milliseconds."""

    record: AttentionRecord
    qualities: np.ndarray
    stages_ms: dict[str, float]


def eager(work: Work) -> np.ndarray:
    """Run ``generate(num_return_sequences=N, output_attentions=True)`` with eager attention; returns the coordinates'
    maps (N, 4, L, K, Hv, Wv)."""
    with attention_as(work.lvlm, "eager"):
        out = _generate(work, len(work.responses), output_attentions=True)
    columns = slice(*work.prompt.map_slice)
    maps = [
        # Each step has (N, K, queries, keys) for each layer; the last query emits the step's token.
        torch.stack([layer[:, :, -1, columns].float().cpu() for layer in out.attentions[step]], dim=1)
        for step in work.coordinates
    ]
    return torch.stack(maps, dim=1).unflatten(-1, work.prompt.grid).numpy()


def plain(work: Work, **settings: Any) -> Any:
    """Generate N responses by ``generate`` with SDPA, without attention, and with further ``settings`` of it; returns
    its output."""
    with attention_as(work.lvlm, "sdpa"):
        return _generate(work, len(work.responses), **settings)


def greedy(work: Work) -> None:
    """Generate one response by ``generate`` with SDPA."""
    with attention_as(work.lvlm, "sdpa"):
        _generate(work, 1)


@dataclass(frozen=True)
class DrawnThenForced:
    """Selection of given tokens after a token has been drawn at each place, so that the cost of drawing counts.

    Attributes:
        drawn: draws tokens, which are dropped.
        forced: gives the tokens.
    """

    drawn: TokenSampler
    forced: TokenSampler

    @classmethod
    def of(cls, work: Work) -> DrawnThenForced:
        """Return the selection of the responses of ``work``, drawn as all methods draw."""
        drawn = TopPSampler.of(replace(DRAWN, max_new_tokens=work.new_tokens), [0], range(len(work.responses)))
        return cls(drawn, TeacherForcing(work.responses, work.lvlm.eos_ids[0]))

    def pick(
        self, logits: torch.Tensor, rows: torch.Tensor, places: torch.Tensor, source: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See :class:`acs_core.generation.token_sampler.TokenSampler`."""
        self.drawn.pick(logits, rows, places, source)
        return self.forced.pick(logits, rows, places, source)


def ours(work: Work, selector: Selector, drafts: AnswerDrafts | None = None, drawing: bool = False) -> Ours:
    """Generate N responses with the attention that ``selector`` needs, and its qualities.

    Args:
        work: the work.
        selector: the selector.
        drafts: drafts of the responses; None to decode token by token.
        drawing: whether tokens are also drawn, which costs time and does not change them.
    """
    candidates = work.candidates()
    lvlm = work.lvlm
    draw = DrawnThenForced.of(work) if drawing else TeacherForcing(work.responses, lvlm.eos_ids[0])
    clock = _Laps(lvlm.device)
    state = prefill(lvlm, [work.prompt], drafts=drafts)
    clock.lap("reading")
    (samples,) = generate(lvlm, state, draw, len(work.responses), work.new_tokens, drafts=drafts)
    clock.lap("sampling")
    record = capture(lvlm, work.prompt, samples, candidates, selector.needs)
    clock.lap("attention")
    qualities = selector.qualities(candidates, record, work.prompt.image_size)
    clock.lap("selection")
    return Ours(record, qualities, clock.laps)


def our_maps(work: Work) -> np.ndarray:
    """Return all maps of our method on the native grid: (N, 4, L, K, Hv, Wv)."""
    (samples,) = generate(
        work.lvlm,
        prefill(work.lvlm, [work.prompt]),
        TeacherForcing(work.responses, work.lvlm.eos_ids[0]),
        len(work.responses),
        work.new_tokens,
    )
    return maps_of(capture(work.lvlm, work.prompt, samples, work.candidates(), AttentionNeeds(maps=True)))


def look_at(lvlm: LVLM, prompt: Prompt, responses: Sequence[Sequence[int]], needs: AttentionNeeds) -> AttentionRecord:
    """Capture the attention of the C boxes in ``responses``, token ids that the model is forced to write."""
    config = SamplingConfig(
        num_samples=len(responses), speculation=False
    )  # the same forwards whatever was asked before
    samples = sample_responses(lvlm, prompt, config, forced=responses)
    candidates, _ = find_candidates(lvlm, prompt, samples)
    return capture(lvlm, prompt, samples, candidates, needs)


def maps_of(record: AttentionRecord) -> np.ndarray:
    """Return the maps of ``record``, (C, 4, L, K, Hv, Wv).

    Raises:
        BenchError: it has none.
    """
    if record.maps is None:
        raise BenchError("no maps were captured although they were asked for")
    return record.maps


def _generate(work: Work, n: int, **settings: Any) -> Any:
    lvlm, prompt = work.lvlm, work.prompt
    inputs = {"input_ids": prompt.input_ids, "attention_mask": torch.ones_like(prompt.input_ids), **prompt.vision}
    inputs |= lvlm.adapter.generate_inputs(lvlm.hf_model, prompt.input_ids)
    config = generation_config(work, n, num_return_sequences=n, **settings)
    with torch.inference_mode():
        return lvlm.hf_model.generate(**inputs, generation_config=config, logits_processor=forced_tokens(work, n))


def generation_config(work: Work, n: int, **settings: Any) -> GenerationConfig:
    """Return the settings of ``generate`` for the first ``n`` responses of ``work``; a single one is greedy."""
    drawn = {"temperature": DRAWN.temperature, "top_p": DRAWN.top_p, "top_k": DRAWN.top_k} if n > 1 else {}
    return GenerationConfig(
        do_sample=n > 1,
        max_new_tokens=work.new_tokens,
        eos_token_id=list(work.lvlm.eos_ids),
        pad_token_id=work.lvlm.pad_id,
        return_dict_in_generate=True,
        **drawn,
        **settings,
    )


def forced_tokens(work: Work, n: int) -> LogitsProcessorList:
    """Return the logits processor by which ``generate`` writes the first ``n`` responses of ``work``."""
    return LogitsProcessorList([_Force([*work.responses[:n]], work.prompt.length, work.lvlm.eos_ids[0])])


class _Force(LogitsProcessor):
    """Logits processor that allows only the given token at every step, and the end token after the last one."""

    def __init__(self, rows: Sequence[Sequence[int]], prompt_length: int, eos_id: int) -> None:
        self._rows, self._start, self._eos = rows, prompt_length, eos_id

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = input_ids.shape[1] - self._start
        wanted = torch.tensor([row[step] if step < len(row) else self._eos for row in self._rows], device=scores.device)
        return torch.full_like(scores, -torch.inf).scatter(1, wanted[:, None], 0.0)


@contextmanager
def attention_as(lvlm: LVLM, implementation: str) -> Iterator[None]:
    """Let the stock model use an attention ``implementation`` of transformers while the block runs."""
    lvlm.hf_model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        lvlm.hf_model.set_attn_implementation("sdpa")


class _Laps:
    """Milliseconds between calls, including queued work of the device."""

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
