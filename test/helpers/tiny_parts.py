"""Small embedded models of both architectures, and a scene to ask about."""

from dataclasses import replace

import torch

from acs_core.geometry import Box
from training.data.pairs import load_pairs
from training.tiny.arch import TinyConfig
from training.tiny.arches import make_arch
from training.world.synth import write_coco
from training.world.world import SceneObject

ARCHES = ("internvl", "qwen2_5_vl")
NAMES = ["cup", "key", "teddy bear"]
SQUARE, WIDE = (120, 120), (150, 90)  # whole image tokens of 30 pixels

KEY_LOW, KEY_HIGH, CUP = (
    SceneObject("key", Box(20, 90, 32, 100), 50),
    SceneObject("key", Box(60, 10, 72, 20), 60),
    SceneObject("cup", Box(0, 0, 60, 60), 2000),
)
SMALL = TinyConfig(
    image_size=120,
    vision_width=32,
    vision_layers=2,
    vision_heads=1,
    vision_intermediate=32,
    width=32,
    layers=4,  # the guide looks into the fourth of Qwen2.5-VL
    heads=2,
    key_value_heads=1,
    intermediate=32,
)


def small_arch(name, **changes):
    return make_arch(name, replace(SMALL, **changes))


def transformers_tokens(model, inputs):
    """The projector's output (B, rows * columns, width) as transformers computes it."""
    tokens = model.model.get_image_features(**inputs).pooler_output
    return tokens if isinstance(tokens, torch.Tensor) else torch.stack(list(tokens))


def small_model(arch, names=NAMES):
    torch.manual_seed(0)
    processor = arch.build_processor(names)
    return arch.build_model(processor).eval(), processor


def turns_of(maker, scenes, phrases, **options):
    """The sequences of true answers to the ``phrases`` about each of ``scenes``."""
    answers = [[maker.true_answer(p, objects) for p in asked] for objects, asked in zip(scenes, phrases, strict=True)]
    return maker.turns(phrases, answers, **options)


def some_pairs(folder, split, count):
    """``count`` pairs of small objects, for a shipped model."""
    return load_pairs(write_coco(folder, split, count))[:count]
