"""Imports of transformers without what a single process that only runs a model never uses.

A third of the time that imports take goes to torch's compiler (``torch._dynamo``), to distributed tensors and to the
losses of object detection (scipy). :func:`load_lightly` keeps them out while a model is loaded: transformers is made to
find neither scipy nor torch.distributed, which lasts, and a stand-in takes the compiler's place until the model is
loaded. It is for programs that own their process, ``acs-ground`` and the node: a library must not decide this for
others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

Loaded = TypeVar("Loaded")
_COMPILER = "torch._dynamo"
_WRAPPED = f"{_COMPILER}._trace_wrapped_higher_order_op"


def load_lightly(load: Callable[[], Loaded]) -> Loaded:
    """Return ``load()``, which imports transformers or loads a model, with as few imports as possible.

    If another release of torch or transformers needs more of what is kept out, ``load`` is called again with
    everything.
    """
    if _COMPILER in sys.modules:
        return load()
    try:
        with _stand_ins():
            return load()
    except (ImportError, AttributeError):  # of a stand-in; any other one is raised again
        return load()


@contextmanager
def _stand_ins() -> Iterator[None]:
    import torch

    compiler = ModuleType(_COMPILER)
    compiler.__path__ = [str(Path(torch.__file__).parent / "_dynamo")]
    for name in ("allow_in_graph", "assume_constant_result", "disable"):  # decorators of what is never compiled
        setattr(compiler, name, _unchanged)
    wrapped = ModuleType(_WRAPPED)
    wrapped.TransformGetItemToIndex = _LateTransform  # type: ignore[attr-defined]
    sys.modules |= {_COMPILER: compiler, _WRAPPED: wrapped}
    try:
        _say_no()
        yield
    finally:
        for name, module in ((_COMPILER, compiler), (_WRAPPED, wrapped)):
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _say_no() -> None:
    """Have transformers find neither scipy nor torch.distributed: both answers are cached."""
    import torch
    from transformers.utils import import_utils

    available = torch.distributed.is_available
    scipy = sys.modules.get("scipy")
    torch.distributed.is_available = lambda: False
    if scipy is None and find_spec("scipy") is not None:
        sys.modules["scipy"] = None  # type: ignore[assignment]  # find_spec finds nothing then
    try:
        for answer in (import_utils.is_torch_distributed_available, import_utils.is_scipy_available):
            answer.cache_clear()  # importing transformers asks already
            answer()
    finally:
        torch.distributed.is_available = available
        if scipy is None:
            sys.modules.pop("scipy", None)


def _unchanged(function: Any = None, *_: Any, **__: Any) -> Any:
    """Return ``function`` as it is; without one, a decorator that does."""
    return _unchanged if function is None else function


class _LateTransform:
    """The class of that name in torch, imported when it is used."""

    def __new__(cls) -> Any:
        from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex

        return TransformGetItemToIndex()
