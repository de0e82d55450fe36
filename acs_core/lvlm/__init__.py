"""Adapters to large vision-language models. A new family is one file and one line in ``FAMILIES``."""

from __future__ import annotations

import os

from acs_core.lvlm.base import LVLM, Family, Prompt
from acs_core.lvlm.internvl import InternVL
from acs_core.lvlm.loading import load
from acs_core.lvlm.model import LoadedLVLM
from acs_core.lvlm.qwen2_5_vl import Qwen2_5_VL

# By the model_type of config.json.
FAMILIES: dict[str, Family] = {
    "internvl": InternVL(),
    "qwen2_5_vl": Qwen2_5_VL(),
}


def load_lvlm(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    quantization: str = "none",
) -> LoadedLVLM:
    """Loads a model folder, or a hub id at a ``revision``.

    ``device``: auto (a GPU if there is one), cpu, cuda, cuda:N. ``dtype``: auto (bfloat16 on a GPU, else float32),
    float32, float16, bfloat16. ``quantization``: none, or 8bit or 4bit weights of the linear layers, by bitsandbytes,
    which has to be installed.

    Raises:
        ModelError: missing or incomplete, another architecture, pickled weights, remote code, no such device.
    """
    return load(model, FAMILIES, revision=revision, device=device, dtype=dtype, quantization=quantization)


__all__ = ["FAMILIES", "LVLM", "Family", "LoadedLVLM", "Prompt", "load_lvlm"]
