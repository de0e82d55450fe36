"""The one file from which a stopped training run goes on."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from training.errors import DataError


def write_checkpoint(file: Path, run: dict[str, Any], parts: dict[str, Any], numbers: dict[str, Any]) -> None:
    """Replaces ``file``, whole or not at all. ``run`` says what the run is, ``parts`` have a ``state_dict``."""
    partial = file.with_suffix(".pt.part")
    torch.save({"run": run, **numbers, **{name: part.state_dict() for name, part in parts.items()}}, partial)
    partial.replace(file)


def read_checkpoint(file: Path, run: dict[str, Any], parts: dict[str, Any], device: str) -> dict[str, Any]:
    """Fills ``parts`` from ``file`` and returns the rest of it; nothing and {} where there is no such file.

    Raises:
        DataError: the file is damaged, or of another run.
    """
    if not file.exists():
        return {}
    try:
        state = torch.load(file, map_location=device, weights_only=True)
        found = state.pop("run")
        differing = [k for k in run if found.get(k) != run[k]]
        if not differing:
            for name, part in parts.items():
                part.load_state_dict(state.pop(name))
    except (EOFError, KeyError, RuntimeError, UnpicklingError) as error:
        raise DataError(f"{file} is damaged ({type(error).__name__}): delete it and train from the start") from error
    if differing:
        k = differing[0]
        raise DataError(f"{file.parent} holds a run with {k} {found.get(k)}, not {run[k]}: choose another folder")
    return dict(state)
