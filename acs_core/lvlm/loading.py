"""Loading of an LVLM from a folder or the hub; every failure becomes a ModelError of one line.

No code of the model's own is run, and no pickled weights are read.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    GenerationConfig,
)
from transformers.utils import logging as transformers_logging

from acs_core.arguments import instance, path, text
from acs_core.artifacts.built import BUILT_FILE, built_for, built_in
from acs_core.artifacts.hub import HubRepository, first_line
from acs_core.artifacts.model_name import name_problem
from acs_core.artifacts.registry import ASSETS, check_shipped, resolve_model
from acs_core.errors import HeadFileError, ModelError, OptionError
from acs_core.lvlm.base import Family, LoadedLVLM
from acs_core.lvlm.checks import check_config, check_folder, check_weights, read_json
from acs_core.lvlm.folders import check_not_quantized
from acs_core.lvlm.picture import PictureOptions
from acs_core.lvlm.processors import load_processor
from acs_core.lvlm.prompt import PromptBuilder
from acs_core.lvlm.source import ModelSource
from acs_core.plain_text import shorten
from acs_core.types import FAMILY_FRAME

log = logging.getLogger(__name__)
QUANTIZATIONS = ("none", "8bit", "4bit")
# Messages of bitsandbytes that help nobody, by logger: the first comes from every layer in every forward pass, the
# second asks for a package that runs downloaded code.
QUANTISER_NOISE = {
    "bitsandbytes.autograd._functions": "inputs will be cast",
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward from kernels-community",
}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load(
    model: str | os.PathLike[str] | ModelSource,
    families: Mapping[str, Family],
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    quantization: str = "none",
    max_image_tokens: int | None = None,
    coordinate_frame: str = FAMILY_FRAME,
) -> LoadedLVLM:
    """Load a model of one of ``families``; see :func:`acs_core.lvlm.load_lvlm`."""
    target = model.device if isinstance(model, ModelSource) else pick_device(device)
    torch_dtype = _pick_dtype(dtype, target)
    quantized = _quantization_config(quantization, torch_dtype)
    picture = PictureOptions(max_image_tokens, coordinate_frame)
    if not isinstance(model, ModelSource):
        model = open_model(model, families, revision=revision, device=device)
    with _named(model.name), _bars_on_terminals_only():
        return _load(model, torch_dtype, quantized, picture)


def open_model(
    model: str | os.PathLike[str],
    families: Mapping[str, Family],
    *,
    revision: str | None = None,
    device: str = "auto",
) -> ModelSource:
    """Read the ``config.json`` of a model of one of ``families``; see :func:`acs_core.lvlm.open_model`."""
    path("model", model)
    name = os.fspath(model)
    revision = None if revision is None else text("revision", revision)
    target = pick_device(device)
    with _named(name), _bars_on_terminals_only():
        return _open(name, families, revision, target)


@dataclass(frozen=True)
class _Without:
    """Log filter that drops messages with a text; filters of the same text are equal, so that one is added once."""

    text: str

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether ``record`` is kept."""
        return self.text not in str(record.msg)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Raise the errors of the block as a ModelError that begins with the model's name."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
    except HeadFileError:  # of a shipped file, and names it
        raise
    except Exception as error:  # transformers, tokenizers and safetensors raise various types for damaged files
        raise ModelError(
            f"{name}: could not be loaded ({type(error).__name__}: {first_line(error)}): check that config.json, the "
            "*.safetensors, processor_config.json or preprocessor_config.json, tokenizer.json and the chat template "
            "are complete and belong together"
        ) from error


@contextmanager
def _bars_on_terminals_only() -> Iterator[None]:
    """Show no progress bars of transformers and the hub in the block, unless stderr is a terminal: in a file, each step
    of one is a line. What the program has set itself holds again afterwards."""
    silent = transformers_logging.is_progress_bar_enabled() and not (sys.stderr and sys.stderr.isatty())
    if silent:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if silent:
            transformers_logging.enable_progress_bar()


