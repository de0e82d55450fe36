"""Adapters to large vision-language models.

A new family is one file in this package, a subclass of :class:`Family`, and one entry of ``FAMILIES``.
"""

from __future__ import annotations

import os

from acs_core.lvlm import loading
from acs_core.lvlm.base import LVLM, Family, LoadedLVLM, Prompt
from acs_core.lvlm.internvl import InternVL
from acs_core.lvlm.qwen2_5_vl import Qwen2_5_VL
from acs_core.lvlm.qwen2_vl import Qwen2_VL
from acs_core.lvlm.qwen3_vl import Qwen3_VL
from acs_core.lvlm.source import ModelSource
from acs_core.types import FAMILY_FRAME

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Qwen2_VL(),
        Qwen2_5_VL(),
        Qwen3_VL(),
        InternVL(),
    )
}


def open_model(model: str | os.PathLike[str], *, revision: str | None = None, device: str = "auto") -> ModelSource:
    """Read and check the ``config.json`` of a model, without its weights, and resolve the commit of a hub id.

    Args:
        model: short name, folder or hub id of a model, or of the files that `acs-train build` made for one.
        revision: branch, tag or commit of a hub id. For a folder of built files: of the hub id that they were built
            for. A model in a folder has none.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".

    Returns:
        The source, for :func:`load_lvlm`.

    Raises:
        ModelError: the model is missing, of an unsupported architecture or with unsupported layers, needs remote code,
            or there is no such device.
        HeadFileError: the head file of a short name is damaged.
        OptionError: unknown device; both a ModelError and a ValueError.
        TypeError: an argument has the wrong type.
        ValueError: an argument is empty.
    """
    return loading.open_model(model, FAMILIES, revision=revision, device=device)


def load_lvlm(
    model: str | os.PathLike[str] | ModelSource,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    quantization: str = "none",
    max_image_tokens: int | None = None,
    coordinate_frame: str = FAMILY_FRAME,
) -> LoadedLVLM:
    """Load a model from a folder, or from the hub at a ``revision``. All files are of the same commit.

    Args:
        model: as for :func:`open_model`; or what that returned, whose ``revision`` and ``device`` then hold.
        revision: as for :func:`open_model`.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
        dtype: "auto" (bfloat16 on a GPU, else float32), "float32", "float16" or "bfloat16".
        quantization: "none", or "8bit" or "4bit" weights of the linear layers, which needs bitsandbytes.
        max_image_tokens: budget of image tokens of a picture, 16 to 2^20; larger pictures are scaled down. None for
            that of the files built for the model, else the family's default
            (:attr:`acs_core.lvlm.base.Family.max_image_tokens`). The processor's own limit, where lower, stays.
        coordinate_frame: frame in which the model states coordinates, one of
            :data:`acs_core.types.COORDINATE_FRAMES`; "family" for that of the files built for the model, else that of
            its family.

    Options that differ from those of the files built for the model are logged as a warning.

    Raises:
        ModelError: the model is missing, incomplete or of an unsupported architecture, has pickled weights or remote
            code, or there is no such device.
        OptionError: unknown device, dtype or quantization; both a ModelError and a ValueError.
        TypeError: an argument has the wrong type.
        ValueError: an argument is empty, ``max_image_tokens`` is out of range, or ``coordinate_frame`` unknown.
    """
    return loading.load(
        model,
        FAMILIES,
        revision=revision,
        device=device,
        dtype=dtype,
        quantization=quantization,
        max_image_tokens=max_image_tokens,
        coordinate_frame=coordinate_frame,
    )


__all__ = ["FAMILIES", "LVLM", "Family", "LoadedLVLM", "ModelSource", "Prompt", "load_lvlm", "open_model"]
