"""Colours of objects: their words, the categories that appear in them, and the paint on a sprite."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.world.scene import WorldConfig

# Grey level of each channel at full light. "orange" is a category, so it is no colour here.
COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (45, 45, 48),
    "blue": (50, 95, 225),
    "green": (40, 170, 65),
    "purple": (155, 65, 200),
    "red": (220, 45, 40),
    "white": (248, 248, 246),
    "yellow": (245, 215, 45),
}
# Categories that are made in any colour and are not recognised by their own.
PAINTED = (
    "backpack",
    "bell",
    "book",
    "bottle",
    "camera",
    "car",
    "cell phone",
    "chair",
    "cup",
    "hammer",
    "handbag",
    "hat",
    "kite",
    "lock",
    "shoe",
    "suitcase",
    "truck",
    "umbrella",
)
LUMINANCE = (0.299, 0.587, 0.114)
SHADING = 0.6  # share of the paint that follows the luminance of the sprite; the rest is flat
LIFT = 1.4  # gain of the luminance, since most sprites are darker than their paint is to be
MOST_CATEGORIES, LEAST, MOST = 2, 2, 3  # painted categories in a scene, and objects of each


def paint(colour: str) -> np.ndarray:
    """Return the (3, 4) matrix over premultiplied RGBA that paints a sprite with ``colour`` and keeps its shading."""
    level = np.array(COLOURS[colour]) / 255
    return np.outer(level, [*(LIFT * SHADING * weight for weight in LUMINANCE), 1 - SHADING])


def choose_colours(rng: np.random.Generator, names: Sequence[str], config: WorldConfig) -> list[tuple[str, str]]:
    """Return (category, colour) of each object of a scene with these categories; "" is the sprite's own colour.

    In ``config.colour_share`` of the scenes one or two categories appear as several objects of different colours, in
    place of other objects. Without such scenes nothing is drawn from ``rng``.
    """
    chosen = [(name, "") for name in names]
    if not config.colour_share or len(names) < LEAST or rng.random() >= config.colour_share:
        return chosen
    there = [name for name in dict.fromkeys(names) if name in PAINTED] or [PAINTED[int(rng.integers(len(PAINTED)))]]
    count = min(len(there), int(rng.integers(1, MOST_CATEGORIES + 1)))
    painted = [there[i] for i in rng.permutation(len(there))[:count]]
    free = [i for i in rng.permutation(len(names)).tolist() if names[i] not in painted]
    for name in painted:
        places = [i for i, other in enumerate(names) if other == name]
        wanted = int(rng.integers(LEAST, MOST + 1))
        while free and len(places) < wanted:
            places.append(free.pop())
        colours = [list(COLOURS)[i] for i in rng.permutation(len(COLOURS))]
        for i, colour in zip(places, colours, strict=False):
            chosen[i] = name, colour
    return chosen
