"""Loads the model on its own thread, so that the process can end while a model loads.

torch and transformers cannot be interrupted while they load. The thread is a daemon; a model that arrives after
:meth:`ModelLoader.close` is dropped.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol, Unpack

import numpy as np

from acs_core.artifacts.model_name import check_model_name
from acs_core.errors import Cancelled
from acs_core.heap import trim_heap
from acs_core.light_imports import load_lightly
from acs_core.request import GroundOptions
from acs_core.types import GroundingResult
from acs_ros.node.parameters import Settings

TELL_S = 10.0  # seconds between two reports that the model still loads


class GrounderLike(Protocol):
    """The members of :class:`acs_core.grounder.Grounder` that the node uses."""

    @property
    def model_name(self) -> str:
        """Name of the model, as given."""

    @property
    def revision(self) -> str | None:
        """Commit of the model; None for a folder."""

    @property
    def selector_name(self) -> str:
        """Registry name of the selector."""

    @property
    def device(self) -> object:
        """The torch device."""

    def required_score(self, precision: float, second_look: bool = False) -> float:
        """The threshold that keeps ``precision``; raises CalibrationError where there is none."""

    def ground_many(
        self, image: np.ndarray, phrases: Sequence[str], **options: Unpack[GroundOptions]
    ) -> tuple[GroundingResult, ...]:
        """One result per phrase for an (H, W, 3) uint8 RGB image; raises Cancelled soon after ``should_stop()``."""


GrounderLoader = Callable[[Settings], GrounderLike]


def load_grounder(settings: Settings) -> GrounderLike:
    """Load the model that the parameters name. Takes seconds to minutes.

    No progress bar of transformers or of the hub is shown: in the log of a node, each step of one is a line.

    Raises:
        AcsError: the model, or a file that belongs to it, cannot be used.
    """
    check_model_name(settings.model)
    if settings.quantization != "none":  # the quantisers of transformers use more of torch
        return _load(settings)
    return load_lightly(lambda: _load(settings))


def _load(settings: Settings) -> GrounderLike:
    from transformers.utils import logging  # late: torch takes seconds, and the node should appear at once

    from acs_core.grounder import Grounder

    logging.disable_progress_bar()

    grounder = Grounder.from_pretrained(
        settings.model,
        selector=settings.selector,
        heads=settings.heads or None,
        regressor=settings.regressor or None,
        joint_model=settings.joint_model or None,
        calibration=settings.calibration or None,
        revision=settings.revision or None,
        device=settings.device,
        dtype=settings.dtype,
        quantization=settings.quantization,
        max_image_tokens=settings.max_image_tokens or None,
        coordinate_frame=settings.coordinate_frame,
        prefix_bytes=settings.prefix_bytes,
    )
    return grounder


def check_precision(grounder: GrounderLike, precision: float, second_look: bool) -> None:
    """Check that scores of ``grounder`` can keep ``precision`` (0: any), or else every frame would be an error.

    Raises:
        CalibrationError: no score does; the message says why.
    """
    if precision:
        for look in {False, second_look}:
            grounder.required_score(precision, look)


def free_memory() -> None:
    """Return the memory of a dropped model, on the host and on the GPU, to the system."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim_heap()


class ModelLoader:
    """Runs ``load(settings)`` on a thread while :meth:`get` waits, one at a time, until :meth:`close`."""

    def __init__(self, load: GrounderLoader, tell_period: float = TELL_S) -> None:
        self._load, self._tell_period = load, tell_period
        self._changed = threading.Condition()
        self._closed = False
        self._outcome: GrounderLike | BaseException | None = None
        self._thread: threading.Thread | None = None

    def get(self, settings: Settings, tell: Callable[[float], None] | None = None) -> GrounderLike:
        """Load the model and wait for it; ``tell`` is called every TELL_S with the seconds since the start.

        Raises:
            Cancelled: :meth:`close` was called, before or meanwhile.
            BaseException: what ``load`` raised.
        """
        with self._changed:
            if not self._closed:
                self._thread = threading.Thread(target=self._run, args=(settings,), name="acs-loading", daemon=True)
                self._thread.start()
            began = time.monotonic()
            while not self._changed.wait_for(lambda: self._closed or self._outcome is not None, self._tell_period):
                if tell is not None:
                    tell(time.monotonic() - began)
            outcome, self._outcome = self._outcome, None
            if self._closed or outcome is None:
                raise Cancelled("told to stop before the model was loaded")
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def close(self) -> None:
        """Make :meth:`get` raise Cancelled at once, now and later; the thread ends when ``load`` does."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def running(self) -> bool:
        """Whether ``load`` is running, even if its model will be dropped."""
        return self._thread is not None and self._thread.is_alive()

    def _run(self, settings: Settings) -> None:
        outcome: GrounderLike | BaseException | None
        try:
            outcome = self._load(settings)
        except BaseException as error:  # handed to whoever waits, whatever it is
            outcome = error
        with self._changed:
            self._outcome = None if self._closed else outcome
            outcome = None  # a model is freed when its user drops it, not when this thread has ended
            self._changed.notify_all()
