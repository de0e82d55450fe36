"""Safety checks of a model folder before transformers reads it, and of the numbers of the loaded model.

Refused are Python code of the model's own, pickled weights, references to files outside the folder, and sizes that no
real model has; of a loaded model, weights that are not finite, and image processors that divide by zero. Symbolic links
are followed, since the folders of the hub's cache consist of them; their targets are read only as JSON or safetensors,
like all other files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import torch

from acs_core.artifacts.identity import MAX_COUNT
from acs_core.artifacts.json_io import Limits
from acs_core.artifacts.json_io import read_json as read_any
from acs_core.errors import ModelError
from acs_core.lvlm.folders import (
    check_pointers,
    check_processor_files,
    check_quantized_weights,
    is_pointer,
    native_repository,
    pointer_text,
)
from acs_core.plain_text import shorten

CONFIG = Limits(32 * 2**20, 1_000_000)  # the weight index of the largest models takes a few MiB
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
COUNTS = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "depth", "num_heads")
INDEX = "model.safetensors.index.json"
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
MAX_WEIGHT = 1e9  # weights of models are below 1000
MAX_PIXEL_SCALE = 1e6


def check_config(config: Mapping[str, Any], name: str = "") -> None:
    """Check the contents of the ``config.json`` of the folder or hub id ``name``.

    Raises:
        ModelError: it asks for code of its own, or for more layers or heads than any real model has, or the library
            for its quantised weights is missing.
    """
    if config.get("auto_map"):
        raise ModelError(
            "config.json asks to run Python code of its own (auto_map), which is never done: "
            + native_repository(name, config)
        )
    check_quantized_weights(config)
    for part in ("", "text_config", "vision_config"):
        section = config.get(part, {}) if part else config
        if not isinstance(section, Mapping):
            raise ModelError(f'config.json: field "{part}" must be an object, got {shorten(section)}')
        for key in COUNTS:
            value = section.get(key, 1)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_COUNT:
                where = f"{part}.{key}" if part else key
                raise ModelError(
                    f'config.json: field "{where}" must be a whole number from 1 to {MAX_COUNT}, got {shorten(value)}'
                )


def check_folder(folder: Path) -> None:
    """Check that a model folder holds safetensors weights and nothing unsafe.

    Raises:
        ModelError: a configuration file asks for code of its own, the folder holds an adapter, the weight index refers
            to files outside the folder or to pickled weights, or there are no safetensors weights.
    """
    check_pointers(folder)
    for path in sorted(folder.glob("*config*.json")):
        if path.name == "adapter_config.json":
            raise ModelError("the folder holds an adapter, which is not read: merge it into the model first")
        if path.name != "config.json" and any(_auto_maps(read_json(path))):
            raise ModelError(f"{path.name} asks to run Python code of its own (auto_map), which is never done")
    check_processor_files(folder)
    if (folder / INDEX).exists():
        _check_index(folder / INDEX)
    if any(folder.glob("model*.safetensors")):
        return
    if any(next(folder.glob(pattern), None) for pattern in PICKLED):
        raise ModelError(
            "only pickled weights, which can run code when read: convert them with "
            "model.save_pretrained(folder) or get the *.safetensors"
        )
    if any(folder.glob("*.gguf")):
        raise ModelError("weights for llama.cpp only (*.gguf), which are not read: get the *.safetensors")
    raise ModelError("no weights (model*.safetensors) in the folder: get the files again")


def check_weights(hf_model: Any) -> None:
    """Check that the weights of a model are finite and of a plausible size, in one pass without a copy.

    Quantised weights are not checked.

    Raises:
        ModelError: a weight is NaN, infinite, or larger than those of any model.
    """
    for name, weight in hf_model.named_parameters():
        if weight.dtype not in FLOATS or weight.device.type == "meta" or not weight.numel():
            continue
        low, high = (float(v) for v in torch.aminmax(weight.detach()))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ModelError(
                f"the weight {name} holds NaN or infinite values: get the files again or, if they are right, use "
                "another dtype"
            )
        if max(-low, high) > MAX_WEIGHT:
            raise ModelError(f"the weight {name} holds values up to {max(-low, high):.3g}: get the files again")


def check_pixel_scale(image_processor: Any) -> None:
    """Check that an image processor maps pixels to finite values.

    Raises:
        ModelError: a standard deviation or factor is not positive, or a value is not finite or too large.
    """
    for name, low in (("image_mean", None), ("image_std", 0.0), ("rescale_factor", 0.0)):
        given = getattr(image_processor, name, None)
        for value in given if isinstance(given, (list, tuple)) else () if given is None else (given,):
            good = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MAX_PIXEL_SCALE
            if not good or (low is not None and not value > low):
                above = "" if low is None else " above 0"
                raise ModelError(
                    f'preprocessor_config.json: field "{name}" must hold numbers{above} up to {MAX_PIXEL_SCALE:g}, got '
                    f"{shorten(given)}"
                )


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a model folder.

    Raises:
        ModelError: the file cannot be read, is too large, or does not hold a JSON object.
    """
    try:
        data = read_any(path, CONFIG)
    except ValueError as error:
        if is_pointer(path):
            raise ModelError(pointer_text([path.name])) from error
        raise ModelError(f"{path.name} cannot be used ({error}): get the file again") from error
    if not isinstance(data, dict):
        raise ModelError(f"{path.name} does not hold a JSON object: get the file again")
    return data


def _check_index(path: Path) -> None:
    shards = read_json(path).get("weight_map")
    if not isinstance(shards, Mapping):
        raise ModelError(f'{path.name}: field "weight_map" must be an object: get the file again')
    for shard in set(map(str, shards.values())):
        if PurePath(shard).name != shard or not shard.endswith(".safetensors"):
            raise ModelError(f"{path.name} names {shorten(shard)}, which is no *.safetensors of this folder")


def _auto_maps(data: Any) -> Iterator[Any]:
    """Yield every non-empty ``auto_map`` anywhere in ``data``."""
    if isinstance(data, Mapping):
        if data.get("auto_map"):
            yield data["auto_map"]
        data = list(data.values())
    if isinstance(data, list):
        for value in data:
            yield from _auto_maps(value)
