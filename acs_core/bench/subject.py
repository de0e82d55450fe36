"""The measured model, with prompts and words for its responses: one of random weights, or a real one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from acs_core.artifacts.heads import Head, HeadFile
from acs_core.artifacts.identity import ModelIdentity
from acs_core.artifacts.registry import resolve_model
from acs_core.errors import BenchError
from acs_core.lvlm import FAMILIES, load_lvlm
from acs_core.lvlm.base import LVLM, Family, LoadedLVLM, Prompt
from acs_core.lvlm.loading import DTYPES, pick_device
from acs_core.lvlm.shapes import BOS, EOS, FIRST_WORD, IMAGE, PAD, VISION_END, VISION_START, ModelShape
from acs_core.selection.acs_free import AcsFree
from acs_core.selection.acs_learned import AcsLearned
from acs_core.selection.regressor import AttentionIoURegressor

HEADS_PER_COORDINATE = 8
CRITICAL_LAYERS = 4
SHARED_TEXT, OWN_TEXT = 100, 100  # prompt tokens between image and phrase, and from the phrase on, as in appendix D
WORDS = 200  # number of different tokens in the responses of a random model
PHRASES = ("key", "apple", "cup", "book", "clock", "ball", "car", "dog")


@dataclass(frozen=True)
class Subject:
    """A model with prompts about one image, and ``words``, token ids that responses consist of."""

    lvlm: LVLM
    prompts: tuple[Prompt, ...]
    words: tuple[int, ...]

    def free(self) -> AcsFree:
        """Return ACS-Free with eight heads per coordinate, in the middle layers."""
        layers, heads = self.lvlm.num_layers, self.lvlm.num_heads
        middle, among = layers // 2, min(CRITICAL_LAYERS, layers)
        chosen = [
            tuple(
                Head((middle + k % among) % layers, (c + 3 * (k // among)) % heads, 0.0)
                for k in range(min(HEADS_PER_COORDINATE, heads))
            )
            for c in range(4)
        ]
        return AcsFree(HeadFile(ModelIdentity.of(self.lvlm), "heads", tuple(chosen)))

    def learned(self) -> AcsLearned:
        """Return ACS-Learned with a regressor of random weights, for the family's stored map size."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            regressor = AttentionIoURegressor(self.lvlm.num_layers, self.lvlm.num_heads)
        size = self.lvlm.adapter.map_size or self.prompts[0].grid
        return AcsLearned(regressor.to(self.lvlm.device), size)


def shapes() -> dict[str, tuple[Family, ModelShape]]:
    """Return the sizes of all families that can be created with random weights, by their short names."""
    return {name: (family, shape) for family in FAMILIES.values() for name, shape in family.shapes.items()}


def load_subject(
    shape: str, image_tokens: int | None, phrases: int, device: str, dtype: str, frame: tuple[int, int] = (640, 480)
) -> Subject:
    """Return the model that ``shape`` names, a shape or a model's name, folder or hub id, with prompts.

    Args:
        shape: shape, model name, folder or hub id.
        image_tokens: approximate number of image tokens of a random model; None for that of a ``frame``.
        phrases: number of prompts.
        device: torch device.
        dtype: dtype of the weights.
        frame: (width, height) of the image in pixels; real models determine the number of image tokens from it.

    Raises:
        BenchError, ModelError: the model cannot be created or loaded.
    """
    target = pick_device(device)
    if shape in shapes():
        half = torch.bfloat16 if target.type == "cuda" else torch.float32
        lvlm = random_lvlm(shape, target, half if dtype == "auto" else DTYPES[dtype])
        words: Sequence[int] = range(FIRST_WORD, FIRST_WORD + WORDS)
        tokens = image_tokens or tokens_of_frame(shape, *frame)
        return Subject(lvlm, random_prompts(lvlm, tokens, phrases), tuple(words))
    return subject_of(load_lvlm(resolve_model(shape), device=device, dtype=dtype), frame, phrases)


def about_frame(subject: Subject, frame: tuple[int, int], phrases: int = 1) -> Subject:
    """Return the model of ``subject`` with ``phrases`` prompts about an image of ``frame`` = (width, height) pixels, at
    the limit of its processor."""
    lvlm = subject.lvlm
    if not is_random(lvlm):
        return subject_of(lvlm, frame, phrases)
    tokens = lvlm.adapter.image_tokens(lvlm.hf_model.config, *frame)
    return replace(subject, prompts=random_prompts(lvlm, tokens, phrases))


