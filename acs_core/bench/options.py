"""Costs with and without what is computed in another way on a GPU, each with its plain twin: the attention kernels of a
recorded decode step, and the recorded vision tower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from acs_core.bench.limits import SHORT_TOKENS
from acs_core.bench.measure import measure
from acs_core.bench.methods import Work
from acs_core.bench.subject import Subject
from acs_core.generation.cuda_graph import attention_kernel
from acs_core.generation.generate import generate
from acs_core.generation.prefill import prefill
from acs_core.generation.token_sampler import TeacherForcing
from acs_core.lvlm.base import LVLM

KERNEL, VISION = "a decode step, attention by kernels", "reading the prompt, vision tower recorded"
ON, OFF = "on", "off"
NO_GPU, DOES_NOT_RUN = "unmeasured: needs a GPU", "unmeasured: does not run here"
NO_TRITON = "unmeasured: needs Triton, and float16, bfloat16 or float32"


@dataclass(frozen=True)
class OptionRow:
    """Cost with an option on or off.

    Attributes:
        option: what is measured, and the option.
        setting: "on" or "off".
        ms: milliseconds; None if it was not measured.
        note: reason why it was not measured.
    """

    option: str
    setting: str
    ms: float | None
    note: str = ""


@dataclass(frozen=True)
class OptionsReport:
    """Costs of every option, on and off.

    Attributes:
        samples: number of responses N of a decode step.
        rows: the costs.
    """

    samples: int
    rows: tuple[OptionRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {"samples": self.samples, "rows": [vars(row) for row in self.rows]}


def measure_options(subject: Subject, samples: int, new_tokens: int, repeats: int = 3) -> OptionsReport:
    """Measure a decode step of ``samples`` rows and the reading of the prompt, each with its option on and off.

    On a CPU, on which nothing is recorded, the rows with an option on have no numbers.
    """
    lvlm, rows = subject.lvlm, []
    for on in (True, False):
        with _set(lvlm, kernel=on):
            missing = _no_kernel(lvlm) if on else ""
            ms = None if missing else _step_ms(subject, samples, new_tokens, repeats)
            missing = missing or (DOES_NOT_RUN if lvlm.graphs.kernel is not on or not lvlm.graphs.usable else "")
        rows.append(_row(KERNEL, on, ms, missing))
    for on in (True, False):
        with _set(lvlm, vision=on):
            missing = "" if _records(lvlm) or not on else NO_GPU
            ms = None if missing else _reading_ms(subject, repeats)
            missing = missing or (DOES_NOT_RUN if lvlm.graphs.vision is not on else "")
        rows.append(_row(VISION, on, ms, missing))
    return OptionsReport(samples, tuple(rows))


def _row(option: str, on: bool, ms: float | None, missing: str) -> OptionRow:
    return OptionRow(option, ON if on else OFF, None if missing else ms, missing)


@contextmanager
def _set(lvlm: LVLM, kernel: bool | None = None, vision: bool | None = None) -> Iterator[None]:
    """Set options in the block, with nothing recorded before and kept afterwards."""
    graphs = lvlm.graphs
    before = graphs.kernel, graphs.vision
    graphs.free()
    graphs.kernel, graphs.vision = kernel, vision
    try:
        yield
    finally:
        graphs.free()
        graphs.kernel, graphs.vision = before


def _records(lvlm: LVLM) -> bool:
    return lvlm.device.type == "cuda"


def _no_kernel(lvlm: LVLM) -> str:
    if not _records(lvlm):
        return NO_GPU
    try:
        return "" if attention_kernel(lvlm) else NO_TRITON
    except ImportError:
        return NO_TRITON


def _step_ms(subject: Subject, samples: int, new_tokens: int, repeats: int) -> float:
    """Milliseconds of a step, from the difference of long and short responses."""
    lvlm = subject.lvlm
    state = prefill(lvlm, [subject.prompts[0]])

    def write(tokens: int) -> None:
        work = Work.of(lvlm, subject.prompts[0], subject.words, samples, tokens)
        generate(lvlm, state, TeacherForcing(work.responses, lvlm.eos_ids[0]), samples, new_tokens)

    write(new_tokens)  # records
    long, short = (measure(partial(write, n), lvlm.device, repeats).seconds for n in (new_tokens, SHORT_TOKENS))
    return (long - short) / (new_tokens - SHORT_TOKENS) * 1e3


def _reading_ms(subject: Subject, repeats: int) -> float:
    lvlm, prompt = subject.lvlm, subject.prompts[0]
    for _ in range(2):  # the second time, the tower is recorded
        prefill(lvlm, [prompt])
    return measure(lambda: prefill(lvlm, [prompt]), lvlm.device, repeats).seconds * 1e3