def _open(given: str, families: Mapping[str, Family], revision: str | None, device: torch.device) -> ModelSource:
    place, built = _place(resolve_model(given), revision), None
    file, model_place = _config_file(place), place
    if file is None:
        built = built_for(place) if isinstance(place, Path) else built_in(place)
        if built is None:
            raise ModelError(_no_config(place))
        # A revision is one of what was named: of a repository of files, or of the model that a folder was built for.
        of_model = revision if isinstance(place, Path) and revision else built.revision
        model_place = _place(resolve_model(built.model), of_model)
        file = _config_file(model_place)
        if file is None:
            raise ModelError(f"it is built for {built.model}, and there: {_no_config(model_place)}")
    if revision is not None and isinstance(place, Path) and isinstance(model_place, Path):
        raise ModelError("a folder has no revisions: leave revision out")
    config = read_json(file)
    adapter = _family(config, families, built.model if built else given)
    adapter.check_config(config)
    if isinstance(model_place, Path):
        check_shipped(model_place, ASSETS)
        name, commit = str(model_place), None
    else:
        name, commit = model_place.name, model_place.commit
    made = CONFIG_MAPPING[adapter.name].from_dict(config)
    _check_layers(made)
    given_revision = commit if isinstance(place, Path) else place.commit
    return ModelSource(given_revision, name, commit, adapter, made, device, built)


def _place(name: str, revision: str | None) -> Path | HubRepository:
    """The folder ``name``, or the repository of that name at the commit of ``revision``."""
    if problem := name_problem(name):
        raise ModelError(problem)
    return Path(name) if Path(name).is_dir() else HubRepository.resolve(name, revision)


def _config_file(place: Path | HubRepository) -> Path | None:
    if isinstance(place, HubRepository):
        return place.find("config.json")
    return place / "config.json" if (place / "config.json").is_file() else None


def _no_config(place: Path | HubRepository) -> str:
    if isinstance(place, Path):
        return "the folder has no config.json: point to a model saved by save_pretrained"
    return (
        f"commit {place.commit} of {place.name} has neither a config.json nor an {BUILT_FILE}, or the hub is out of "
        "reach and the local cache has neither: check the name and the network"
    )


def _load(
    source: ModelSource, dtype: torch.dtype, quantized: BitsAndBytesConfig | None, picture: PictureOptions
) -> LoadedLVLM:
    if source.is_folder:
        check_folder(Path(source.name))
    if quantized:
        check_not_quantized(source.config.to_dict())
        if source.device.type == "cpu":
            log.warning("%s: quantised weights need less memory, but a CPU takes longer with them", source.name)
    pinned = {"revision": source.revision} if source.revision else {}
    # What the small files say is checked before the weights, which may be many gigabytes, are downloaded and read.
    processor = load_processor(source.name, source.adapter, source.revision)
    source.adapter.check(source, processor)
    picture = _with_defaults(picture, source)
    if picture.max_image_tokens is not None:
        source.adapter.limit_picture(processor, picture.max_image_tokens)
    builder = PromptBuilder.create(processor)
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        source.name,
        config=source.config,
        dtype=dtype,
        attn_implementation="sdpa",
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        # Each tensor is loaded directly to the device, so host memory never holds the whole model.
        device_map={"": str(source.device)},
        **({"quantization_config": quantized} if quantized else {}),
        **pinned,
    )
    hf_model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"the weights lack {len(missing)} tensors, such as {missing[0]}: get the files again")
    check_weights(hf_model)
    eos_ids, pad_id = _end_tokens(hf_model, processor.tokenizer)
    # The checkpoint's own sampling settings, such as a repetition penalty, must not apply.
    hf_model.generation_config = GenerationConfig(eos_token_id=list(eos_ids), pad_token_id=pad_id)
    name, revision = source.name, source.revision
    return LoadedLVLM(name, revision, source.adapter, hf_model.eval(), processor, builder, eos_ids, pad_id, picture)


