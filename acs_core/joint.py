"""The joint quality: boosted regression trees that predict a candidate's IoU from its box, its agreement with the other
responses and its attention (:mod:`acs_core.joint_features`). Not the paper's: its regressor sees attention alone.

Fitted by :mod:`training.fit_joint`; here trees are plain arrays in a safetensors file, and numpy is all they need.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from acs_core.attention import Evidence
from acs_core.errors import JointError
from acs_core.identity import ModelIdentity, ModelLike
from acs_core.joint_features import feature_names, features
from acs_core.jsonfile import shorten
from acs_core.tensorfile import Origin, TensorFile
from acs_core.trees import Trees
from acs_core.types import Candidate

STORED = {"feature": "I32", "threshold": "F64", "child": "I32", "value": "F64", "base": "F64"}
FILE = TensorFile(
    what="joint quality",
    key="acs_joint",
    max_bytes=64 * 2**20,
    error=JointError,
    advice="Fit one with `acs-train build`, or pass another with regressor=...",
)


@dataclass(frozen=True)
class JointQuality:
    """``trees`` over the features of the LVLM ``identity``, whose maps are read at ``map_size`` (h, w). ``made_by``
    says how it came about.

    Raises:
        ValueError: the trees read another number of features.
    """

    trees: Trees
    identity: ModelIdentity
    map_size: tuple[int, int]
    made_by: str = ""

    def __post_init__(self) -> None:
        wanted = len(feature_names(self.identity.num_layers))
        if self.trees.width != wanted:
            raise ValueError(f"the trees read {self.trees.width} features, this model's candidates have {wanted}")

    def predict(self, candidates: Sequence[Candidate], evidence: Evidence, image_size: tuple[int, int]) -> np.ndarray:
        """Predicted IoU (C,) in [0, 1] of the candidates of one call; ``image_size`` (w, h).

        Raises:
            JointError: the evidence holds no maps, or those of a model of another shape.
        """
        if not candidates:
            return np.zeros(0)
        if evidence.maps is None:
            raise JointError("acs-joint needs attention maps, but only entropies were captured")
        found = evidence.maps.shape[1:4]
        if found != (4, self.identity.num_layers, self.identity.num_heads):
            raise JointError(
                f"acs-joint was made for maps of {self.identity.num_layers} layers x {self.identity.num_heads} heads, "
                f"got {found[1]} x {found[2]}"
            )
        return np.clip(self.trees.predict(features(candidates, evidence, image_size)), 0.0, 1.0)

    def check(self, lvlm: ModelLike) -> None:
        """Makes sure that it was made for ``lvlm``.

        Raises:
            JointError: it was not; the message says what differs.
        """
        problem = self.identity.mismatch(lvlm)
        if problem:
            raise JointError(
                f"this joint quality does not fit: {problem}. It serves one LVLM only: fit one with `acs-train build`, "
                "or use the selector acs-fusion"
            )


def save_joint(path: str | Path, quality: JointQuality) -> None:
    """Writes safetensors with metadata.

    Raises:
        OSError: the path cannot be written.
    """
    trees = quality.trees
    tensors: dict[str, np.ndarray] = {
        "feature": trees.feature.astype(np.int32),
        "threshold": trees.threshold.astype(np.float64),
        "child": trees.child.astype(np.int32),
        "value": trees.value.astype(np.float64),
        "base": np.array([trees.base], np.float64),
    }
    origin = Origin(quality.identity, quality.map_size, quality.made_by)
    more = {"features": _fingerprint(quality.identity.num_layers)}
    save_file(tensors, str(path), metadata=FILE.metadata(origin, **more))


def load_joint(path: str | Path, lvlm: ModelLike | None = None) -> JointQuality:
    """Reads a joint quality; with ``lvlm`` it also checks that it fits it.

    Raises:
        JointError: unreadable, damaged, without our metadata, not made of trees, or made for another model.
    """
    quality = FILE.read(path, "np", _quality)
    if lvlm is not None:
        quality.check(lvlm)
    return quality


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


def _quality(origin: Origin, fields: Mapping[str, Any], file: Any) -> JointQuality:
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
    return JointQuality(trees, origin.identity, origin.map_size, origin.made_by)


def _fingerprint(num_layers: int) -> str:
    """Twelve hex digits of the features' names: trees know their features by number alone."""
    return hashlib.sha256("\n".join(feature_names(num_layers)).encode()).hexdigest()[:12]
