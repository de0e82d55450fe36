"""Registry of the embedded models' architectures, one line each in ``ARCHES``."""

from __future__ import annotations

from collections.abc import Callable

from training.tiny.arch import Arch, TinyConfig
from training.tiny.arch_internvl import InternVLArch
from training.tiny.arch_qwen2_5_vl import Qwen2_5_VLArch

ARCHES: dict[str, Callable[..., Arch]] = {"internvl": InternVLArch, "qwen2_5_vl": Qwen2_5_VLArch}


def make_arch(name: str, size: TinyConfig | None = None) -> Arch:
    """Return the architecture ``name``, with the sizes of the shipped model unless ``size`` is given.

    Raises:
        ValueError: unknown name; the message lists the known ones.
    """
    if name not in ARCHES:
        raise ValueError(f"unknown architecture {name!r}; choose one of {', '.join(ARCHES)}")
    return ARCHES[name](size) if size else ARCHES[name]()
