"""Selectors by name. A new one is one file here and one line in ``_MAKERS``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from acs_core.assets import asset_for
from acs_core.errors import HeadFileError, JointError, RegressorError, SelectorError
from acs_core.heads import HeadFile
from acs_core.identity import ModelLike
from acs_core.joint import load_joint
from acs_core.regressor import load_regressor
from acs_core.selection.acs_free import AcsFree
from acs_core.selection.acs_fusion import AcsFusion
from acs_core.selection.acs_joint import AcsJoint
from acs_core.selection.acs_learned import AcsLearned
from acs_core.selection.base import MakesBoxes, Selector
from acs_core.selection.consensus import MajorityVote, MeanBox
from acs_core.selection.order import FirstInOrder
from acs_core.selection.smallest import Smallest
from acs_core.selection.token_entropy import TokenEntropy

__all__ = [
    "JOINT_FILE",
    "REGRESSOR_FILE",
    "AcsFree",
    "AcsFusion",
    "AcsJoint",
    "AcsLearned",
    "FirstInOrder",
    "HasDevice",
    "MajorityVote",
    "MakesBoxes",
    "MeanBox",
    "Selector",
    "Smallest",
    "TokenEntropy",
    "check_name",
    "make_selector",
    "makes_boxes",
    "regressor_file",
    "selector_names",
]


REGRESSOR_FILE, JOINT_FILE = "regressor.safetensors", "joint.safetensors"


class HasDevice(ModelLike, Protocol):
    """A loaded LVLM, as far as making a selector needs to know it: its identity and its torch device."""

    @property
    def device(self) -> object:
        """Where the weights are."""


def _head_file(lvlm: HasDevice, heads: HeadFile | str | Path | None) -> HeadFile:
    source = heads if heads is not None else asset_for(lvlm, "heads.json")
    if source is None:
        raise HeadFileError(
            f"no head file is known for the model {lvlm.name}: build one with `acs-train build`, or pass "
            "heads=... (command line: --heads FILE)"
        )
    file = source if isinstance(source, HeadFile) else HeadFile.load(source)
    file.check(lvlm)
    return file


def _acs_joint(lvlm: HasDevice, heads: HeadFile | str | Path | None, regressor: str | Path | None) -> Selector:
    source = regressor if regressor is not None else asset_for(lvlm, JOINT_FILE)
    if source is None:
        raise JointError(
            f"no joint quality is known for the model {lvlm.name}: fit one with `acs-train build`, or pass "
            "regressor=... (command line: --regressor FILE); the selector acs-fusion needs none"
        )
    return AcsJoint(load_joint(source, lvlm))


def _acs_learned(lvlm: HasDevice, heads: HeadFile | str | Path | None, regressor: str | Path | None) -> Selector:
    source = regressor if regressor is not None else asset_for(lvlm, REGRESSOR_FILE)
    if source is None:
        raise RegressorError(
            f"no regressor is known for the model {lvlm.name}: train one with `acs-train build`, or pass "
            "regressor=... (command line: --regressor FILE); the selector acs-free needs none"
        )
    model, info = load_regressor(source, str(lvlm.device), lvlm)
    return AcsLearned(model, info.map_size)


@dataclass(frozen=True)
class _Maker:
    """``make`` (model, head file, regressor) -> selector; ``makes_boxes``: whether it is a :class:`MakesBoxes`;
    ``regressor``: name of the file that predicts IoU for it, beside a model's other files."""

    make: Callable[[HasDevice, HeadFile | str | Path | None, str | Path | None], Selector]
    makes_boxes: bool = False
    regressor: str = REGRESSOR_FILE


_MAKERS: dict[str, _Maker] = {
    "acs-free": _Maker(lambda lvlm, heads, regressor: AcsFree(_head_file(lvlm, heads))),
    "acs-learned": _Maker(_acs_learned),
    "acs-fusion": _Maker(lambda lvlm, heads, regressor: AcsFusion(_head_file(lvlm, heads)), makes_boxes=True),
    "acs-joint": _Maker(_acs_joint, makes_boxes=True, regressor=JOINT_FILE),
    "greedy": _Maker(lambda *_: FirstInOrder("greedy", greedy_decoding=True)),
    "pass-at-1": _Maker(lambda *_: FirstInOrder("pass-at-1", greedy_decoding=False, first_response_only=True)),
    "first-valid": _Maker(lambda *_: FirstInOrder("first-valid", greedy_decoding=False)),
    "token-entropy": _Maker(lambda *_: TokenEntropy()),
    "majority-vote": _Maker(lambda *_: MajorityVote(), makes_boxes=True),
    "mean-box": _Maker(lambda *_: MeanBox(), makes_boxes=True),
    "smallest": _Maker(lambda *_: Smallest()),
}


def selector_names() -> tuple[str, ...]:
    """The names that :func:`make_selector` knows."""
    return tuple(_MAKERS)


def makes_boxes(name: str) -> bool:
    """Whether the selector ``name`` publishes boxes that are none of the candidates'; False for an unknown one."""
    return name in _MAKERS and _MAKERS[name].makes_boxes


def regressor_file(name: str) -> str:
    """The name of the file that the selector ``name`` takes as ``regressor``, beside a model's other files."""
    return _MAKERS[name].regressor if name in _MAKERS else REGRESSOR_FILE


def check_name(name: str) -> None:
    """Makes sure that there is a selector of this name.

    Raises:
        SelectorError: there is none; the message lists those that there are.
    """
    if name not in _MAKERS:
        raise SelectorError(f"unknown selector {name!r}: choose one of {', '.join(_MAKERS)}")


def make_selector(
    name: str,
    lvlm: HasDevice,
    heads: HeadFile | str | Path | None = None,
    regressor: str | Path | None = None,
) -> Selector:
    """The selector ``name`` for ``lvlm``. What is not given is taken from the model's folder or the shipped files.

    Raises:
        SelectorError: unknown name.
        HeadFileError, RegressorError (JointError is one): the file it needs is missing, damaged, or of another model.
    """
    check_name(name)
    return _MAKERS[name].make(lvlm, heads, regressor)
