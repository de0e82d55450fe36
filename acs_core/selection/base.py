"""Interfaces of selectors, which rate the candidates of one call, and of the files that they read.

A new selector is one file in this package and one entry in :mod:`acs_core.selection.registry`. Its file holds the class
and a :class:`SelectorSpec`, which lists an :class:`ArtifactKind` for each file that it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from acs_core.artifacts.identity import ModelIdentity, ModelInfo
from acs_core.attention import AttentionNeeds, AttentionRecord
from acs_core.errors import ArtifactError
from acs_core.geometry import Box
from acs_core.types import Candidate, ScoreKind


class Selector(Protocol):
    """Interface of selectors, which rate the candidates of one call; the best candidate is published."""

    @property
    def name(self) -> str:
        """Registry name, for example ``acs-free``."""

    @property
    def needs(self) -> AttentionNeeds:
        """Attention to capture for :meth:`qualities` and :meth:`confidences`."""

    @property
    def score_kind(self) -> ScoreKind:
        """Meaning of a quality that is published without a calibration."""

    @property
    def feature(self) -> str:
        """Name of the quantity that :meth:`confidences` returns and that calibrations are fitted to; "" if it returns
        None."""

    @property
    def greedy_decoding(self) -> bool:
        """Whether one greedy response is decoded instead of samples."""

    def qualities(
        self, candidates: Sequence[Candidate], record: AttentionRecord, image_size: tuple[int, int]
    ) -> np.ndarray:
        """Return the quality of each candidate, which ranks the candidates of one call.

        Args:
            candidates: C candidates.
            record: their attention, captured as :attr:`needs` requests.
            image_size: (width, height) in pixels.

        Returns:
            (C,) float64 in [0, 1], higher is better; NaN for a candidate that is excluded.
        """

    def confidences(
        self,
        candidates: Sequence[Candidate],
        record: AttentionRecord,
        image_size: tuple[int, int],
        qualities: np.ndarray,
    ) -> np.ndarray | None:
        """Return the confidence of each candidate, (C,) in [0, 1], which is comparable between calls and is the input
        of a calibration; higher is better.

        Returns None if the selector has no confidences. ``qualities`` (C,) are those of :meth:`qualities`.
        """


@runtime_checkable
class BoxFusingSelector(Selector, Protocol):
    """Selector that publishes a box computed from several candidates."""

    def fuse(self, best: int, members: Sequence[int], candidates: Sequence[Candidate], qualities: np.ndarray) -> Box:
        """Return the box to publish for a group of candidates, in pixels, with positive area.

        Args:
            best: index of the member that represents the group.
            members: indices of the group, best first: all candidates that are not excluded for a single answer, a
                cluster of overlapping ones if several objects are asked for.
            candidates: C candidates.
            qualities: (C,) qualities of all candidates.
        """


class ModelInfoWithDevice(ModelInfo, Protocol):
    """Identity and torch device of a loaded LVLM, as needed to create a selector."""

    @property
    def device(self) -> object:
        """Torch device of the weights."""


class Artifact(Protocol):
    """Loaded file of an :class:`ArtifactKind`."""

    @property
    def identity(self) -> ModelIdentity:
        """Identity of the LVLM that the file was made for."""

    @property
    def map_size(self) -> tuple[int, int] | None:
        """(h, w) of the attention maps that the file was fitted to; None if the size does not matter."""


@dataclass(frozen=True)
class ArtifactKind:
    """Kind of file that selectors read, made for one LVLM.

    Attributes:
        name: keyword of :func:`acs_core.selection.registry.make_selector` for such a file, for example ``heads``. In
            training, the step that lists the kind makes such files (``training.fitting.steps``).
        file_name: name of the file in a model's folder, and in a folder of `acs-train build`.
        load: reads a file as an :class:`Artifact` and, with an LVLM, checks that it was made for it. Raises ``error``.
        error: type of the errors about a missing or unsuitable file.
        missing: message for a model without such a file; ``{model}`` stands for its name.
        former_option: keyword of this kind of file in earlier versions, which is refused; "" for none.
    """

    name: str
    file_name: str
    load: Callable[[str | Path, ModelInfoWithDevice | None], Any]
    error: type[ArtifactError]
    missing: str
    former_option: str = ""


@dataclass(frozen=True)
class SelectorSpec:
    """Facts about a selector that are known before it is created.

    Attributes:
        name: registry name of the selector.
        make: creates the selector from its artifacts, in the order of ``reads``.
        reads: kinds of file that the selector is created from.
        fuses_boxes: whether it is a :class:`BoxFusingSelector`.
        baseline: whether evaluations list it among the baselines (paper section 5.1).
        learned: whether any of its files is fitted to the IoU with true boxes.
    """

    name: str
    make: Callable[..., Selector]
    reads: tuple[ArtifactKind, ...] = ()
    fuses_boxes: bool = False
    baseline: bool = False
    learned: bool = False
