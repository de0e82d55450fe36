"""Evidence of a call that the box of a candidate is right: features for the score model of a calibration.

A selector's confidence compares the boxes of a call. It does not say whether the object is there at all. How many
responses contain a box, how sure the model was that it has to write one, and how much of the attention falls on the
box say more. None of it is part of the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from acs_core.artifacts.score_model import ScoreModel
from acs_core.attention import AttentionRecord
from acs_core.errors import NonFiniteError
from acs_core.generation.token_statistics import TokenStatistics
from acs_core.selection.attention_in_box import MARGIN
from acs_core.selection.joint_features import AGREEMENT, agreement_features, share_in_box, shares_of_sides
from acs_core.types import Candidate

CONFIDENCE, PRESENCE = "confidence", "presence"
LEAST_LOG_ODDS = 12.0  # bound of log-odds, which are infinite where the model is certain


@dataclass(frozen=True)
class Evidence:
    """What is known of the C candidates of one call.

    Attributes:
        candidates: the candidates.
        record: their attention; with maps and token statistics if features ask for them.
        image_size: (width, height) in pixels.
        confidence: (C,) the selector's confidences.
        presence: log-odds of the presence probe that the object is there; None without a probe.
    """

    candidates: Sequence[Candidate]
    record: AttentionRecord
    image_size: tuple[int, int]
    confidence: np.ndarray
    presence: float | None = None

    def agreement(self, name: str) -> np.ndarray:
        """Return the column ``name`` of :data:`~acs_core.selection.joint_features.AGREEMENT`, (C,)."""
        return np.asarray(self._agreement[:, AGREEMENT.index(name)])

    @cached_property
    def _agreement(self) -> np.ndarray:
        """All columns, (C, len(AGREEMENT)), which several features read."""
        boxes = np.array([c.box.as_tuple() for c in self.candidates]).reshape(-1, 4)
        responses = np.array([c.response for c in self.candidates], int)
        return agreement_features(boxes, responses, self.record.num_responses)

    @property
    def tokens(self) -> TokenStatistics:
        """The token statistics of the record.

        Raises:
            ValueError: there are none.
        """
        if self.record.tokens is None:
            raise ValueError("the score model needs the model's certainty about its tokens, which was not kept")
        return self.record.tokens

    @property
    def log_odds_of_presence(self) -> np.ndarray:
        """Log-odds of the presence probe, the same for all candidates, (C,).

        Raises:
            ValueError: there is no probe.
        """
        if self.presence is None:
            raise ValueError("the score model reads a presence probe, which its calibration does not hold")
        return np.full(len(self.candidates), self.presence)

    @property
    def attention_in_box(self) -> np.ndarray:
        """Share of the attention in the own box, mean over coordinates, layers and heads: (C,) in [0, 1].

        Raises:
            ValueError: the record holds no maps.
        """
        if self.record.maps is None:
            raise ValueError("the score model needs attention maps, but only entropies were captured")
        share = shares_of_sides(self.candidates, self.image_size)
        return np.asarray(share_in_box(self.record.maps, share, MARGIN).mean(axis=(1, 2, 3)))


@dataclass(frozen=True)
class Feature:
    """A feature of the score model.

    Attributes:
        compute: returns it for C candidates, (C,).
        direction: 1 if the score must not fall when it rises, -1 if it must not rise, 0 for neither.
        tokens: whether it needs token statistics.
        maps: whether it needs attention maps.
        probe: whether it needs a presence probe.
    """

    compute: Callable[[Evidence], np.ndarray]
    direction: int = 0
    tokens: bool = False
    maps: bool = False
    probe: bool = False


FEATURES: dict[str, Feature] = {
    CONFIDENCE: Feature(lambda e: np.asarray(e.confidence, np.float64), 1),
    "share without box": Feature(lambda e: e.agreement("share without box"), -1),
    "mean IoU": Feature(lambda e: e.agreement("mean IoU"), 1),
    "share above 0.5": Feature(lambda e: e.agreement("share above 0.5"), 1),
    "responses": Feature(lambda e: e.agreement("responses")),
    "log area": Feature(lambda e: _log_area(e)),
    "log-odds of a box": Feature(lambda e: log_odds(e.tokens.opening_logprob), 1, tokens=True),
    "box log-probability": Feature(lambda e: e.tokens.box_logprob, 1, tokens=True),
    "token entropy": Feature(lambda e: e.tokens.entropy.mean(axis=1), -1, tokens=True),
    "attention in box": Feature(lambda e: e.attention_in_box, 1, maps=True),
    PRESENCE: Feature(lambda e: e.log_odds_of_presence, 1, probe=True),
}


def feature_names(maps: bool, probe: bool = False) -> tuple[str, ...]:
    """Return the names of all features; without ``maps`` or a presence ``probe``, of those that need none."""
    return tuple(name for name, f in FEATURES.items() if (maps or not f.maps) and (probe or not f.probe))


def evidence_rows(names: Sequence[str], evidence: Evidence) -> np.ndarray:
    """Compute the features ``names``, (C, F) float64.

    Raises:
        ValueError: there is no such feature, or what it needs was not captured.
    """
    if unknown := [name for name in names if name not in FEATURES]:
        raise ValueError(f"unknown feature {unknown[0]!r}: choose of {', '.join(FEATURES)}")
    return np.stack([FEATURES[name].compute(evidence) for name in names], axis=1).astype(np.float64)


def estimate(model: ScoreModel, evidence: Evidence) -> np.ndarray:
    """Return the score model's estimates for the C candidates, (C,) in [0, 1]; NaN where the confidence is NaN, since
    the selector does not consider the candidate.

    Raises:
        NonFiniteError: other evidence is NaN or infinite.
        ValueError: see :func:`evidence_rows`.
    """
    rows = evidence_rows(model.features, evidence)
    considered = ~np.isnan(evidence.confidence)
    if not np.isfinite(rows[considered]).all():
        raise NonFiniteError(
            "the evidence for the score is NaN or infinite: the model's weights or its dtype are broken; try float32, "
            "or get the weights again"
        )
    return np.where(considered, model.predict(rows), np.nan)


def log_odds(logprob: np.ndarray) -> np.ndarray:
    """Return the log-odds of events with log-probability ``logprob`` (C,), bounded."""
    p = np.exp(np.minimum(logprob, 0.0))
    with np.errstate(divide="ignore"):
        return np.clip(logprob - np.log1p(-p), -LEAST_LOG_ODDS, LEAST_LOG_ODDS)


def _log_area(evidence: Evidence) -> np.ndarray:
    share = shares_of_sides(evidence.candidates, evidence.image_size)
    area = (share[:, 2] - share[:, 0]) * (share[:, 3] - share[:, 1])
    return np.asarray(np.log(np.maximum(area, 1e-12)))
