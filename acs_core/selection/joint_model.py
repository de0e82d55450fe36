"""The joint model: boosted regression trees that predict a candidate's IoU from its box, its agreement with the other
responses and its attention (:mod:`acs_core.selection.joint_features`).

It is not part of the paper, whose regressor reads attention alone. :mod:`training.fitting.fit_joint` fits it; here the
trees are plain arrays in a safetensors file, which need only numpy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from acs_core.artifacts.identity import ModelIdentity, ModelInfo
from acs_core.artifacts.tensor_io import Origin, TensorFile
from acs_core.artifacts.trees import Trees
from acs_core.attention import AttentionRecord
from acs_core.errors import JointError, NonFiniteError
from acs_core.output import write_bytes
from acs_core.plain_text import shorten
from acs_core.selection.base import ArtifactKind
from acs_core.selection.joint_features import feature_names, features
from acs_core.types import Candidate

MAX_VALUE = 10.0  # of base and leaves, whose sum is a predicted IoU in [0, 1]
STORED = {"feature": "I32", "threshold": "F64", "child": "I32", "value": "F64", "base": "F64"}
FILE = TensorFile(
    what="joint model",
    key="acs_joint",
    max_bytes=64 * 2**20,
    error=JointError,
    advice="Fit one with `acs-train build`, or pass another with joint_model=...",
    instead="acs-fusion",
)


@dataclass(frozen=True)
class JointIoUModel:
    """Joint model of one LVLM.

    Attributes:
        trees: trees over the features of the LVLM.
        identity: the LVLM.
        map_size: (h, w) of the attention maps.
        made_by: origin of the model.

    Raises:
        ValueError: the trees read another number of features, their base or a leaf is beyond 10, or no prediction can
            lie in [0, 1].
    """

    trees: Trees
    identity: ModelIdentity
    map_size: tuple[int, int]
    made_by: str = ""

    def __post_init__(self) -> None:
        wanted = len(feature_names(self.identity.num_layers))
        if self.trees.width != wanted:
            raise ValueError(f"the trees read {self.trees.width} features, this model's candidates have {wanted}")
        leaves = np.abs(self.trees.value[self.trees.leaves])
        if max(abs(self.trees.base), leaves.max()) > MAX_VALUE:
            raise ValueError(
                f"the trees predict no IoU: their base is {self.trees.base:.3g}, their largest leaf {leaves.max():.3g}"
            )
        low, high = self.trees.range
        if low > 1.0 or high < 0.0:
            raise ValueError(f"the trees predict from {low:.3g} to {high:.3g}, never an IoU, which lies in [0, 1]")

    def predict(
        self, candidates: Sequence[Candidate], record: AttentionRecord, image_size: tuple[int, int]
    ) -> np.ndarray:
        """Predict the IoU (C,) in [0, 1] of the candidates of one call; ``image_size`` is (width, height) in pixels.

        Raises:
            JointError: ``record`` holds no maps, or those of a model of another shape.
            NonFiniteError: the attention, or a feature computed from it, is NaN or infinite.
        """
        if not candidates:
            return np.zeros(0)
        if record.maps is None:
            raise JointError("acs-joint needs attention maps, but only entropies were captured")
        found = record.maps.shape[1:4]
        if found != (4, self.identity.num_layers, self.identity.num_heads):
            raise JointError(
                f"acs-joint was made for maps of {self.identity.num_layers} layers x {self.identity.num_heads} heads, "
                f"got {found[1]} x {found[2]}"
            )
        rows = features(candidates, record, image_size)  # (C, F)
        if not np.isfinite(rows).all():  # comparisons with NaN are false: the trees would still give a value
            raise NonFiniteError(
                "acs-joint got NaN or infinite attention: the model's weights or its dtype are broken; try float32, or "
                "get the weights again"
            )
        return np.clip(self.trees.predict(rows), 0.0, 1.0)


def save_joint(path: str | Path, model: JointIoUModel) -> None:
    """Write the model atomically as safetensors with metadata.

    Raises:
        OSError: the path cannot be written.
    """
    trees = model.trees
    tensors: dict[str, np.ndarray] = {
        "feature": trees.feature.astype(np.int32),
        "threshold": trees.threshold.astype(np.float64),
        "child": trees.child.astype(np.int32),
        "value": trees.value.astype(np.float64),
        "base": np.array([trees.base], np.float64),
    }
    origin = Origin(model.identity, model.map_size, model.made_by)
    more = {"features": _fingerprint(model.identity.num_layers)}
    write_bytes(path, save(tensors, FILE.metadata(origin, **more)))


def load_joint(path: str | Path, lvlm: ModelInfo | None = None) -> JointIoUModel:
    """Read a joint model; with ``lvlm``, check that it was made for that model.

    Raises:
        JointError: the file is unreadable, damaged, without our metadata, does not hold trees, or was made for another
            model.
    """
    return FILE.read(path, "np", _joint_model, lvlm)


def _arrays(file: Any) -> dict[str, np.ndarray]:
    names = set(file.keys())
    for name, kind in STORED.items():
        if name not in names:
            raise ValueError(f"the array {name} is missing")
        found = file.get_slice(name).get_dtype()
        if found != kind:
            raise ValueError(f"the array {name} is of type {found}, not {kind}")
    extra = sorted(names - set(STORED))
    if extra:
        raise ValueError(f"unknown array {shorten(extra[0])}")
    return {name: file.get_tensor(name) for name in STORED}


def _joint_model(origin: Origin, fields: Mapping[str, Any], file: Any) -> JointIoUModel:
    num_layers = origin.identity.num_layers
    if fields.get("features") != _fingerprint(num_layers):
        raise ValueError(
            f'field "features" is {shorten(fields.get("features"))}: it was fitted to other features than this version '
            "of acs computes"
        )
    arrays = _arrays(file)
    base = arrays.pop("base")
    if base.shape != (1,):
        raise ValueError(f"base has shape {base.shape}, not (1,)")
    trees = Trees(**arrays, base=float(base[0]), width=len(feature_names(num_layers)))
    return JointIoUModel(trees, origin.identity, origin.map_size, origin.made_by)


def _fingerprint(num_layers: int) -> str:
    """Return twelve hex digits that identify the features' names: the trees refer to features by index only."""
    return hashlib.sha256("\n".join(feature_names(num_layers)).encode()).hexdigest()[:12]


JOINT_MODEL = ArtifactKind(
    "joint_model",
    "joint.safetensors",
    load_joint,
    JointError,
    "no joint model is known for the model {model}: fit one with `acs-train build`, or pass joint_model=... (command "
    "line: --joint-model FILE)",
    former_option="regressor",
)