def is_random(lvlm: LVLM) -> bool:
    """Return whether ``lvlm`` has random weights, and so neither processor nor tokenizer (:func:`random_lvlm`)."""
    return isinstance(lvlm, LoadedLVLM) and lvlm.processor is None


def subject_of(lvlm: LVLM, frame: tuple[int, int], phrases: int = 1) -> Subject:
    """Return a real model with ``phrases`` prompts about an image of noise of ``frame`` = (width, height) pixels."""
    width, height = frame
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    names = [PHRASES[k % len(PHRASES)] for k in range(phrases)]
    words = lvlm.tokenizer("0 1 2 3 4 5 6 7 8 9, [ ]", add_special_tokens=False)["input_ids"]
    return Subject(lvlm, lvlm.prepare_many(picture, names), tuple(words))


def random_lvlm(name: str, device: torch.device, dtype: torch.dtype, seed: int = 0) -> LVLM:
    """Create a model of shape ``name`` with random weights directly on ``device``. It has no processor and no
    tokenizer.

    Raises:
        BenchError: there is no such shape.
    """
    family, shape = _shape(name)
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.device(device):
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)
        try:
            model = shape.model_class(shape.config()).eval()
        finally:
            torch.set_default_dtype(before)
    model.set_attn_implementation("sdpa")
    absent: Any = None  # nothing here tokenizes text or images
    return LoadedLVLM(f"random-{name}", None, family, model, absent, absent, (EOS,), PAD)


def random_prompts(lvlm: LVLM, image_tokens: int, phrases: int = 1, seed: int = 0) -> tuple[Prompt, ...]:
    """Return ``phrases`` prompts about one noise image of about ``image_tokens`` tokens, with text of typical length.

    Raises:
        BenchError: fewer tokens than the smallest image of the family has.
    """
    dtype = next(lvlm.hf_model.parameters()).dtype
    picture = lvlm.adapter.random_picture(lvlm.hf_model.config, image_tokens, torch.Generator().manual_seed(seed))
    vision = {k: v.to(lvlm.device, dtype if v.is_floating_point() else v.dtype) for k, v in picture.vision.items()}
    return tuple(prompt_about(lvlm, vision, picture.tokens, f"phrase {k}", k) for k in range(phrases))


def prompt_about(
    lvlm: LVLM, vision: Mapping[str, torch.Tensor], image_tokens: int, phrase: str, number: int = 0
) -> Prompt:
    """Return a prompt for a model of random weights, with text of typical length.

    Args:
        lvlm: the model.
        vision: pixel inputs, on its device.
        image_tokens: number of their image tokens.
        phrase: the phrase, which is not part of the text.
        number: index of the prompt among those about the picture, which differ in one token.
    """
    own = [FIRST_WORD + SHARED_TEXT + number, *range(FIRST_WORD, FIRST_WORD + OWN_TEXT - 1)]
    shared = range(FIRST_WORD, FIRST_WORD + SHARED_TEXT)
    ids = [BOS, VISION_START, *[IMAGE] * image_tokens, VISION_END, *shared, *own]
    input_ids = torch.tensor([ids], device=lvlm.device)
    found = lvlm.adapter.layout(lvlm.hf_model, input_ids, vision)
    return Prompt(
        phrase=phrase,
        input_ids=input_ids,
        position_ids=found.position_ids,
        vision=vision,
        map_slice=found.map_slice,
        grid=found.grid,
        image_size=(640, 480),
        frame_size=found.frame_size,
    )


def tokens_of_frame(name: str, width: int, height: int, max_tokens: int | None = None) -> int:
    """Return the number of image tokens that the processor of a model of shape ``name`` makes of a frame, with its
    default limits and at most ``max_tokens``.

    Raises:
        BenchError: there is no such shape.
    """
    family, shape = _shape(name)
    return family.image_tokens(shape.config(), width, height, max_tokens)


def map_shape(name: str) -> tuple[int, int, int, int]:
    """Return (L, K, h, w): layers, heads and the stored map size of a model of shape ``name``."""
    family, shape = _shape(name)
    config = shape.config()
    size = family.map_size or family.random_picture(config, 576, torch.Generator()).grid
    return config.text_config.num_hidden_layers, config.text_config.num_attention_heads, *size


def _shape(name: str) -> tuple[Family, ModelShape]:
    known = shapes()
    if name not in known:
        raise BenchError(f"there is no shape {name!r}: use one of {', '.join(known)}")
    return known[name]
