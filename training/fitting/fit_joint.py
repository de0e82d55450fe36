"""Fit of the joint model (:mod:`acs_core.selection.joint_model`) to collected candidates: gradient boosting on their
features.

Each pair is used with all of its responses and with random subsets of them, so that the model learns agreement for any
number of responses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from acs_core.arguments import MAX_NUMPY_SEED, real, set_fields, whole
from acs_core.artifacts.identity import ModelIdentity
from acs_core.artifacts.trees import Trees
from acs_core.selection.joint_features import agreement_features, feature_names, own_features, with_agreement
from acs_core.selection.joint_model import JointIoUModel
from training.collection.offline_selection import calls
from training.collection.store import Collection
from training.errors import DataError
from training.fitting.metrics import Agreement, agreement

CLOSE = 1e-6  # largest difference between the predictions of the exported and the fitted trees
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class JointConfig:
    """Settings of the gradient boosting.

    Attributes:
        trees: number of trees.
        learning_rate: shrinkage of each tree.
        leaves: maximum number of leaves per tree.
        leaf_candidates: minimum number of candidates per leaf.
        l2: L2 regularisation.
        feature_share: share of the features that each split considers.
        parts: number of random subsets of each pair's responses.
        seed: seed of the subsets and of the boosting.

    Raises:
        TypeError: a value is of another type.
        ValueError: a value is out of its range.
    """

    trees: int = 300
    learning_rate: float = 0.03
    leaves: int = 15
    leaf_candidates: int = 30
    l2: float = 5.0
    feature_share: float = 0.3
    parts: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        checked: dict[str, object] = {n: whole(n, getattr(self, n), 1) for n in ("trees", "leaf_candidates", "parts")}
        checked["leaves"] = whole("leaves", self.leaves, 2)
        checked["learning_rate"] = real("learning_rate", self.learning_rate, 0, 10, above=True)
        checked["l2"] = real("l2", self.l2, 0, 1e9)
        checked["feature_share"] = real("feature_share", self.feature_share, 0, 1, above=True)
        checked["seed"] = whole("seed", self.seed, 0, MAX_NUMPY_SEED)
        set_fields(self, checked)


@dataclass(frozen=True)
class JointFit:
    """Result of :func:`fit_joint`.

    Attributes:
        quality: the joint model.
        predicted: (len(validation),) predicted IoU of the held-out candidates, with all responses.
        held: agreement of ``predicted`` with the true IoU.
        held_by_count: the same with only the first n responses of each pair, by n.
    """

    quality: JointIoUModel
    predicted: np.ndarray
    held: Agreement
    held_by_count: dict[int, Agreement]


@dataclass(frozen=True)
class Prepared:
    """Features of a collection's C candidates that do not depend on the subset of responses.

    Attributes:
        data: the collection.
        own: (C, ...) features of :func:`acs_core.selection.joint_features.own_features`.
        drawn: number of responses of each pair.
    """

    data: Collection
    own: np.ndarray
    drawn: int

    @classmethod
    def of(cls, data: Collection, progress: Progress = lambda done, total: None) -> Prepared:
        """Compute the features of ``data``, reading all maps once."""
        layers = int(data.maps.shape[2])
        width = len(feature_names(layers)) - agreement_features(np.zeros((0, 4)), np.zeros(0, int), 0).shape[1]
        own = np.zeros((len(data.iou), width), np.float32)
        for done, call in enumerate(calls(data, True)):
            progress(done, len(data.pairs))
            if call.image_size is not None:
                own[call.index] = own_features(call.candidates, call.record, call.image_size)
        progress(len(data.pairs), len(data.pairs))
        most = 1 + int(data.response.max(initial=0))
        return cls(data, own, max(most, int(data.manifest.get("samples", 0))))

    def rows(self, kept: Callable[[], np.ndarray] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return candidates (n,) and their features (n, F), with all responses, or with those that ``kept`` returns; it
        is called once per pair."""
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
        """Return the indices of a random subset of the responses: at least one and, if there are several, not all."""
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
    """Fit to the candidates ``train`` and measure on ``validation``; both are indices, of different images.

    Raises:
        DataError: one of the sides is empty, or the installed scikit-learn stores its trees differently.
    """
    if not len(train) or not len(validation):
        raise DataError("the joint model needs candidates to fit and others to judge on: collect more pairs")
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
        early_stopping=False,  # it would split by candidate, not by image
        random_state=config.seed,
    ).fit(rows[inside], data.iou[index[inside]])
    size = int(data.maps.shape[-2]), int(data.maps.shape[-1])
    trees = trees_of(model, rows)
    quality = JointIoUModel(trees, identity, size, made_by)
    predicted = np.clip(trees.predict(_of(prepared.rows(), validation)), 0.0, 1.0)
    by_count = {n: judged(quality, prepared, validation, n) for n in (1, 3, 5) if n < prepared.drawn}
    return JointFit(quality, predicted, agreement(predicted, data.iou[validation]), by_count)


def judged(quality: JointIoUModel, prepared: Prepared, index: np.ndarray, count: int | None = None) -> Agreement:
    """Return the agreement of predictions with the IoU of the candidates ``index``, using the first ``count`` responses
    of each pair; candidates of later responses are left out."""
    mine, rows = prepared.rows(None if count is None else lambda: np.arange(count))
    here = np.isin(mine, index)
    predicted = np.clip(quality.trees.predict(rows[here]), 0.0, 1.0)
    return agreement(predicted, prepared.data.iou[mine[here]])


def trees_of(model: HistGradientBoostingRegressor, rows: np.ndarray) -> Trees:
    """Return the fitted trees as arrays.

    scikit-learn has no public access to them, so the arrays are checked by predicting ``rows`` (n, F).

    Raises:
        DataError: the predictions differ from those of ``model``.
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
    """Return the features of the candidates ``wanted``, in their order, from (candidates, features)."""
    index, found = rows
    place = np.empty(int(index.max()) + 1, np.int64)
    place[index] = np.arange(len(index))
    return found[place[wanted]]
