"""Scenes of the rendered world: configuration, image, objects, and the choice of categories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from acs_core.geometry import Box
from training.data.dataset import SMALL

# No split shares a scene or a background source (training.world.backgrounds.BANKS) with another.
SPLIT_SEEDS = {"train": 101, "val": 102, "test": 103, "shifted": 104}
# First number of a scene's seed, so that no image is in two streams: data sets written by synth, training images of
# the embedded models, and images whose image tokens their training keeps.
WRITTEN, TRAINING, KEPT = 77, 1, 2
WORLD_VERSION = 2  # increment with every change of the images, so that older data sets are rendered again


def check_split(split: str) -> None:
    """Raise ValueError, with the known names, unless ``split`` is one of them."""
    if split not in SPLIT_SEEDS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLIT_SEEDS)}")


@dataclass(frozen=True)
class WorldConfig:
    """Appearance of the scenes.

    Sizes are (width, height) in pixels. Areas are those of an object's bounding box as fractions of the image (paper
    section 5.1: small is 0.1-1 %), drawn log-uniformly. Shares are of scenes or objects.
    """

    shapes: tuple[tuple[int, int], ...] = ((360, 360), (360, 360), (420, 300), (300, 420), (480, 270))
    min_objects: int = 1
    max_objects: int = 12
    small_area: tuple[float, float] = SMALL
    medium_area: tuple[float, float] = (0.01, 0.05)
    large_area: tuple[float, float] = (0.05, 0.15)
    small_share: float = 0.85
    medium_share: float = 0.1  # the rest is large
    area_skew: float = 1.0  # above 1, objects crowd at the lower end of their range
    repeat_share: float = 0.2  # share of scenes in which one category appears two to four times
    lookalike_share: float = 0.5  # share of scenes in which some objects are look-alikes of another
    colour_share: float = 0.0  # share of scenes in which objects of a category differ in colour
    occluded_share: float = 0.15  # share of objects that are partly covered
    min_visible: float = 0.6  # minimum visible share of an object's pixels
    min_side: int = 8  # pixels; below this no sprite is recognisable
    max_tilt_deg: float = 25.0
    shadow_share: float = 0.35  # share of objects with a shadow
    colour_strength: float = 1.0  # strength of gain, contrast, saturation and hue changes of an object
    light: float = 0.09  # variation of the light across an image
    clutter: int = 6  # sprites and as many shapes, at most
    noise: tuple[float, float] = (0.0, 6.0)  # standard deviation of the grain, grey levels
    blur: tuple[float, float] = (0.0, 0.0)  # standard deviation of the whole image's blur, pixels
    jpeg_quality: tuple[int, int] = (95, 95)  # of the written files
    backgrounds: Path | None = None  # folder of photographs that are further sources of backgrounds


SHIFTED_CONFIG = WorldConfig(
    shapes=((640, 480), (480, 640), (512, 512)),
    area_skew=1.6,
    small_share=0.92,
    medium_share=0.06,
    noise=(4.0, 14.0),
    blur=(0.0, 0.9),
    jpeg_quality=(40, 80),
)


def crowded(config: WorldConfig) -> WorldConfig:
    """Return ``config`` with scenes as robots see them: 10 to 20 objects, look-alikes in most scenes, and in half of
    the scenes objects of one category that differ in colour."""
    return replace(config, min_objects=10, max_objects=20, lookalike_share=0.8, colour_share=0.5)


def near(config: WorldConfig) -> WorldConfig:
    """Return ``config`` with scenes that a person sees at a glance, for demonstrations: 4 to 8 objects of 0.5 to 3 % of
    the image, without look-alikes, each category once."""
    return replace(
        config,
        shapes=((480, 360),),
        min_objects=4,
        max_objects=8,
        small_area=(0.005, 0.03),
        small_share=1.0,
        medium_share=0.0,
        repeat_share=0.0,
        lookalike_share=0.0,
        occluded_share=0.0,
        clutter=2,
        noise=(0.0, 2.0),
    )


@dataclass(frozen=True)
class SceneObject:
    """A drawn object: its category, the tight box of its visible pixels (whole numbers), their number (COCO's
    ``area``), and the colour that it is painted with, "" for the sprite's own."""

    name: str
    box: Box
    area: float
    colour: str = ""


@dataclass(frozen=True)
class Scene:
    """A rendered scene: ``image`` (H, W, 3) uint8 RGB, and ``objects`` in drawing order, later ones in front."""

    image: np.ndarray
    objects: tuple[SceneObject, ...]


# Categories that are alike in outline or colour at 15 pixels; a category may be in several groups.
LOOKALIKES: tuple[tuple[str, ...], ...] = (
    ("apple", "orange", "lemon", "strawberry", "sports ball", "donut", "stop sign"),
    ("bus", "train", "truck", "car"),
    ("laptop", "tv", "cell phone", "camera", "book"),
    ("cat", "dog", "teddy bear", "elephant"),
    ("banana", "hot dog", "carrot", "pizza", "lemon"),
    ("clock", "watch", "sports ball", "donut", "stop sign"),
    ("backpack", "handbag", "suitcase", "lock"),
    ("bottle", "wine glass", "cup", "light bulb"),
    ("hammer", "flashlight", "toothbrush", "key", "scissors"),
    ("umbrella", "kite", "boat", "hat"),
    ("broccoli", "potted plant", "bird"),
    ("bell", "light bulb", "lock", "key"),
    ("cake", "pizza", "hat", "shoe"),
    ("traffic light", "cell phone", "chair"),
    ("bicycle", "scissors", "car"),
)


def choose_names(rng: np.random.Generator, names: Sequence[str], count: int, config: WorldConfig) -> list[str]:
    """Draw the categories of ``count`` objects: different ones at random; in ``lookalike_share`` of the scenes some are
    look-alikes of the first, and in ``repeat_share`` one of them appears two to four times."""
    chosen = [names[i] for i in rng.permutation(len(names))]
    if count > 1 and rng.random() < config.lookalike_share:
        alike = sorted({other for group in LOOKALIKES if chosen[0] in group for other in group} - {chosen[0]})
        alike = [alike[i] for i in rng.permutation(len(alike))[: int(rng.integers(1, 4))]]
        chosen = [chosen[0], *alike, *(name for name in chosen[1:] if name not in alike)]
    chosen = [chosen[i % len(chosen)] for i in range(count)]
    if count > 1 and rng.random() < config.repeat_share:
        times = min(count, int(rng.integers(2, 5)))
        chosen[count - times + 1 :] = [chosen[0]] * (times - 1)
    return [chosen[i] for i in rng.permutation(count)]
