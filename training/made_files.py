"""What the steps have written into a folder, found again by the next: head file, regressor, joint quality, and which
images were held out. Each must be of the model whose attention the collection holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from acs_core.heads import HeadFile
from acs_core.identity import ModelIdentity
from acs_core.joint import JointQuality, load_joint
from acs_core.regressor import AttentionIoURegressor, RegressorInfo, load_regressor
from acs_core.selection import JOINT_FILE, REGRESSOR_FILE, AcsFree, AcsFusion, AcsJoint, AcsLearned, Selector
from training.errors import DataError
from training.store import Collection

REGRESSOR, JOINT, HEADS, FIT, ANALYSIS, CALIBRATION = (
    REGRESSOR_FILE,
    JOINT_FILE,
    "heads.json",
    "fit.json",
    "analysis.json",
    "calibration.json",
)


def identity_of(data: Collection) -> ModelIdentity:
    """The LVLM whose attention ``data`` holds."""
    return ModelIdentity.from_dict(data.manifest["model"])


def check_same_model(data: Collection, folder: str | Path, found: ModelIdentity, what: str) -> None:
    """Raises DataError unless ``found``, the model of ``what``, is the one whose attention the store holds."""
    mine = identity_of(data)
    if mine != found:
        raise DataError(
            f"{folder} holds attention of {_named(mine)}, but {what} was made for {_named(found)}: both must be of one "
            "model"
        )


def made_selectors(out: Path, data: Collection) -> list[Selector]:
    """The selectors whose files lie in ``out``.

    Raises:
        DataError: there is none, or one was made for another model than ``data``.
        RegressorError, HeadFileError: a file is damaged.
    """
    found: list[Selector] = []
    if (out / REGRESSOR).is_file():
        model, info = read_regressor(out, data)
        found.append(AcsLearned(model, info.map_size))
    if (out / HEADS).is_file():
        heads = HeadFile.load(out / HEADS)
        check_same_model(data, "the collection", heads.identity, str(out / HEADS))
        found += [AcsFree(heads), AcsFusion(heads)]
    if (out / JOINT).is_file():
        found.append(AcsJoint(read_joint(out, data)))
    if not found:
        raise DataError(
            f"{out} holds neither {REGRESSOR}, {HEADS} nor {JOINT}: run `acs-train fit` and `analyze` first"
        )
    return found


def read_regressor(out: Path, data: Collection) -> tuple[AttentionIoURegressor, RegressorInfo]:
    """The regressor in ``out``, which must fit ``data``.

    Raises:
        DataError: it was made for another model or map size.
        RegressorError: it is missing or damaged.
    """
    model, info = load_regressor(out / REGRESSOR)
    check_same_model(data, "the collection", info.identity, str(out / REGRESSOR))
    _check_map_size(data, info.map_size, out / REGRESSOR)
    return model, info


def _check_map_size(data: Collection, wanted: tuple[int, int], file: Path) -> None:
    if tuple(data.maps.shape[-2:]) != wanted:
        raise DataError(
            f"the collection's maps are {data.maps.shape[-2]} x {data.maps.shape[-1]}, {file} reads {wanted[0]} x "
            f"{wanted[1]}: collect with --map-side {wanted[0]}"
        )


def read_joint(out: Path, data: Collection) -> JointQuality:
    """The joint quality in ``out``, which must fit ``data``.

    Raises:
        DataError: it was made for another model or map size.
        JointError: it is missing or damaged.
    """
    quality = load_joint(out / JOINT)
    check_same_model(data, "the collection", quality.identity, str(out / JOINT))
    _check_map_size(data, quality.map_size, out / JOINT)
    return quality


def held_candidates(out: Path, data: Collection) -> np.ndarray:
    """The candidates of the images that ``acs-train fit`` held out.

    Raises:
        DataError: ``fit.json`` is missing or damaged, or names none of the collection's images.
    """
    try:
        held = json.loads((out / FIT).read_text())["held_images"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{out / FIT} is missing or damaged ({error}): run `acs-train fit` into {out} first") from error
    index = np.flatnonzero(np.isin(data.image, held))
    if not len(index):
        raise DataError(f"{out / FIT} belongs to another collection: none of its held-out images is in this one")
    return index


def _named(identity: ModelIdentity) -> str:
    commit = f" at {identity.revision}" if identity.revision else ""
    return f"{identity.model}{commit} ({identity.num_layers} x {identity.num_heads} heads)"
