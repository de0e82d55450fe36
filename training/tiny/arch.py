"""Interface of the embedded models' architectures, their sizes and training settings, and shared functions.

An architecture is one file beside this one, and one line in :mod:`training.tiny.arches`.
"""

from __future__ import annotations

import copy
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError

from acs_core.errors import ModelError
from acs_core.geometry import Box
from acs_core.lvlm.checks import check_config, check_folder, check_weights, read_json
from training.errors import DataError
from training.tiny.recipe import TrainConfig


@dataclass(frozen=True)
class TinyConfig:
    """Sizes of an embedded model; ``image_size`` and ``patch_size`` in pixels, with 2 x 2 patches per image token.

    ``image_size`` is the side of InternVL's square tile. Qwen2.5-VL takes images of any shape with at most as many
    pixels as this tile.
    """

    image_size: int = 360
    patch_size: int = 15
    vision_width: int = 192
    vision_layers: int = 4
    vision_heads: int = 3
    vision_intermediate: int = 512
    width: int = 192
    layers: int = 5
    heads: int = 6
    key_value_heads: int = 2
    intermediate: int = 448

    @property
    def token_size(self) -> int:
        """Side of an image token in pixels."""
        return 2 * self.patch_size


class Arch(Protocol):
    """Interface of an architecture. Images are batches (B, H, W, 3) uint8 of one size; sizes are (width, height) in
    pixels."""

    @property
    def name(self) -> str:
        """``model_type`` of its configuration."""

    @property
    def model_name(self) -> str:
        """Name of its trained model, and of the model's folder."""

    @property
    def size(self) -> TinyConfig:
        """Sizes of the model."""

    @property
    def video_processor(self) -> str:
        """Class name of its video processor, as transformers' ``AutoVideoProcessor`` maps the ``model_type``."""

    @property
    def teacher_layers(self) -> int:
        """Number of language model layers before the dense head reads the image tokens. Qwen2.5-VL's vision tower has
        only relative positions, so only the language model adds absolute ones."""

    @property
    def guided_layer(self) -> int:
        """Index of the language model layer whose attention is supervised; see
        :class:`training.tiny.attention.AttentionSupervision`."""

    @property
    def digit_places(self) -> tuple[int, ...]:
        """Digits of a coordinate that the dense head predicts, as powers of ten."""

    @property
    def recipe(self) -> TrainConfig:
        """Training settings. The run ends before the loss converges, so that the model makes as many errors as a large
        one."""

    def build_processor(self, names: Sequence[str]) -> Any:
        """Return the transformers processor, with ``names`` as tokens of its tokenizer."""

    def build_model(self, processor: Any) -> Any:
        """Return the transformers model with fresh weights, drawn from torch's global generator."""

    def frame(self, width: int, height: int) -> tuple[int, int]:
        """Return the (width, height) of the coordinate frame of answers about an image of this size."""

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Return the (rows, columns) of image tokens."""

    def vision_inputs(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the pixel inputs of the forward pass, equal to those of the processor, on the device of
        ``pictures``."""

    def image_tokens(self, model: Any, pictures: torch.Tensor) -> torch.Tensor:
        """Return the projector's output (B, rows * columns, width), computed in an order that is fast in training."""

    def image_text(self, processor: Any, width: int, height: int) -> str:
        """Return the placeholder text of the image in the prompt, including the image tokens."""

    def text_inputs(self, processor: Any, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return further arguments of ``generate`` that depend on the prompt tokens ``ids`` (B, S)."""

    def prefix_positions(self, model: Any, ids: torch.Tensor, width: int, height: int) -> torch.Tensor:
        """Return the rope positions (1, P), or (3, 1, P), of a prompt's first tokens ``ids`` (1, P), including the
        image."""


def frame_scale(size: tuple[int, int], frame: tuple[int, int]) -> np.ndarray:
    """Return the factors (4,) from box corners in pixels of an image of ``size`` (width, height) to the model's
    ``frame``."""
    return np.array([frame[0] / size[0], frame[1] / size[1]] * 2)


def token_at(box: Box, size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """Return the (row, column) of the image token that contains the centre of ``box``.

    Args:
        box: box in pixels.
        size: (width, height) of the image in pixels.
        grid: (rows, columns) of image tokens.
    """
    x, y = box.center
    return int(y * grid[0] / size[1]), int(x * grid[1] / size[0])


def resized(pictures: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize images to ``size`` (width, height), bicubic: (B, 3, H, W) float32 grey levels.

    The image processors also round and clip between the two axes; the results differ by one grey level, and by more at
    hard black and white edges.
    """
    x = pictures.float()
    if (x.shape[3], x.shape[2]) == size:
        return x
    return F.interpolate(x, size[::-1], mode="bicubic", antialias=True).round().clamp(0, 255)


def normalised(pictures: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Normalise grey levels 0-255 (B, 3, H, W) as an image processor does before it cuts patches; float32."""
    of_colour = (3, 1, 1)
    mean_, std_ = (torch.tensor(v, device=pictures.device).view(of_colour) for v in (mean, std))
    return (pictures.float() / 255 - mean_) / std_


def cosine_filters(count: int, patch: int) -> torch.Tensor:
    """Return the lowest cosine bases of each colour, (count, 3, patch, patch).

    As initial filters they let the first layer see colours, edges and their positions, which it cannot learn in a few
    thousand steps.
    """
    k = torch.arange(patch).float()
    basis = torch.cos(math.pi / patch * (k + 0.5)[None] * k[:, None])  # (frequency, pixel)
    basis = basis / basis.norm(dim=1, keepdim=True)
    waves = sorted(((u, v) for u in range(patch) for v in range(patch)), key=lambda f: f[0] ** 2 + f[1] ** 2)
    filters = torch.zeros(count, 3, patch, patch)
    for n, (u, v) in enumerate(waves[: count // 3]):
        for channel in range(3):
            filters[3 * n + channel, channel] = torch.outer(basis[u], basis[v])
    return 0.5 * filters


def text_config(size: TinyConfig, tokenizer: Any) -> dict[str, Any]:
    """Return the values of the text configuration that both architectures share."""
    return {
        "vocab_size": 8 * math.ceil(len(tokenizer) / 8),
        "hidden_size": size.width,
        "intermediate_size": size.intermediate,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.key_value_heads,
        "max_position_embeddings": 4096,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }


def set_end(model: Any, tokenizer: Any) -> None:
    """Set the end and padding tokens of ``generate``."""
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id


def load_weights(model: Any, tokenizer: Any, folder: Path) -> None:
    """Copy the weights of the model in ``folder`` into ``model``, which is of the same architecture and sizes.

    ``tokenizer`` is that of ``model``. Tokens that the model in ``folder`` lacks get new rows in the embedding
    (:func:`rows_for`).

    Only safetensors are read, and nothing is downloaded.

    Raises:
        DataError: there is no such folder, or it holds no such model, or an unsafe or incomplete one.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: name the folder of a model to start from")
    try:
        check_config(read_json(folder / "config.json"))
        check_folder(folder)
        found, report = type(model).from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
        if missing := sorted(report["missing_keys"]):
            raise ModelError(f"the weights lack {len(missing)} tensors, such as {missing[0]}")
        check_weights(found)
        known = read_json(folder / "tokenizer.json")["model"]["vocab"]
        if not isinstance(known, dict) or not all(isinstance(row, int) for row in known.values()):
            raise ValueError("tokenizer.json holds no vocabulary")
        state, words = found.state_dict(), found.get_input_embeddings().weight
        rows = rows_for(tokenizer.get_vocab(), known, words.detach(), model.get_input_embeddings().weight.detach())
        # input and output embedding are one tensor
        state |= {name: rows for name, weight in state.items() if weight.data_ptr() == words.data_ptr()}
        model.load_state_dict(state)
    except (OSError, LookupError, RuntimeError, TypeError, ValueError, SafetensorError, ModelError) as error:
        raise DataError(f"{folder} is no model to start from ({error!s:.200})") from error


def rows_for(
    wanted: Mapping[str, int], known: Mapping[str, int], trained: torch.Tensor, fresh: torch.Tensor
) -> torch.Tensor:
    """Return the embedding (rows of ``fresh``, width) of the vocabulary ``wanted`` (token: row), made from the rows
    ``trained`` (rows, width) of the vocabulary ``known``.

    A token of both keeps its row; one vocabulary keeps all. Other rows are those of ``fresh``, moved and scaled in each
    dimension to the mean and the standard deviation of the trained ones, so that they are no likelier in answers than
    words that are never answered.

    Raises:
        ValueError: a row of ``known`` is not in ``trained``.
    """
    if any(not 0 <= row < len(trained) for row in known.values()):
        raise ValueError("the vocabulary is larger than the embedding")
    if wanted == known and trained.shape == fresh.shape:
        return trained  # rows without a token too
    both = [token for token in wanted if token in known]
    rows = (fresh - fresh.mean(dim=0)) / fresh.std(dim=0) * trained.std(dim=0) + trained.mean(dim=0)
    rows[[wanted[token] for token in both]] = trained[[known[token] for token in both]]
    return rows


def save(arch: Arch, model: Any, processor: Any, folder: Path) -> None:
    """Write a model of ``arch`` as a folder that transformers loads: half-precision safetensors, configuration and
    processor files.

    The processor has no video half (:class:`acs_core.lvlm.base.Family`). ``AutoProcessor``, which needs torchvision,
    refuses a folder without the description of one, so one with the sizes of images is written.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    try:
        copy.deepcopy(model).half().save_pretrained(folder)
    except SafetensorError as error:
        if (number := re.search(r"os error (\d+)", str(error))) is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(weights)) from error
    weights.chmod((folder / "config.json").stat().st_mode & 0o777)  # safetensors creates files with mode 0600
    processor.save_pretrained(folder)
    pictures = processor.image_processor.to_dict()
    kept = ("size", "image_mean", "image_std", "patch_size", "temporal_patch_size", "merge_size")
    video = {"video_processor_type": arch.video_processor}
    video |= {name: pictures[name] for name in kept if name in pictures}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video, indent=2) + "\n")
