"""ACS-Free: ranks candidates by the attention entropy of the discriminative heads (paper section 4.4, appendix E)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from acs_core.arguments import instance
from acs_core.artifacts.heads import HeadFile
from acs_core.artifacts.table_1 import load_named
from acs_core.attention import AttentionNeeds, AttentionRecord, Heads
from acs_core.errors import HeadFileError, NonFiniteError
from acs_core.selection.base import ArtifactKind, ModelInfoWithDevice, SelectorSpec
from acs_core.types import COORDINATES, Candidate, ScoreKind

# Responses with the same tokens before a coordinate have the same attention there, for example most responses at the
# first x1. Their entropies still differ in the last bits of float32. Differences beyond this many decimals of a nat are
# rounding errors and count as ties.
DECIMALS = 5


class AcsFree:
    """Selector by equation 4: for each coordinate, candidates are ranked by their mean entropy over D_c, and the ranks
    are summed.

    Only ranks enter the quality, so it compares candidates of one call and has no absolute meaning. Calibrations use
    :meth:`confidences`, which measure how concentrated the attention is.
    """

    name = "acs-free"
    score_kind = ScoreKind.RANK_RELATIVE
    feature = "attention_concentration"
    greedy_decoding = False

    def __init__(self, heads: HeadFile) -> None:
        self.heads = instance("heads", heads, HeadFile, "a HeadFile")
        self._pairs = heads.pairs()
        self.needs = AttentionNeeds(heads=self._pairs)

    def qualities(
        self, candidates: Sequence[Candidate], record: AttentionRecord, image_size: tuple[int, int]
    ) -> np.ndarray:
        """Return (C,) qualities in [0, 1]: 1 - (R - 4) / (4C - 4) with the rank sum R of appendix E.

        1 is first in all four coordinates, 0 is last in all four; a single candidate has 1.
        """
        ranks = rank_sums(mean_entropies(record, self._pairs))
        worst = 4.0 * len(ranks)
        return 1.0 - (ranks - 4.0) / (worst - 4.0) if len(ranks) > 1 else np.ones(len(ranks))

    def confidences(
        self,
        candidates: Sequence[Candidate],
        record: AttentionRecord,
        image_size: tuple[int, int],
        qualities: np.ndarray,
    ) -> np.ndarray | None:
        """Return (C,) confidences in [0, 1]: 1 - H / log(cells), with the mean H of the four coordinates' entropies.

        0 is attention spread evenly over the image, 1 is all attention on one cell. Division by the largest possible
        entropy makes grids comparable.
        """
        cells = record.grid[0] * record.grid[1]
        if cells < 2:
            return np.zeros(len(candidates))
        return np.clip(1.0 - mean_entropies(record, self._pairs).mean(axis=1) / math.log(cells), 0.0, 1.0)


def mean_entropies(record: AttentionRecord, heads: Heads) -> np.ndarray:
    """Compute equation 4: the mean over D_c of each candidate's entropies at each coordinate.

    Args:
        record: attention of C candidates.
        heads: the (layer, head) pairs of each D_c (:meth:`acs_core.artifacts.heads.HeadFile.pairs`).

    Returns:
        (C, 4) float64 in nats.

    Raises:
        HeadFileError: ``record`` was captured without a head of ``heads`` (NaN for all candidates).
        NonFiniteError: an entropy is NaN or infinite.
    """
    columns = []
    for c, pairs in enumerate(heads):
        layers, numbers = (list(v) for v in zip(*pairs, strict=True))
        values = record.entropy[:, c, layers, numbers].astype(np.float64)  # (C, |D_c|)
        if np.isnan(values).all(axis=0).any() and len(values):
            raise HeadFileError(f"the captured attention lacks a head that the head file lists for {COORDINATES[c]}")
        if not np.isfinite(values).all():
            raise NonFiniteError(
                f"the entropies of the attention for {COORDINATES[c]} are NaN or infinite: the model's weights or its "
                "dtype are broken"
            )
        columns.append(values.mean(axis=1))
    return np.stack(columns, axis=1)


def rank_sums(entropies: np.ndarray) -> np.ndarray:
    """Return the rank sums R (C,) in [4, 4C] of ``entropies`` (C, 4), as in appendix E; lower is better. Equal
    entropies share the average of their ranks."""
    return np.sum([average_ranks(column) for column in np.round(entropies, DECIMALS).T], axis=0)


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks 1..C of ``values`` (C,) in ascending order, float64 (C,); equal values share the average of
    their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)  # the highest rank in each group of equals
    return (last - (counts - 1) / 2.0)[inverse]


def load_heads(source: HeadFile | str | Path, lvlm: ModelInfoWithDevice | None = None) -> HeadFile:
    """Return ``source`` as a head file, reading it if it is a path; with ``lvlm``, check that it was made for that
    model.

    Args:
        source: a head file, its path or, with ``lvlm``, a reading of the paper's table 1 by its name
            (:data:`acs_core.artifacts.table_1.READINGS`).
        lvlm: the model.

    Raises:
        HeadFileError: it cannot be read, or was made for another model.
    """
    if lvlm is None:
        return source if isinstance(source, HeadFile) else HeadFile.load(source)
    file = source if isinstance(source, HeadFile) else load_named(source, lvlm)
    file.check(lvlm)
    return file


HEADS = ArtifactKind(
    "heads",
    "heads.json",
    load_heads,
    HeadFileError,
    "no head file is known for the model {model}: build one with `acs-train build`, or pass heads=... (command line: "
    "--heads FILE)",
)
SPEC = SelectorSpec(AcsFree.name, AcsFree, reads=(HEADS,))
