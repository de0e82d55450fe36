"""Rows to fit a score model to: for each collected question the box that a selector publishes, the evidence for it,
and whether it is right, with all responses and with the first few."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from acs_core.selection.evidence import FEATURES, Evidence, evidence_rows, feature_names
from acs_core.selection.registry import Selector
from acs_core.selection.scorer import Scorer
from training.collection.offline_selection import Call, published_iou
from training.collection.store import Collection

COUNTS = (1, 3, 5)  # numbers of responses, beside all: scores must also hold for calls that end early


@dataclass(frozen=True)
class ScoreRows:
    """N rows, one for each question that got a box from ``count`` responses.

    Attributes:
        names: names of the F features.
        features: (N, F) float64, in their order; the first is the selector's confidence.
        iou: (N,) IoU of the published box with the object, 0 for an absent one.
        image: (N,) image ids.
        complete: (N,) whether all responses were used.
        unanswered: number of questions that all responses left without a box.
        absent: number of questions, answered or not, about absent objects.
    """

    names: tuple[str, ...]
    features: np.ndarray
    iou: np.ndarray
    image: np.ndarray
    complete: np.ndarray
    unanswered: int
    absent: int = 0

    @property
    def confidence(self) -> np.ndarray:
        """The selector's confidences, (N,)."""
        return self.features[:, 0]


def names_for(selector: Selector, tokens: bool, probe: bool = False) -> tuple[str, ...]:
    """Return the features for calls of ``selector``; ``tokens``: whether token statistics are known, ``probe``: whether
    there is a presence probe."""
    return tuple(name for name in feature_names(selector.needs.maps, probe) if tokens or not FEATURES[name].tokens)


def score_rows(
    selector: Selector,
    found: Iterable[Call],
    data: Collection,
    names: Sequence[str],
    counts: Sequence[int] = COUNTS,
    presence: Mapping[int, float] | None = None,
) -> ScoreRows:
    """Apply ``selector`` to the calls ``found`` of questions of ``data``, as it sees them at run time.

    Calls that include a second look are used as a whole only, since their responses are of two looks. ``presence`` are
    log-odds of a presence probe that was fitted without the image of the question, by pair.

    Raises:
        DataError: the collection does not hold the true boxes.
    """
    scorer = Scorer(selector, None)
    kept: list[tuple[np.ndarray, float, int, bool]] = []
    unanswered = absent = 0
    truth: Sequence[Any] | None = data.manifest.get("truth")
    for answered in found:
        call = answered.seen_by(selector)
        absent += truth is not None and not truth[call.pair]
        drawn = call.record.num_responses
        few = () if call.looked_again or drawn is None else tuple(n for n in counts if n < drawn)
        for count in (*few, None):  # None: all of them
            part = call if count is None else call.first(count)
            row = _row(scorer, part, data, names, None if presence is None else presence[call.pair])
            if row is not None:
                kept.append((*row, count is None))
            elif count is None:
                unanswered += 1
    width = len(names)
    return ScoreRows(
        tuple(names),
        np.array([k[0] for k in kept], np.float64).reshape(-1, width),
        np.array([k[1] for k in kept], np.float64),
        np.array([k[2] for k in kept], np.int64),
        np.array([k[3] for k in kept], bool),
        unanswered,
        absent,
    )


def _row(
    scorer: Scorer, call: Call, data: Collection, names: Sequence[str], presence: float | None
) -> tuple[np.ndarray, float, int] | None:
    """Return features, IoU and image id of the box that is published; None if there is none."""
    decision = call.decided(scorer)
    if not decision.detections or call.image_size is None:
        return None
    best = decision.detections[0].candidate
    confidences = scorer.selector.confidences(call.candidates, call.record, call.image_size, decision.qualities)
    if confidences is None:
        return None
    # The features of one candidate depend on all of them.
    rows = evidence_rows(
        names, Evidence(call.candidates, call.record, call.image_size, np.asarray(confidences), presence)
    )
    return rows[best], published_iou(scorer, decision, call, data), int(data.image[call.index[call.index >= 0][0]])


def has_tokens(answers: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the responses ``answers`` of a collection tell the model's certainty about their tokens."""
    return bool(answers) and all("token_logprob" in answer for answer in answers)
