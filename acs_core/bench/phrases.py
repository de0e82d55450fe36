"""Comparison of several phrases about one image in one call with one call each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from acs_core.attention import capture
from acs_core.bench.measure import measure
from acs_core.bench.subject import Subject
from acs_core.generation.generate import Generations, draw_more
from acs_core.generation.prefill import prefill
from acs_core.geometry import Box
from acs_core.lvlm.base import Prompt
from acs_core.types import Candidate, SamplingConfig


@dataclass(frozen=True)
class PhrasesReport:
    """Comparison of K phrases in one call with K calls.

    Attributes:
        phrases: number of phrases K.
        samples: number of samples per phrase.
        together_s: seconds of one call.
        apart_s: seconds of K calls.
        same_responses: number of responses that are the same both ways.
    """

    phrases: int
    samples: int
    together_s: float
    apart_s: float
    same_responses: int

    @property
    def ratio(self) -> float:
        """``together_s`` divided by ``apart_s``."""
        return self.together_s / self.apart_s

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {**vars(self), "ratio": self.ratio}


def compare_phrases(subject: Subject, samples: int, new_tokens: int, repeats: int = 1) -> PhrasesReport:
    """Draw ``samples`` responses of up to ``new_tokens`` tokens to each of the subject's prompts, with one seed, and
    capture the attention of the first coordinate for ACS-Learned: in one call, then in one call each."""
    config = SamplingConfig(num_samples=samples, temperature=1.0, top_p=1.0, max_new_tokens=new_tokens)
    learned = subject.learned()
    lvlm = subject.lvlm

    def answer(prompts: Sequence[Prompt]) -> list[Generations]:
        drawn = draw_more(lvlm, prefill(lvlm, prompts), config, [1] * len(prompts), range(samples))
        for prompt, some in zip(prompts, drawn, strict=True):
            candidates = [_candidate(i, ids) for i, ids in enumerate(some.response_ids)]
            record = capture(lvlm, prompt, some, candidates, learned.needs)
            learned.qualities(candidates, record, prompt.image_size)
        return list(drawn)

    answer(subject.prompts[:1])
    together = measure(lambda: answer(subject.prompts), lvlm.device, repeats)
    apart = measure(lambda: [answer([prompt])[0] for prompt in subject.prompts], lvlm.device, repeats)
    same = sum(
        a == b
        for one, other in zip(together.value, apart.value, strict=True)
        for a, b in zip(one.response_ids, other.response_ids, strict=True)
    )
    return PhrasesReport(len(subject.prompts), samples, together.seconds, apart.seconds, same)


def _candidate(response: int, ids: Sequence[int]) -> Candidate:
    last = max(len(ids) - 1, 0)
    x1, y1, x2, y2 = (min(5 * (k + 1), last) for k in range(4))
    return Candidate(Box(0.0, 0.0, 10.0, 10.0), "", response, 0, (x1, y1, x2, y2))
