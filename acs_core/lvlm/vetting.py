"""Looks a model over before transformers reads it: no Python code of its own, no pickled weights, no files from outside
its folder, no sizes that no model has.

Links are followed: the folders of the hub's cache are made of them. What a link leads to is read as JSON or
safetensors, like everything else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from acs_core.errors import ModelError
from acs_core.identity import MAX_COUNT
from acs_core.jsonfile import shorten

MAX_CONFIG_BYTES = 32 * 2**20  # the weight index of the largest models has a few
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
COUNTS = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "depth", "num_heads")
INDEX = "model.safetensors.index.json"


def check_config(config: Mapping[str, Any]) -> None:
    """Raises ModelError where ``config.json`` asks for code of its own, or for more layers or heads than any model
    has, which would take hours to set up."""
    if config.get("auto_map"):
        raise ModelError(
            "config.json asks to run Python code of its own (auto_map), which is never done: use a folder in "
            "the transformers-native format, for InternVL one whose name ends in -HF"
        )
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
    """Raises ModelError where a model folder brings what is never read, or nothing to read.

    Which is: code of its own in any of its configuration files, an adapter, an index that leads out of the folder or
    to pickled weights, or no safetensors at all.
    """
    for path in sorted(folder.glob("*config*.json")):
        if path.name == "adapter_config.json":
            raise ModelError("the folder holds an adapter, which is not read: merge it into the model first")
        if path.name != "config.json" and any(_auto_maps(read_json(path))):
            raise ModelError(f"{path.name} asks to run Python code of its own (auto_map), which is never done")
    if (folder / INDEX).exists():
        _check_index(folder / INDEX)
    if any(folder.glob("model*.safetensors")):
        return
    if any(next(folder.glob(pattern), None) for pattern in PICKLED):
        raise ModelError(
            "only pickled weights, which can run code when read: convert them with "
            "model.save_pretrained(folder) or get the *.safetensors"
        )
    raise ModelError("no weights (model*.safetensors) in the folder: get the files again")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model folder.

    Raises:
        ModelError: the file cannot be read, is larger than any such file, or holds something else.
    """
    try:
        if not path.is_file() or path.stat().st_size > MAX_CONFIG_BYTES:
            raise ModelError(f"{path.name} is no file, or larger than {MAX_CONFIG_BYTES >> 20} MiB: get the file again")
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path.name} cannot be read ({error}): get the file again") from error
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
    """Every non-empty ``auto_map`` anywhere in ``data``."""
    if isinstance(data, Mapping):
        if data.get("auto_map"):
            yield data["auto_map"]
        data = list(data.values())
    if isinstance(data, list):
        for value in data:
            yield from _auto_maps(value)
