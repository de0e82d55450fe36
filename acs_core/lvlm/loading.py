"""Loads an LVLM from a folder or the hub, and says in one line why it cannot.

Nothing from the folder runs: no remote code, no pickled weights.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig, GenerationConfig, PreTrainedConfig

from acs_core.assets import ASSETS
from acs_core.errors import ModelError
from acs_core.jsonfile import shorten
from acs_core.lvlm.base import Family
from acs_core.lvlm.model import LoadedLVLM
from acs_core.lvlm.processors import load_processor
from acs_core.lvlm.prompt import PromptBuilder
from acs_core.lvlm.vetting import check_config, check_folder, read_json
from acs_core.shipped import check_shipped

QUANTIZATIONS = ("none", "8bit", "4bit")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load(
    model: str | os.PathLike[str],
    families: Mapping[str, Family],
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    quantization: str = "none",
) -> LoadedLVLM:
    """See :func:`acs_core.lvlm.load_lvlm`, which passes the registered families."""
    name = os.fspath(model)
    target = pick_device(device)
    torch_dtype = _pick_dtype(dtype, target)
    quantized = _quantization_config(quantization, torch_dtype)
    try:
        return _load(name, families, revision, target, torch_dtype, quantized)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
    except Exception as error:  # transformers, tokenizers and safetensors each raise their own for broken files
        raise ModelError(
            f"{name}: could not be loaded ({type(error).__name__}: {_first_line(error)}): check that config.json, the "
            "*.safetensors, processor_config.json or preprocessor_config.json, tokenizer.json and the chat template "
            "are complete and belong together"
        ) from error


def _load(
    name: str,
    families: Mapping[str, Family],
    revision: str | None,
    device: torch.device,
    dtype: torch.dtype,
    quantized: BitsAndBytesConfig | None,
) -> LoadedLVLM:
    is_folder = Path(name).is_dir()
    config = _read_folder_config(Path(name)) if is_folder else _fetch_config(name, revision)
    adapter = _family(config, families)
    if is_folder:
        check_shipped(Path(name), ASSETS)
        check_folder(Path(name))
    commit = None if is_folder else config.get("_commit_hash")
    pinned = commit or revision  # every file from the commit that the config came from
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        name,
        dtype=dtype,
        attn_implementation="sdpa",
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        # Each tensor goes from its file to where it stays, so host memory never holds the whole model for a GPU.
        device_map={"": str(device)},
        **({"quantization_config": quantized} if quantized else {}),
        **({"revision": pinned} if pinned else {}),
    )
    hf_model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"the weights lack {len(missing)} tensors, such as {missing[0]}: get the files again")
    _check_layers(hf_model)
    processor = load_processor(name, adapter.name, pinned)
    adapter.check(hf_model, processor)
    builder = PromptBuilder.create(processor)
    eos_ids, pad_id = _end_tokens(hf_model, processor.tokenizer)
    # The checkpoint's own sampling settings (repetition penalty and the like) must not change what we ask for.
    hf_model.generation_config = GenerationConfig(eos_token_id=list(eos_ids), pad_token_id=pad_id)
    return LoadedLVLM(name, commit, adapter, hf_model.eval(), processor, builder, eos_ids, pad_id)


def pick_device(device: str) -> torch.device:
    """The device that ``device`` names: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:1".

    Raises:
        ModelError: an unknown name, or a GPU that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except (RuntimeError, ValueError, OverflowError) as error:
        raise ModelError(f"unknown device {shorten(device)}: use auto, cpu, cuda or cuda:N") from error
    if target.type not in ("cpu", "cuda"):
        raise ModelError(f"device {device!r} cannot be used: use auto, cpu, cuda or cuda:N")
    if target.type == "cuda" and (not torch.cuda.is_available() or (target.index or 0) >= torch.cuda.device_count()):
        raise ModelError(
            f"device {device!r} is not there, torch sees {torch.cuda.device_count()} GPUs: use auto or cpu"
        )
    return target


def _pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}: use auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _quantization_config(quantization: str, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    if quantization == "none":
        return None
    if quantization not in QUANTIZATIONS:
        raise ModelError(f"unknown quantization {quantization!r}: use {', '.join(QUANTIZATIONS)}")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(f"quantization {quantization} needs bitsandbytes: pip install bitsandbytes")
    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _read_folder_config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise ModelError("the folder has no config.json: point to a model saved by save_pretrained")
    return read_json(folder / "config.json")


def _fetch_config(name: str, revision: str | None) -> dict[str, Any]:
    path = Path(name)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1 or path.exists():
        raise ModelError("no such model folder: check the path, or give a hub id like owner/name")
    try:
        config, _ = PreTrainedConfig.get_config_dict(name, **({"revision": revision} if revision else {}))
    except Exception as error:  # offline, unknown id, gated: the hub client raises many kinds
        raise ModelError(
            f"neither a folder nor a model that can be fetched ({_first_line(error)}): check the id, the revision and "
            "the network, or give a folder"
        ) from error
    return config


def _family(config: Mapping[str, Any], families: Mapping[str, Family]) -> Family:
    check_config(config)
    kind = str(config.get("model_type"))
    if kind not in families:
        raise ModelError(f"architecture {shorten(kind)} is not supported: use one of {', '.join(sorted(families))}")
    return families[kind]


def _check_layers(hf_model: Any) -> None:
    kinds = set(getattr(hf_model.config.text_config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise ModelError(
            f"layers of kind {', '.join(sorted(kinds - {'full_attention'}))} do not see the whole image: set "
            "use_sliding_window to false in text_config, or use another model"
        )


def _end_tokens(hf_model: Any, tokenizer: Any) -> tuple[tuple[int, ...], int]:
    declared = hf_model.generation_config
    eos = declared.eos_token_id if isinstance(declared.eos_token_id, list) else [declared.eos_token_id]
    ids = tuple(dict.fromkeys(i for i in [*eos, tokenizer.eos_token_id] if i is not None))
    if not ids:
        raise ModelError("no end-of-text token in generation_config.json or the tokenizer: add eos_token_id")
    pad = next(i for i in (declared.pad_token_id, tokenizer.pad_token_id, ids[0]) if i is not None)
    return ids, pad


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:500]
