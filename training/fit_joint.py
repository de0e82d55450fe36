"""Fits the joint quality (:mod:`acs_core.joint`) to collected candidates: gradient boosting on their features.

Each pair is seen with all its responses and with a random part of them, so that what is learnt of agreement holds for
any number of responses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from acs_core.identity import ModelIdentity
from acs_core.joint import JointQuality
from acs_core.joint_features import agreement_features, feature_names, own_features, with_agreement
from acs_core.trees import Trees
from training.errors import DataError
from training.metrics import Agreement, agreement
from training.offline_choice import calls
from training.store import Collection

CLOSE = 1e-6  # how well exported trees must repeat the predictions of those that were fitted
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class JointConfig:
    """Of the boosting: so many ``trees`` of at most ``leaves`` leaves, each of at least ``leaf_candidates`` candidates.
    Every split sees ``feature_share`` of the features. ``parts``: how often each pair is also seen with only some of
    its responses."""

    trees: int = 300
    learning_rate: float = 0.03
    leaves: int = 15
    leaf_candidates: int = 30
    l2: float = 5.0
    feature_share: float = 0.3
    parts: int = 1
    seed: int = 0


@dataclass(frozen=True)
class JointFit:
    """``predicted`` (len(validation),) is the IoU of the held-out candidates with all their responses drawn, ``held``
    how well it agrees with the true one; ``held_by_count`` the same with only the first n responses of each pair, by n.
    """

    quality: JointQuality
    predicted: np.ndarray
    held: Agreement
    held_by_count: dict[int, Agreement]


@dataclass(frozen=True)
class Prepared:
    """The candidates of a collection, C of them, ready for any part of the responses: ``own`` (C, ...) of
    :func:`acs_core.joint_features.own_features`, and how many responses were ``drawn`` for each pair."""

    data: Collection
    own: np.ndarray
    drawn: int

    @classmethod
    def of(cls, data: Collection, progress: Progress = lambda done, total: None) -> Prepared:
        """Reads all maps of ``data`` once."""
        layers = int(data.maps.shape[2])
        width = len(feature_names(layers)) - agreement_features(np.zeros((0, 4)), np.zeros(0, int), 0).shape[1]
        own = np.zeros((len(data.iou), width), np.float32)
        for done, call in enumerate(calls(data, True)):
            progress(done, len(data.pairs))
            if call.image_size is not None:
                own[call.index] = own_features(call.candidates, call.evidence, call.image_size)
        progress(len(data.pairs), len(data.pairs))
        most = 1 + int(data.response.max(initial=0))
        return cls(data, own, max(most, int(data.manifest.get("samples", 0))))

    def rows(self, kept: Callable[[], np.ndarray] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Candidates (n,) and their features (n, F), with all responses or, for each pair anew, those that ``kept``
        names."""
        index, found = [], []
        for here in self._pairs():
            responses = np.arange(self.drawn) if kept is None else kept()
            mine = here[np.isin(self.data.response[here], responses)]
            if len(mine):
                index.append(mine)
                found.append(agreement_features(self.data.box[mine], self.data.response[mine], len(responses)))
        if not index:
            return np.zeros(0, int), np.zeros((0, len(feature_names(int(self.data.maps.shape[2])))), np.float32)
        whole = np.concatenate(index)
        return whole, with_agreement(self.own[whole], np.concatenate(found))

    def some(self, rng: np.random.Generator) -> np.ndarray:
        """Some responses, at least one and, where there are more, not all."""
        return rng.choice(self.drawn, int(rng.integers(1, max(2, self.drawn))), replace=False)

    def _pairs(self) -> Iterator[np.ndarray]:
        order = np.argsort(self.data.pair, kind="stable")
        yield from np.split(order, np.flatnonzero(np.diff(self.data.pair[order])) + 1)


