"""The grounding node with a model that fails on demand, as a call on a broken model or a full device would."""

from __future__ import annotations

if __name__ == "__main__":  # first: a signal may come while the modules below are imported
    from acs_core.entry import run

    run("acs_ros.stress.faulty_node", "grounding", stopped=0)

import ctypes
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from acs_core.request import GroundOptions
from acs_core.types import GroundingResult, SamplingConfig
from acs_ros import main as node
from acs_ros.node.model_loader import load_grounder
from acs_ros.node.parameters import Settings

SLOW_S = 3.0  # duration of "hang", during which the call cannot be cancelled
FIRST = 2  # forward pass of the language model's head, from 1, that fails first: even an empty answer takes two
BOX_VARIABLE = "ACS_STRESS_FAULTS"
FAULTS = {
    "out of memory, once": "the device has no room in the middle of sampling; fewer responses have",
    "out of memory, always": "the device has no room for even one response",
    "NaN logits": "every logit is NaN from the second step on",
    "hang": f"one step takes {SLOW_S:g} s and cannot be cancelled",
    "error": "a RuntimeError in the middle of sampling",
    "endless": "the model writes the same digit until it may write no more",
}
FREEZE = "freeze"  # not one of FAULTS: it does not fail a call, but stops the whole process


class FaultBox:
    """Folder that passes the next fault from one process to another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "next"

    def put(self, fault: str) -> None:
        """Make the next call of the model fail with ``fault``.

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
        """Return and remove the pending fault; "" if there is none."""
        taken = self._file.with_suffix(".taken")
        try:
            self._file.replace(taken)
        except FileNotFoundError:
            return ""
        return taken.read_text(encoding="utf-8")

    @property
    def waits(self) -> bool:
        """Whether a fault is pending."""
        return self._file.exists()


class FaultyGrounder:
    """Wrapper of a grounder whose next call fails with the fault that is pending in ``box``."""

    def __init__(self, grounder: Any, box: FaultBox) -> None:
        self._grounder, self._box = grounder, box
        self.model_name: str = grounder.model_name
        self.revision: str | None = grounder.revision
        self.selector_name: str = grounder.selector_name
        self.device: object = grounder.device

    def required_score(self, precision: float, second_look: bool = False) -> float:
        """See :meth:`acs_core.grounder.Grounder.required_score`."""
        score: float = self._grounder.required_score(precision, second_look)
        return score

    def ground_many(
        self, image: np.ndarray, phrases: Sequence[str], **options: Unpack[GroundOptions]
    ) -> tuple[GroundingResult, ...]:
        """Call :meth:`acs_core.grounder.Grounder.ground_many` with the pending fault, if any."""
        fault = self._box.take()
        if fault:  # drafted tokens would answer in one forward pass what the model has answered before
            options["sampling"] = replace(options.get("sampling") or SamplingConfig(), speculation=False)
        with breaking(self._grounder.lvlm, fault):
            results: tuple[GroundingResult, ...] = self._grounder.ground_many(image, phrases, **options)
        return results


@contextmanager
def breaking(lvlm: Any, fault: str) -> Iterator[None]:
    """Make the language model's head fail with ``fault`` in the block; "" changes nothing."""
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
    """Return the function from a step's number and its logits (b, V) to the logits that replace them."""
    import torch  # imported late, so that the node appears at once

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
    """Load the model of the parameters, with faults from the folder in the environment variable ACS_STRESS_FAULTS.

    Raises:
        AcsError: see :func:`acs_ros.node.model_loader.load_grounder`.
        KeyError: the variable is not set.
    """
    return FaultyGrounder(load_grounder(settings), FaultBox(Path(os.environ[BOX_VARIABLE])))


def main() -> int:
    """Run the node and return its exit code."""
    return node.main(load=load_faulty)
