"""Kinds of model folders that people have and that are not what transformers saves: pointers of git-lfs, quantised
weights, repositories with code of their own. Each is told by its small files, before a weight is read.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acs_core.artifacts.json_io import LFS_POINTER
from acs_core.errors import ModelError
from acs_core.plain_text import join_some, shorten

POINTED = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")  # files of a model that git-lfs may hold

# Files of which a folder needs one set.
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("tokenizer.model",))
IMAGE_PROCESSORS = ("preprocessor_config.json", "processor_config.json")

# quant_method of config.json -> modules that transformers reads such weights with, and the names of their packages.
# FP8 weights are read by transformers itself.
QUANTIZED_BY: dict[str, tuple[tuple[str, str], ...]] = {
    "awq": (("gptqmodel", "gptqmodel"),),
    "gptq": (("gptqmodel", "gptqmodel"), ("optimum", "optimum")),
    "compressed-tensors": (("compressed_tensors", "compressed-tensors"),),
    "bitsandbytes": (("bitsandbytes", "bitsandbytes"),),
    "fp8": (),
    "auto-round": (("auto_round", "auto-round"),),
    "torchao": (("torchao", "torchao"),),
    "hqq": (("hqq", "hqq"),),
}


def is_pointer(path: Path) -> bool:
    """Return whether a file is the pointer that git leaves in place of a file of git-lfs."""
    try:
        if not path.is_file() or path.stat().st_size > 1024:
            return False
        with path.open("rb") as file:
            return file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:
        return False


def check_pointers(folder: Path) -> None:
    """Check that the files of a model folder are there, and not only their git-lfs pointers.

    Raises:
        ModelError: some are pointers.
    """
    if found := sorted(path.name for pattern in POINTED for path in folder.glob(pattern) if is_pointer(path)):
        raise ModelError(pointer_text(found))


def check_processor_files(folder: Path) -> None:
    """Check that a model folder has the files of a tokenizer and of an image processor.

    Raises:
        ModelError: some are missing.
    """
    if not any(all((folder / name).is_file() for name in names) for names in TOKENIZERS):
        raise ModelError("no tokenizer in the folder: get tokenizer.json, or vocab.json and merges.txt")
    if not any((folder / name).is_file() for name in IMAGE_PROCESSORS):
        raise ModelError(f"no image processor in the folder: get {' or '.join(IMAGE_PROCESSORS)}")


def pointer_text(names: list[str]) -> str:
    """The message about files that are pointers."""
    what = "is a git-lfs pointer, not the file itself" if len(names) == 1 else "are git-lfs pointers, not the files"
    return f"{join_some(names, 3)} {what}: run git lfs pull in the folder"


def check_quantized_weights(config: Mapping[str, Any]) -> None:
    """Check that the library for the quantised weights of a model is installed.

    Raises:
        ModelError: it is not, or there is none for such weights.
    """
    method = quantization_method(config)
    if method is None:
        if isinstance(config.get("quantization"), Mapping):
            raise ModelError(
                "the weights are quantised for MLX (quantization in config.json), which transformers does not read: "
                "use the model that they were made of, with quantization 4bit or 8bit"
            )
        return
    if method not in QUANTIZED_BY:
        raise ModelError(
            f"the weights are quantised by {shorten(method)}, which acs does not read: use the model that they were "
            f"made of, or one quantised by {', '.join(QUANTIZED_BY)}"
        )
    missing = [package for module, package in QUANTIZED_BY[method] if importlib.util.find_spec(module) is None]
    if missing:
        raise ModelError(f"the weights are quantised by {method}: pip install {' '.join(missing)}")


def check_not_quantized(config: Mapping[str, Any]) -> None:
    """Check that the weights of a model are not quantised, so that they can be.

    Raises:
        ModelError: they are.
    """
    if (method := quantization_method(config)) is not None:
        raise ModelError(f"the weights are quantised already, by {method}: leave the option quantization out")


def quantization_method(config: Mapping[str, Any]) -> str | None:
    """Return the method by which the weights of a model are quantised, in lower case; None if they are not."""
    for section in (config, config.get("text_config")):
        if not isinstance(section, Mapping):
            continue
        found = section.get("quantization_config") or section.get("compression_config")
        if isinstance(found, Mapping) and found:
            given = found.get("quant_method") or ("compressed-tensors" if "config_groups" in found else None)
            by_bits = found.get("load_in_4bit") or found.get("load_in_8bit")
            method = str(given or ("bitsandbytes" if by_bits else "an unnamed method")).lower()
            return {"gptqmodel": "gptq", "intel/auto-round": "auto-round"}.get(method, method)
    return None


def native_repository(name: str, config: Mapping[str, Any]) -> str:
    """Return what to use in place of the model ``name``, which has code of its own, in words."""
    base = name.rstrip("/").rpartition("/")[2]
    if config.get("model_type") == "internvl_chat" and re.match(r"InternVL3(?:_5)?-", base):
        suffix = "-HF" if base.startswith("InternVL3_5") else "-hf"
        return f"use the repository in the format of transformers, OpenGVLab/{base}{suffix}"
    return "use a repository in the format of transformers, for InternVL one whose name ends in -hf or -HF"
