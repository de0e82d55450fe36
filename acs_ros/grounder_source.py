"""Where the node gets its model from: the few things it needs of a grounder, and the loader of the real one."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from typing import Protocol, Unpack

import numpy as np

from acs_core.asked import GroundOptions
from acs_core.heap import trim_heap
from acs_core.types import GroundingResult
from acs_ros.parameters import Settings


class GrounderLike(Protocol):
    """What the node asks of :class:`acs_core.grounder.Grounder`; a test may bring its own."""

    @property
    def model_name(self) -> str:
        """The model as it was named."""

    @property
    def selector_name(self) -> str:
        """The selector in use."""

    @property
    def device(self) -> object:
        """The torch device."""

    def ground_many(
        self, image: np.ndarray, phrases: Sequence[str], **options: Unpack[GroundOptions]
    ) -> tuple[GroundingResult, ...]:
        """Finds each phrase in an (H, W, 3) uint8 RGB image; raises Cancelled soon after ``should_stop`` says so."""


GrounderLoader = Callable[[Settings], GrounderLike]


def load_grounder(settings: Settings) -> GrounderLike:
    """Load the model that the parameters name. Takes seconds to minutes.

    Raises:
        AcsError: the model, or a file that belongs to it, cannot be used.
    """
    from acs_core.grounder import Grounder  # late: torch takes seconds, and the node should appear at once

    return Grounder.from_pretrained(
        settings.model,
        selector=settings.selector,
        heads=settings.heads or None,
        regressor=settings.regressor or None,
        calibration=settings.calibration or None,
        revision=settings.revision or None,
        device=settings.device,
        dtype=settings.dtype,
        quantization=settings.quantization,
    )


def free_memory() -> None:
    """Give back what a dropped model held."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim_heap()
