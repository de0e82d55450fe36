"""Selectors by name. A new one is one file here and one line in ``_MAKERS``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from acs_core.assets import asset_for
from acs_core.errors import HeadFileError, RegressorError, SelectorError
from acs_core.heads import HeadFile
from acs_core.identity import ModelLike
from acs_core.regressor import load_regressor
from acs_core.selection.acs_free import AcsFree
from acs_core.selection.acs_learned import AcsLearned
from acs_core.selection.base import Selector
from acs_core.selection.order import FirstInOrder

__all__ = [
    "AcsFree",
    "AcsLearned",
    "FirstInOrder",
    "HasDevice",
    "Selector",
    "check_name",
    "make_selector",
    "selector_names",
]


class HasDevice(ModelLike, Protocol):
    """A loaded LVLM, as far as making a selector needs to know it: its identity and its torch device."""

    @property
    def device(self) -> object:
        """Where the weights are."""


def _acs_free(lvlm: HasDevice, heads: HeadFile | str | Path | None, regressor: str | Path | None) -> Selector:
    source = heads if heads is not None else asset_for(lvlm, "heads.json")
    if source is None:
        raise HeadFileError(
            f"no head file is known for the model {lvlm.name}: build one with `acs-train build`, or pass "
            "heads=... (command line: --heads FILE)"
        )
    file = source if isinstance(source, HeadFile) else HeadFile.load(source)
    file.check(lvlm)
    return AcsFree(file)


def _acs_learned(lvlm: HasDevice, heads: HeadFile | str | Path | None, regressor: str | Path | None) -> Selector:
    source = regressor if regressor is not None else asset_for(lvlm, "regressor.safetensors")
    if source is None:
        raise RegressorError(
            f"no regressor is known for the model {lvlm.name}: train one with `acs-train build`, or pass "
            "regressor=... (command line: --regressor FILE); the selector acs-free needs none"
        )
    model, info = load_regressor(source, str(lvlm.device), lvlm)
    return AcsLearned(model, info.map_size)


_MAKERS: dict[str, Callable[[HasDevice, HeadFile | str | Path | None, str | Path | None], Selector]] = {
    "acs-free": _acs_free,
    "acs-learned": _acs_learned,
    "greedy": lambda lvlm, heads, regressor: FirstInOrder("greedy", greedy_decoding=True),
    "first-valid": lambda lvlm, heads, regressor: FirstInOrder("first-valid", greedy_decoding=False),
}


def selector_names() -> tuple[str, ...]:
    """The names that :func:`make_selector` knows."""
    return tuple(_MAKERS)


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
        HeadFileError, RegressorError: the file it needs is missing, damaged, or of another model.
    """
    check_name(name)
    return _MAKERS[name](lvlm, heads, regressor)
