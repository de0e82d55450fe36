"""What differs between the embedded models' two architectures; one file each, one line each in ``ARCHES``."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from acs_core.geometry import Box
from training.tiny.recipe import TrainConfig

# As transformers' AutoVideoProcessor maps them; the names are needed where that class cannot be imported.
VIDEO_PROCESSORS = {"internvl": "InternVLVideoProcessor", "qwen2_5_vl": "Qwen2VLVideoProcessor"}


@dataclass(frozen=True)
class TinyConfig:
    """Sizes of an embedded model; ``image_size`` and ``patch_size`` in pixels, two by two patches an image token.

    ``image_size`` is the side of InternVL's square tile; Qwen2.5-VL takes pictures of up to as many pixels, whatever
    their shape.
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
    """One architecture. Pictures are batches (B, H, W, 3) uint8 of one size; (width, height) in pixels."""

    @property
    def name(self) -> str:
        """The ``model_type`` of its configuration."""

    @property
    def model_name(self) -> str:
        """What its trained model is called."""

    @property
    def size(self) -> TinyConfig:
        """Its sizes."""

    @property
    def teacher_layers(self) -> int:
        """Layers of the language model through which the teacher reads image tokens: Qwen2.5-VL's vision tower has
        only relative positions, so where a token lies is first known inside the language model."""

    @property
    def guided_layer(self) -> int:
        """Layer of the language model that the guide looks into; see :mod:`training.tiny.guide`."""

    @property
    def digit_places(self) -> tuple[int, ...]:
        """Digits of a coordinate that the teacher asks for, as powers of ten."""

    @property
    def recipe(self) -> TrainConfig:
        """How it is trained: as long as leaves a model that errs like a large one, not all it can learn."""

    def build_processor(self, names: Sequence[str]) -> Any:
        """The transformers processor, its tokenizer knowing ``names``."""

    def build_model(self, processor: Any) -> Any:
        """The transformers model with fresh weights, drawn from torch's global generator."""

    def frame(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the frame in which the model answers about a picture."""

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """(rows, columns) of image tokens."""

    def vision_inputs(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        """The forward's pixel inputs, as the processor makes them, on the device of ``pictures``."""

    def image_tokens(self, model: Any, pictures: torch.Tensor) -> torch.Tensor:
        """The projector's output (B, rows * columns, width), the order of computing made for training."""

    def image_text(self, processor: Any, width: int, height: int) -> str:
        """What stands for the picture in the prompt, image tokens and all."""

    def text_inputs(self, processor: Any, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """What ``generate`` wants to be told about prompt tokens (B, S) beside themselves."""

    def prefix_positions(self, model: Any, ids: torch.Tensor, width: int, height: int) -> torch.Tensor:
        """Rope positions (1, P), or (3, 1, P), of a prompt's first tokens ``ids`` (1, P), the picture's included."""


def frame_scale(size: tuple[int, int], frame: tuple[int, int]) -> np.ndarray:
    """(4,) factors from corners in pixels of a picture of ``size`` (width, height) to the model's ``frame``."""
    return np.array([frame[0] / size[0], frame[1] / size[1]] * 2)


def token_at(box: Box, size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """(row, column) of the image token, of ``grid`` (rows, columns), in which ``box`` in a picture of ``size`` (width,
    height) has its centre."""
    x, y = box.center
    return int(y * grid[0] / size[1]), int(x * grid[1] / size[0])


def resized(pictures: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """uint8 (B, 3, H, W) in ``size`` (width, height), bicubic: grey levels, float32. They differ from the image
    processors', which round and clip between the two axes too, by a grey level, at hard black and white edges by more.
    """
    x = pictures.float()
    if (x.shape[3], x.shape[2]) == size:
        return x
    return F.interpolate(x, size[::-1], mode="bicubic", antialias=True).round().clamp(0, 255)


def normalised(pictures: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Grey levels 0-255 (B, 3, H, W) as an image processor gives them before it cuts patches: float32."""
    of_colour = (3, 1, 1)
    mean_, std_ = (torch.tensor(v, device=pictures.device).view(of_colour) for v in (mean, std))
    return (pictures.float() / 255 - mean_) / std_


def cosine_filters(count: int, patch: int) -> torch.Tensor:
    """(count, 3, patch, patch): the lowest cosine bases of each colour, so that the first layer sees colour, edges and
    where they lie from the first step; a few thousand steps cannot discover them."""
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
    """What both language models have in common, for their configuration."""
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
    """Tells ``generate`` where an answer ends, and what fills a shorter one."""
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id


def make_arch(name: str, size: TinyConfig | None = None) -> Arch:
    """The architecture ``name``, in the sizes that ship unless ``size`` says otherwise.

    Raises:
        ValueError: unknown name; the message lists the known ones.
    """
    from training.tiny.arch_internvl import InternVLArch
    from training.tiny.arch_qwen2_5_vl import Qwen2_5_VLArch

    arches: dict[str, type[InternVLArch] | type[Qwen2_5_VLArch]] = {
        "internvl": InternVLArch,
        "qwen2_5_vl": Qwen2_5_VLArch,
    }
    if name not in arches:
        raise ValueError(f"unknown architecture {name!r}; choose one of {', '.join(arches)}")
    return arches[name](size) if size else arches[name]()


def save(model: Any, processor: Any, folder: Path) -> None:
    """Writes a model folder that transformers loads: half-precision safetensors, configuration, processor files.

    The processor has no video half (:mod:`acs_core.lvlm.processors`), but ``AutoProcessor``, which needs torchvision,
    refuses a folder without a description of one: it gets the sizes of the pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    copy.deepcopy(model).half().save_pretrained(folder)
    processor.save_pretrained(folder)
    pictures = processor.image_processor.to_dict()
    kept = ("size", "image_mean", "image_std", "patch_size", "temporal_patch_size", "merge_size")
    video = {"video_processor_type": VIDEO_PROCESSORS[model.config.model_type]}
    video |= {name: pictures[name] for name in kept if name in pictures}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video, indent=2) + "\n")
