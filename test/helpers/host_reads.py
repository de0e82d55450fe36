"""Counts the places where a program reads values of a device: on a GPU the host waits there for all queued work.

On a CPU all tensors look alike. Here, tensors "of the device" are those computed from watched inputs: a subclass of
Tensor, which every operation on it returns, too.
"""

import traceback
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

import torch

READS = {
    *("item", "tolist", "cpu", "numpy", "equal", "nonzero", "argwhere", "is_nonzero", "allclose", "masked_select"),
    *("unique", "unique_consecutive", "__bool__", "__int__", "__float__", "__index__", "__array__", "__contains__"),
}


class Watched(torch.Tensor):
    """A tensor of the device; ``reads`` holds a line of the stack for each reading."""

    reads: ClassVar[list[str]] = []

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        by_mask = name == "__getitem__" and any(_is_mask(i) for i in _as_tuple(args[1]))
        out = super().__torch_function__(func, types, args, kwargs or {})
        if name not in READS and not by_mask:
            return out
        if name != "cpu" or type(args[0]) is cls:
            cls.reads.append(f"{name} in {_place()}")
        return out.as_subclass(torch.Tensor) if isinstance(out, torch.Tensor) else out


@contextmanager
def watched_embeddings(lvlm):
    """In the block, hidden states are tensors of the device, wherever the ids of their tokens come from."""
    embeddings = lvlm.text_model.get_input_embeddings()
    hook = embeddings.register_forward_hook(lambda module, ids, hidden: hidden.as_subclass(Watched))
    try:
        yield
    finally:
        hook.remove()


def watched(prompt):
    """The prompt with inputs of the device, and no count of what was read before."""
    Watched.reads = []
    of_device = {name: tensor.as_subclass(Watched) for name, tensor in prompt.vision.items()}
    return replace(
        prompt,
        input_ids=prompt.input_ids.as_subclass(Watched),
        position_ids=prompt.position_ids.as_subclass(Watched),
        vision=of_device,
    )


def taken():
    """The readings since the last call."""
    reads, Watched.reads = Watched.reads, []
    return reads


def _as_tuple(index):
    return index if isinstance(index, tuple) else (index,)


def _is_mask(index):
    return isinstance(index, torch.Tensor) and index.dtype == torch.bool


def _place():
    frames = [f for f in traceback.extract_stack() if "host_reads" not in f.filename and "/torch/" not in f.filename]
    return " < ".join(f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno}" for f in frames[-1:-4:-1])
