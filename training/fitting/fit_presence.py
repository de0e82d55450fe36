"""Fit of the presence probe of a calibration (:mod:`acs_core.artifacts.presence`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from acs_core.artifacts.presence import PresenceProbe
from training.collection.offline_selection import hidden_of
from training.collection.store import Collection
from training.errors import DataError
from training.fitting.fit_score_model import folds

MIN_QUESTIONS = 50  # about present objects, and about absent ones
ADVICE = "an earlier version of acs made it: collect again, or leave out the presence probe"
STRENGTH = 0.01  # inverse of the regularisation, of standardised channels: there are about as many as questions


def presence_rows(
    data: Collection, answers: Sequence[Mapping[str, Any]]
) -> tuple[list[int], np.ndarray, np.ndarray, np.ndarray]:
    """Return, for each question of ``data``: its pair, the hidden state at the end of the prompt, (Q, D), whether the
    image shows the object, (Q,) bool, and the number of its image, (Q,).

    Raises:
        DataError: true boxes, or the hidden states of some questions, are not stored, hidden states differ in width, or
            too few questions are about present or absent objects.
    """
    truth, keys = data.manifest.get("truth"), data.manifest.get("pairs")
    found = {a["pair"]: hidden for a in answers if (hidden := hidden_of(a)) is not None}
    if truth is None or not keys or not found:
        raise DataError(f"the collection holds no hidden states at the end of the prompts, {ADVICE}")
    pairs = data.pairs.tolist()
    if missing := set(pairs) - set(found):
        raise DataError(
            f"the collection holds no hidden states at the end of the prompts for {len(missing)} of {len(pairs)} "
            f"questions, {ADVICE}"
        )
    widths = {len(found[pair]) for pair in pairs}
    if len(widths) > 1:
        raise DataError(
            f"the collection holds hidden states of {min(widths)} and of {max(widths)} numbers: collect again, or "
            "leave out the presence probe"
        )
    there = np.array([bool(truth[pair]) for pair in pairs])
    if min(int(there.sum()), int((~there).sum())) < MIN_QUESTIONS:
        raise DataError(
            f"{int(there.sum())} questions about present objects and {int((~there).sum())} about absent ones are too "
            f"few for a presence probe: at least {MIN_QUESTIONS} of each (acs-train collect --absent-share 0.5)"
        )
    image = np.unique([keys[pair].partition(":")[0] for pair in pairs], return_inverse=True)[1]
    return pairs, np.stack([found[pair] for pair in pairs]), there, image


def fit_presence(hidden: np.ndarray, there: np.ndarray) -> PresenceProbe:
    """Fit a probe to hidden states (Q, D) and whether the object is there (Q,)."""
    mean, spread = hidden.mean(axis=0), np.maximum(hidden.std(axis=0), 1e-6)
    model = LogisticRegression(C=STRENGTH, max_iter=1000).fit((hidden - mean) / spread, there)
    weights = model.coef_[0] / spread
    return PresenceProbe(tuple(map(float, weights)), float(model.intercept_[0] - weights @ mean)).rounded()


def out_of_fold_presence(hidden: np.ndarray, there: np.ndarray, image: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the log-odds of each question, (Q,), by a probe that was fitted without its image."""
    fold, found = folds(image, seed), np.zeros(len(there))
    for k in np.unique(fold):
        probe = fit_presence(hidden[fold != k], there[fold != k])
        found[fold == k] = [probe.log_odds(row) for row in hidden[fold == k]]
    return found