def fit_joint(
    data: Collection,
    train: np.ndarray,
    validation: np.ndarray,
    identity: ModelIdentity,
    made_by: str,
    config: JointConfig | None = None,
    progress: Progress = lambda done, total: None,
) -> JointFit:
    """Fits to the candidates ``train`` and judges on ``validation``: indices, of different images.

    Raises:
        DataError: one of the sides is empty, or this scikit-learn keeps its trees in another way.
    """
    if not len(train) or not len(validation):
        raise DataError("the joint quality needs candidates to fit and others to judge on: collect more pairs")
    config = config or JointConfig()
    rng = np.random.default_rng(config.seed)
    prepared = Prepared.of(data, progress)
    seen = [prepared.rows(), *(prepared.rows(lambda: prepared.some(rng)) for _ in range(config.parts))]
    index, rows = (np.concatenate([part[k] for part in seen]) for k in (0, 1))
    inside = np.isin(index, train)
    model = HistGradientBoostingRegressor(
        max_iter=config.trees,
        learning_rate=config.learning_rate,
        max_leaf_nodes=config.leaves,
        min_samples_leaf=config.leaf_candidates,
        l2_regularization=config.l2,
        max_features=config.feature_share,
        early_stopping=False,  # it would hold out candidates, not images
        random_state=config.seed,
    ).fit(rows[inside], data.iou[index[inside]])
    size = int(data.maps.shape[-2]), int(data.maps.shape[-1])
    trees = trees_of(model, rows)
    quality = JointQuality(trees, identity, size, made_by)
    predicted = np.clip(trees.predict(_of(prepared.rows(), validation)), 0.0, 1.0)
    by_count = {n: judged(quality, prepared, validation, n) for n in (1, 3, 5) if n < prepared.drawn}
    return JointFit(quality, predicted, agreement(predicted, data.iou[validation]), by_count)


def judged(quality: JointQuality, prepared: Prepared, index: np.ndarray, count: int | None = None) -> Agreement:
    """How well predictions of the candidates ``index`` agree with their IoU, where only the first ``count`` responses
    of each pair were drawn; candidates of later ones are left out."""
    mine, rows = prepared.rows(None if count is None else lambda: np.arange(count))
    here = np.isin(mine, index)
    predicted = np.clip(quality.trees.predict(rows[here]), 0.0, 1.0)
    return agreement(predicted, prepared.data.iou[mine[here]])


def trees_of(model: HistGradientBoostingRegressor, rows: np.ndarray) -> Trees:
    """The fitted trees as arrays. scikit-learn has no public way to them, so what is read is tried on ``rows`` (n, F).

    Raises:
        DataError: they do not predict what ``model`` predicts.
    """
    try:
        kept = [iteration[0].nodes for iteration in model._predictors]
        base = float(np.ravel(model._baseline_prediction)[0])
        most = max(len(nodes) for nodes in kept)
        feature, threshold, value = (np.zeros((len(kept), most), t) for t in (np.int32, np.float64, np.float64))
        child = np.tile(np.arange(most, dtype=np.int32)[None, :, None], (len(kept), 1, 2))
        for t, nodes in enumerate(kept):
            inner = np.flatnonzero(nodes["is_leaf"] == 0)
            feature[t, inner] = nodes["feature_idx"][inner]
            threshold[t, inner] = nodes["num_threshold"][inner]
            child[t, inner] = np.stack([nodes["left"][inner], nodes["right"][inner]], axis=1)
            value[t, : len(nodes)] = np.where(nodes["is_leaf"], nodes["value"], 0.0)
        trees = Trees(feature, threshold, child, value, base, rows.shape[1])
        off = float(np.abs(trees.predict(rows[:1000]) - model.predict(rows[:1000])).max(initial=0.0))
    except (AttributeError, IndexError, KeyError, ValueError) as error:
        raise DataError(_another_sklearn(str(error))) from error
    if off > CLOSE:
        raise DataError(_another_sklearn(f"predictions differ by {off:.2g}"))
    return trees


def _another_sklearn(why: str) -> str:
    return f"the trees of this scikit-learn cannot be read ({why}): install the version that requirements/ names"


def _of(rows: tuple[np.ndarray, np.ndarray], wanted: np.ndarray) -> np.ndarray:
    """Features of the candidates ``wanted``, in their order, out of (candidates, features)."""
    index, found = rows
    place = np.empty(int(index.max()) + 1, np.int64)
    place[index] = np.arange(len(index))
    return found[place[wanted]]
