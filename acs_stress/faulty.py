"""A grounder that fails on demand: what a broken model or a full device does to a call, while it runs."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from acs_core.asked import GroundOptions
from acs_core.types import GroundingResult
from acs_ros.grounder_source import load_grounder
from acs_ros.parameters import Settings

SLOW_S = 3.0  # how long "hang" keeps the model from looking up
FIRST = 2  # forward of the language model's head, counted from 1, that fails first: even "it is not there" takes two
BOX_VARIABLE = "ACS_STRESS_FAULTS"
FAULTS = {
    "out of memory, once": "the device has no room in the middle of sampling; fewer responses have",
    "out of memory, always": "the device has no room for even one response",
    "NaN logits": "every logit is NaN from the second step on",
    "hang": f"one step takes {SLOW_S:g} s and looks at nothing",
    "error": "a RuntimeError in the middle of sampling",
    "endless": "the model writes the same digit until it may write no more",
}
FREEZE = "freeze"  # no fault of a call, whose end somebody waits for: nothing runs in the process any more


class FaultBox:
    """A folder through which one process tells another which fault comes next."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "next"

    def put(self, fault: str) -> None:
        """The next call of the model fails so.

        Raises:
            ValueError: there is no such fault.
        """
        known = (*FAULTS, FREEZE)
        if fault not in known:
            raise ValueError(f"there is no fault {fault!r}: use one of {', '.join(known)}")
        new = self._file.with_suffix(".new")
        new.write_text(fault, encoding="utf-8")
        new.replace(self._file)

    def take(self) -> str:
        """The fault of this call, once; an empty string: none."""
        taken = self._file.with_suffix(".taken")
        try:
            self._file.replace(taken)
        except FileNotFoundError:
            return ""
        return taken.read_text(encoding="utf-8")

    @property
    def waits(self) -> bool:
        """Whether a fault waits for the next call."""
        return self._file.exists()


class FaultyGrounder:
    """The real grounder, whose calls fail as ``box`` says."""

    def __init__(self, grounder: Any, box: FaultBox) -> None:
        self._grounder, self._box = grounder, box
        self.model_name: str = grounder.model_name
        self.selector_name: str = grounder.selector_name
        self.device: object = grounder.device

    def ground_many(
        self, image: np.ndarray, phrases: Sequence[str], **options: Unpack[GroundOptions]
    ) -> tuple[GroundingResult, ...]:
        """See :meth:`acs_core.grounder.Grounder.ground_many`."""
        with breaking(self._grounder.lvlm, self._box.take()):
            results: tuple[GroundingResult, ...] = self._grounder.ground_many(image, phrases, **options)
        return results


@contextmanager
def breaking(lvlm: Any, fault: str) -> Iterator[None]:
    """While it lasts, the language model's head fails as ``fault`` says; an empty one changes nothing."""
    if not fault:
        yield
        return
    steps = 0
    break_logits = _breaker(lvlm, fault)

    def hook(module: Any, arguments: Any, logits: Any) -> Any:
        nonlocal steps
        steps += 1
        return break_logits(steps, logits)

    handle = lvlm.hf_model.get_output_embeddings().register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _breaker(lvlm: Any, fault: str) -> Callable[[int, Any], Any]:
    """From the number of the step and its logits (b, V) to what comes instead."""
    import torch  # late: the node should appear at once

    def fail(step: int, logits: Any) -> Any:
        if step < FIRST:
            return logits
        if fault == "out of memory, always" or (fault == "out of memory, once" and step == FIRST):
            raise torch.OutOfMemoryError("injected: tried to allocate more than there is")
        if fault == "error":
            raise RuntimeError("injected: the model broke")
        if fault == "hang" and step == FIRST:
            time.sleep(SLOW_S)
        if fault == FREEZE:
            ctypes.PyDLL(None).pause()  # as in DDS, which rclpy publishes to without letting other threads run
        if fault == "NaN logits":
            return torch.full_like(logits, float("nan"))
        if fault == "endless":
            digit = lvlm.tokenizer.encode("7", add_special_tokens=False)[0]
            return torch.full_like(logits, -1e4).index_fill_(-1, torch.tensor([digit], device=logits.device), 0.0)
        return logits

    return fail


def load_faulty(settings: Settings) -> FaultyGrounder:
    """Load the model that the parameters name; its faults come through the folder that ACS_STRESS_FAULTS names.

    Raises:
        AcsError: see :func:`acs_ros.grounder_source.load_grounder`.
        KeyError: the variable is not set.
    """
    return FaultyGrounder(load_grounder(settings), FaultBox(Path(os.environ[BOX_VARIABLE])))