def _with_defaults(given: PictureOptions, source: ModelSource) -> PictureOptions:
    """Return ``given``, with what it leaves open taken from the files built for the model, else from its family. What
    differs from the files is logged."""
    adapter, picture = source.adapter, given
    if built := source.built:
        if picture.max_image_tokens is None:
            picture = replace(picture, max_image_tokens=built.max_image_tokens)
        if picture.coordinate_frame == FAMILY_FRAME:
            picture = replace(picture, coordinate_frame=built.coordinate_frame)
        differing: list[tuple[str, object, object]] = [
            ("max_image_tokens", picture.max_image_tokens, built.max_image_tokens)
        ]
        if picture.coordinate_frame != built.coordinate_frame:
            own = adapter.frame if built.coordinate_frame == FAMILY_FRAME else built.coordinate_frame
            differing.append(("coordinate_frame", picture.coordinate_frame, own))
        for name, now, then in differing:
            if then is not None and now != then:
                log.warning(
                    "%s: %s is %s, but its files were made with %s, so their scores may be wrong: leave %s out, or "
                    "build them again",
                    source.name,
                    name,
                    now,
                    then,
                    name,
                )
    if picture.max_image_tokens is None:
        picture = replace(picture, max_image_tokens=adapter.max_image_tokens)
    return picture


def check_options(
    device: str,
    dtype: str,
    quantization: str,
    max_image_tokens: int | None = None,
    coordinate_frame: str = FAMILY_FRAME,
) -> None:
    """Check the options of :func:`load` that do not depend on the model.

    Raises:
        OptionError: unknown device, dtype, quantization or frame, or a budget out of range.
        ModelError: there is no such device, or the library for quantised weights is missing.
        TypeError: one of them is no text.
    """
    PictureOptions(max_image_tokens, coordinate_frame)
    _quantization_config(quantization, _pick_dtype(dtype, pick_device(device)))


def pick_device(device: str) -> torch.device:
    """Return the torch device for "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".

    Raises:
        OptionError: unknown name.
        ModelError: there is no such GPU.
    """
    if instance("device", device, str, "text") == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except (RuntimeError, ValueError, OverflowError) as error:
        raise OptionError(f"unknown device {shorten(device)}: use auto, cpu, cuda or cuda:N") from error
    if target.type not in ("cpu", "cuda"):
        raise OptionError(f"device {shorten(device)} cannot be used: use auto, cpu, cuda or cuda:N")
    if target.type == "cuda" and (not torch.cuda.is_available() or (target.index or 0) >= torch.cuda.device_count()):
        raise ModelError(
            f"device {shorten(device)} is not there, torch sees {torch.cuda.device_count()} GPUs: use auto or cpu"
        )
    return target


def _pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    if instance("dtype", dtype, str, "text") == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise OptionError(f"unknown dtype {shorten(dtype)}: use auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _quantization_config(quantization: str, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    if instance("quantization", quantization, str, "text") == "none":
        return None
    if quantization not in QUANTIZATIONS:
        raise OptionError(f"unknown quantization {shorten(quantization)}: use {', '.join(QUANTIZATIONS)}")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(f"quantization {quantization} needs bitsandbytes: pip install bitsandbytes")
    for logger, noise in QUANTISER_NOISE.items():  # before the configuration imports bitsandbytes
        logging.getLogger(logger).addFilter(_Without(noise))
    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _family(config: Mapping[str, Any], families: Mapping[str, Family], name: str) -> Family:
    check_config(config, name)
    kind = str(config.get("model_type"))
    if kind not in families:
        raise ModelError(
            f"architecture {shorten(kind)} is not supported: use one of {', '.join(sorted(families))}; a new one takes "
            "a file in acs_core/lvlm and a line in FAMILIES, see CONTRIBUTING.md in the repository"
        )
    return families[kind]


def _check_layers(config: Any) -> None:
    kinds = set(getattr(config.text_config, "layer_types", None) or ["full_attention"])
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
