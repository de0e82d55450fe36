"""Copies between host and device, and results that stay on the device until somebody reads them.

On a GPU the host runs ahead of the device. An ordinary copy makes it wait for all work that is queued; :func:`upload`
does not, and a field of :func:`read_on_host` makes it wait only where its values are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

_Record = TypeVar("_Record")


def upload(values: torch.Tensor | Sequence[Any], device: torch.device) -> torch.Tensor:
    """Return ``values``, a tensor on the CPU or nested numbers, as a tensor on ``device``, without a wait for it."""
    tensor = values if isinstance(values, torch.Tensor) else torch.tensor(values)
    if device.type != "cuda":
        return tensor.to(device)
    # From pinned memory the copy is queued behind the work of the device; from other memory the host waits for it.
    return tensor.pin_memory().to(device, non_blocking=True)


class _HostField:
    """Attribute that is set to an array or a tensor and read as an array; the first reading of a tensor copies it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, record: Any, owner: type | None = None) -> Any:
        if record is None:
            return self
        value = record.__dict__[self._name]
        if isinstance(value, torch.Tensor):
            value = record.__dict__[self._name] = value.cpu().numpy()
        return value

    def __set__(self, record: Any, value: Any) -> None:
        record.__dict__[self._name] = value


def read_on_host(*names: str) -> Callable[[type[_Record]], type[_Record]]:
    """Return a decorator of a frozen dataclass: its fields ``names`` may be given as tensors, and are read as arrays.

    A tensor is copied to the host when its field is first read, and :func:`held` returns it without a copy.
    """

    def decorate(record: type[_Record]) -> type[_Record]:
        for name in names:
            setattr(record, name, _HostField(name))
        return record

    return decorate


def held(record: Any, name: str) -> Any:
    """Return the value of a field of :func:`read_on_host` as it is: an array, a tensor on any device, or None."""
    return record.__dict__[name]


def chosen(values: Any, index: np.ndarray) -> Any:
    """Return the entries ``index``, (n,) int, of the first axis of an array or a tensor; None for None."""
    if isinstance(values, torch.Tensor):
        return values[upload(torch.from_numpy(index), values.device)]
    return None if values is None else values[index]


def joined(first: Any, second: Any) -> Any:
    """Return two arrays or two tensors as one along their first axis, an array if one of them is an array."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return torch.cat([first, second.to(first.device)])
    return np.concatenate([v.cpu().numpy() if isinstance(v, torch.Tensor) else v for v in (first, second)])
