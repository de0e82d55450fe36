"""Several phrases about one picture: together, against one call each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from acs_bench.measure import measure
from acs_bench.subject import Subject
from acs_core.attention import capture
from acs_core.geometry import Box
from acs_core.lvlm.base import Prompt
from acs_core.reading import read
from acs_core.sampling import Samples, draw_more
from acs_core.types import Candidate, SamplingConfig


@dataclass(frozen=True)
class PhrasesReport:
    """K phrases: seconds in one call and in K calls, and how many of all responses were the same both ways."""

    phrases: int
    samples: int
    together_s: float
    apart_s: float
    same_responses: int

    @property
    def ratio(self) -> float:
        """Together over apart."""
        return self.together_s / self.apart_s

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return {**vars(self), "ratio": self.ratio}


def compare_phrases(subject: Subject, samples: int, new_tokens: int, repeats: int = 1) -> PhrasesReport:
    """Draws ``samples`` responses of up to ``new_tokens`` tokens to each of the subject's prompts, with one seed, and
    captures the attention of the first coordinate for ACS-Learned: together, then apart."""
    config = SamplingConfig(num_samples=samples, temperature=1.0, top_p=1.0, max_new_tokens=new_tokens)
    learned = subject.learned()
    lvlm = subject.lvlm

    def answer(prompts: Sequence[Prompt]) -> list[Samples]:
        drawn = draw_more(lvlm, read(lvlm, prompts), config, [1] * len(prompts), range(samples))
        for prompt, some in zip(prompts, drawn, strict=True):
            candidates = [_candidate(i, ids) for i, ids in enumerate(some.response_ids)]
            evidence = capture(lvlm, prompt, some, candidates, learned.needs)
            learned.qualities(candidates, evidence, prompt.image_size)
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
