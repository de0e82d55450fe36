"""Comparison of whole calls with those of other engines, side by side in one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from acs_core.bench.goals import CPU_GOALS, Goal, with_values
from acs_core.bench.markdown import MAX_CELL
from acs_core.bench.measure import Measurement, measure, size_mb
from acs_core.bench.methods import Ours, Work, eager, greedy, ours, plain
from acs_core.bench.peers import continuous_batching, ctranslate2_generator, ours_on_text, prefilled_once
from acs_core.bench.subject import Subject
from acs_core.bench.whole_call import OTHER_PHRASE, WholeCall, text_alone
from acs_core.errors import BenchError
from acs_core.generation.speculation import AnswerDrafts
from acs_core.plain_text import one_line
from acs_core.selection.registry import Selector

WAYS = {
    "a": "HF generate, eager, output_attentions",
    "b": "HF generate, SDPA, no attention",
    "c": "HF generate, greedy, one response",
    "d": "ours, ACS-Free",
    "e": "ours, ACS-Learned, all maps",
    "j": "as (e), token by token",
    "f": "HF generate, prompt prefilled once, cache repeated",
    "i": "language model alone: ours, token by token, no attention",
    "g": "language model alone: HF continuous batching",
    "h": "language model alone: CTranslate2",
}
OUT_OF_MEMORY, NO_TIME = "out of memory", "left out: the time of this part was over"
_OTHERS = "gh"  # software of others, which may fail in ways of its own
_WARM = 1_000_000  # number of the first call that is not measured
_GIB = 2**30
_PAIRS = (*(("a", "e"), ("e", "b"), ("f", "e"), ("e", "c")), *(("d", "e"), ("j", "e"), ("i", "g"), ("i", "h")))


@dataclass(frozen=True)
class WholeRow:
    """Cost of one way.

    Attributes:
        way: letter of the way.
        samples: number of responses.
        seconds: wall time of a call; None if it was not measured.
        added_mb: peak memory in MB in addition to the model's own; None if unknown.
        tokens_per_s: tokens written per second; None if it was not measured.
        note: reason why it was not measured.
    """

    way: str
    samples: int
    seconds: float | None
    added_mb: float | None
    tokens_per_s: float | None
    note: str = ""


@dataclass(frozen=True)
class WholeReport:
    """Costs of whole calls about one image.

    Attributes:
        threads: number of CPU threads.
        image_tokens: number of image tokens.
        prompt_tokens: number of tokens of the prompt.
        new_tokens: number of tokens of a response.
        rows: cost of each way.
        stages_ms: time of each stage of way (e) in milliseconds.
        ratios: ratios between ways by name.
        weights_mb: size of the model's weights in MB.
    """

    threads: int
    image_tokens: int
    prompt_tokens: int
    new_tokens: int
    rows: tuple[WholeRow, ...]
    stages_ms: dict[str, float]
    ratios: dict[str, float]
    weights_mb: float

    @property
    def goals(self) -> tuple[Goal, ...]:
        """The goals for a CPU, with the ratios of this run."""
        return with_values(CPU_GOALS, self.ratios)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {**vars(self), "rows": [vars(row) for row in self.rows]}


def compare_whole(
    subject: Subject,
    frame: tuple[int, int],
    samples: int,
    ways: str = "".join(WAYS),
    repeats: int = 1,
    threads: int = 1,
    say: Callable[[str], None] = lambda _: None,
    may_go_on: Callable[[], bool] = lambda: True,
) -> WholeReport:
    """Measure whole calls about an image of noise with N responses; beside ``h``, also those of ``e``, ``i`` and ``h``
    with one.

    Args:
        subject: the model.
        frame: (width, height) of the image in pixels.
        samples: number of responses N.
        ways: letters of :data:`WAYS`.
        repeats: runs of each measurement; the median is reported.
        threads: number of CPU threads, which is set.
        say: called with what is measured next.
        may_go_on: asked before each way; if not, the row says that it was left out.
    """
    torch.set_num_threads(threads)
    lvlm = subject.lvlm
    call = WholeCall.about(lvlm, frame)
    with _Ways(subject, call, repeats, threads) as runs:
        measured: dict[tuple[str, int], Measurement[Any] | str] = {}
        singles = [(way, 1) for way in "eih" if way in ways and "h" in ways and samples > 1]
        for way, n in [*((way, samples) for way in ways), *singles]:
            if not may_go_on():
                measured[way, n] = NO_TIME
                continue
            say(f"({way}) {WAYS[way]}" + (", N = 1" if n < samples else ""))
            measured[way, n] = _measured(way, partial(runs.set_up, way, n), lvlm.device, repeats)
        sample = runs.first_work()
    ran = {key: m for key, m in measured.items() if isinstance(m, Measurement)}
    own = ran.get(("e", samples))
    return WholeReport(
        threads,
        int((sample.prompt.input_ids == lvlm.hf_model.config.image_token_id).sum()),
        sample.prompt.length,
        sample.new_tokens,
        tuple(_row(way, n, m, sample.new_tokens) for (way, n), m in measured.items()),
        own.value.stages_ms if own else {},
        _ratios(ran, samples, own.value.stages_ms if own else {}),
        size_mb(lvlm.hf_model),
    )


def _measured(
    way: str, set_up: Callable[[], Callable[[], Any]], device: torch.device, repeats: int
) -> Measurement[Any] | str:
    """Return the measurement, or why there is none."""
    try:
        return measure(set_up(), device, repeats)
    except torch.OutOfMemoryError:
        return OUT_OF_MEMORY
    except BenchError as error:
        return str(error)
    except Exception as error:
        if way not in _OTHERS:
            raise
        return one_line(f"does not run here: {type(error).__name__}: {error}", MAX_CELL)


class _Ways:
    """The ways, each with its set-up and warm-up; a context manager that frees what they keep.

    Args:
        subject: the model.
        call: the calls.
        repeats: number of measured calls of each way.
        threads: CPU threads of CTranslate2.
    """

    def __init__(self, subject: Subject, call: WholeCall, repeats: int, threads: int) -> None:
        self._subject, self._call, self._repeats, self._threads = subject, call, repeats, threads
        self._stack = ExitStack()
        self._ctranslate2: Callable[[Work], Any] | None = None

    def __enter__(self) -> _Ways:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def first_work(self) -> Work:
        """Return the work of the first measured call, with one response."""
        return self._call.work(1, 0)

    def set_up(self, way: str, samples: int) -> Callable[[], Any]:
        """Return the call to measure, after one that is not measured.

        Raises:
            BenchError: it cannot run.
        """
        numbers = iter(range(self._repeats))

        def work() -> Work:
            return self._call.work(samples, next(numbers))

        def on_text() -> Work:
            return text_alone(work())

        free, learned = self._subject.free(), self._subject.learned()
        if way in "dej":
            drafts = self._warmed_up(samples, learned, way != "j")
            return lambda: self._ours(work, free if way == "d" else learned, drafts)
        if way == "g":
            sample = self._stack.enter_context(_closing(continuous_batching, text_alone(self._call.work(samples, 0))))
            sample()
            return sample
        if way == "h":
            if self._ctranslate2 is None:
                made = ctranslate2_generator(self._subject.lvlm, self._threads)
                self._ctranslate2 = self._stack.enter_context(made)
            run, asked = self._ctranslate2, text_alone(self._call.work(samples, 0))
            run(asked)
            return lambda: run(asked)
        warm = self._call.work(min(samples, 2), _WARM)
        if way == "i":
            ours_on_text(text_alone(warm))
            asked = text_alone(self._call.work(samples, 0))
            return lambda: ours_on_text(asked)
        if way == "a":
            _check_room(self._call.work(samples, _WARM))
        methods: dict[str, Callable[[Work], Any]] = {"a": eager, "b": plain, "c": greedy, "f": prefilled_once}
        methods["f" if way == "f" else "b"](warm)
        return lambda: methods[way](work())

    def _ours(self, work: Callable[[], Work], selector: Selector, drafts: AnswerDrafts | None) -> Ours:
        start = perf_counter()
        asked = work()
        prepared = (perf_counter() - start) * 1e3
        found = ours(asked, selector, drafts, drawing=True)
        return Ours(found.record, found.qualities, {"preparing": prepared, **found.stages_ms})

    def _warmed_up(self, samples: int, selector: Selector, drafting: bool) -> AnswerDrafts | None:
        """Write answers about another phrase, and return drafts that have learned the template of the answers from
        them; None if not ``drafting``. Every way has its own drafts: those of another way know its answers."""
        drafts = AnswerDrafts(self._call.tokenizer, self._call.lvlm.eos_ids) if drafting else None
        prompt = replace(self._call.prepare(), phrase=OTHER_PHRASE)
        for number in (_WARM, _WARM + 1):
            asked = Work.writing(self._call.lvlm, prompt, self._call.answers(samples, number, OTHER_PHRASE))
            ours(asked, selector, drafts, drawing=True)
        return drafts


@contextmanager
def _closing(make: Callable[[Work], Any], work: Work) -> Iterator[Callable[[], Any]]:
    with make(work) as sample:
        yield sample


def _check_room(work: Work) -> None:
    """Refuse eager attention whose matrices, which transformers keeps for the whole prompt, do not fit into memory.

    Raises:
        BenchError: they do not.
    """
    lvlm = work.lvlm
    size = next(lvlm.hf_model.parameters()).element_size()
    wanted = len(work.responses) * lvlm.num_layers * lvlm.num_heads * work.prompt.length**2 * size
    free = _free_bytes(lvlm.device)
    if free is not None and wanted > free:
        raise BenchError(f"needs {wanted / _GIB:.0f} GiB for attention matrices, {free / _GIB:.0f} are free")


def _free_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)


def _row(way: str, samples: int, measured: Measurement[Any] | str, tokens: int) -> WholeRow:
    if isinstance(measured, str):
        return WholeRow(way, samples, None, None, None, measured)
    written = tokens * (1 if way == "c" else samples)
    return WholeRow(way, samples, measured.seconds, measured.added_mb, written / measured.seconds)


def _ratios(ran: dict[tuple[str, int], Measurement[Any]], samples: int, stages: dict[str, float]) -> dict[str, float]:
    ratios = {}
    for top, bottom in _PAIRS:
        if (top, samples) in ran and (bottom, samples) in ran:
            ratios[f"time {top} / {bottom}"] = ran[top, samples].seconds / ran[bottom, samples].seconds
    for top in "ei":
        if (top, 1) in ran and ("h", 1) in ran:
            ratios[f"time {top} / h, N = 1"] = ran[top, 1].seconds / ran["h", 1].seconds
    if ("a", samples) in ran and ("e", samples) in ran:
        whole, own = ran["a", samples].added_mb, ran["e", samples].added_mb
        if whole and own is not None:
            ratios["added memory e / a"] = own / whole
    if stages:
        ratios["attention and selection / e"] = (stages["attention"] + stages["selection"]) / sum(stages.values())
    return ratios
