"""The rendered world: sprites of everyday objects on textured backgrounds, most of them small.

It replaces COCO in tests, the demo and the training of the embedded models; its split "shifted" serves as a second data
set. A scene is drawn from one random generator, so that a seed gives the same image everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from training.world.backgrounds import Backgrounds, Grain, light
from training.world.colours import choose_colours, paint
from training.world.compositing import Canvas, Patch, Pose, Stamp, colour_matrix, draw_shapes, pose_stamp, shape_patch
from training.world.placing import Painter
from training.world.scene import (
    SHIFTED_CONFIG,
    SPLIT_SEEDS,
    Scene,
    SceneObject,
    WorldConfig,
    check_split,
    choose_names,
    crowded,
    near,
)
from training.world.sprites import CLUTTER, FLUENT, NOTO, category_names, load_sprites

__all__ = ["SHIFTED_CONFIG", "SPLIT_SEEDS", "Scene", "SceneObject", "World", "WorldConfig", "world_config"]


def world_config(
    split: str, backgrounds: Path | None = None, crowds: bool = False, closer: bool = False
) -> WorldConfig:
    """Return the appearance of ``split``, with the photographs in the folder ``backgrounds`` as further backgrounds.
    ``crowds``: as :func:`training.world.scene.crowded`; else ``closer``: as :func:`training.world.scene.near`."""
    config = replace(SHIFTED_CONFIG if split == "shifted" else WorldConfig(), backgrounds=backgrounds)
    if crowds:
        return crowded(config)
    return near(config) if closer else config


class World:
    """Renderer of the scenes of one split ("train", "val", "test" or "shifted").

    ``config`` defaults to ``WorldConfig()``, and to ``SHIFTED_CONFIG`` for the shifted split. ``names`` are all
    categories, sorted, the same in all splits. Scenes have no JPEG artefacts; those come with the files
    (training.world.synth).

    Raises:
        ValueError: unknown split.
        DataError: ``config.backgrounds`` has no photograph for this split.
    """

    def __init__(self, split: str, config: WorldConfig | None = None) -> None:
        check_split(split)
        self.split = split
        self.config = config or world_config(split)
        self.names = category_names()
        self._stamps: dict[str, list[Stamp]] = {name: [] for name in self.names}
        for sprite in load_sprites(FLUENT if split == "shifted" else NOTO):
            self._stamps[sprite.name].append(Stamp.of(sprite))
        self._clutter = [Stamp.of(sprite) for sprite in load_sprites(CLUTTER)]
        self._backgrounds = Backgrounds(split, self.config.backgrounds)
        self._grain = Grain()

    def scene(
        self, seed: Sequence[int], size: tuple[int, int] | None = None, objects: tuple[int, int] | None = None
    ) -> Scene:
        """Render the scene of ``seed`` (any sequence of whole numbers, for example [epoch, index]).

        Args:
            seed: seed of the scene.
            size: (width, height) in pixels; None to draw one of ``config.shapes``.
            objects: (minimum, maximum) number of objects; None for those of ``config``. A scene without room for all of
                them holds fewer, but at least one.

        Raises:
            ValueError: an image smaller than 64 or larger than 1024 pixels a side, or a maximum of no objects.
        """
        config = self.config
        rng = np.random.default_rng([SPLIT_SEEDS[self.split], *seed])
        width, height = size or config.shapes[int(rng.integers(len(config.shapes)))]
        least, most = objects or (config.min_objects, config.max_objects)
        if not 64 <= min(width, height) <= max(width, height) <= Grain.SIDE:
            raise ValueError(f"a scene of {width} x {height} pixels: each side must be 64 to {Grain.SIDE}")
        if not 1 <= least <= most:
            raise ValueError(f"{least} to {most} objects: there must be at least 1, and most not below least")
        canvas = Canvas(self._backgrounds.draw(rng, width, height))
        draw_shapes(rng, canvas.image, int(rng.integers(config.clutter + 1)))
        for _ in range(int(rng.integers(config.clutter + 1))):
            patch = self._patch(rng, self._clutter[int(rng.integers(len(self._clutter)))], width * height)
            h, w = patch.alpha.shape
            canvas.put(
                patch, int(rng.integers(-w // 2, width - w // 2)), int(rng.integers(-h // 2, height - h // 2)), 0
            )
        painter = Painter(rng, canvas, config)
        names = choose_names(rng, self.names, int(rng.integers(least, most + 1)), config)
        for name, colour in choose_colours(rng, names, config):
            stamp = self._stamps[name][int(rng.integers(len(self._stamps[name])))]
            placed = painter.place(name, self._patch(rng, stamp, width * height, colour=colour), colour)
            if placed or painter.place(name, self._patch(rng, stamp, width * height, True, colour), colour):
                painter.cover(self._occluder)
        return Scene(self._finish(rng, canvas.image), painter.objects())

    def _patch(
        self, rng: np.random.Generator, stamp: Stamp, pixels: int, small: bool = False, colour: str = ""
    ) -> Patch:
        """Draw ``stamp`` at a random size for an image of so many pixels, tilted, mirrored and lit, and painted with
        ``colour`` unless it is ""."""
        config = self.config
        kind = 0.0 if small else rng.random()
        if kind < config.small_share:
            low, high = config.small_area
        elif kind < config.small_share + config.medium_share:
            low, high = config.medium_area
        else:
            low, high = config.large_area
        area = low * (high / low) ** (rng.random() ** config.area_skew) * pixels
        tilt = np.radians(rng.uniform(-config.max_tilt_deg, config.max_tilt_deg))
        return self._posed(rng, stamp, area, tilt, colour)

    def _occluder(self, rng: np.random.Generator, area: float) -> Patch:
        """Return an occluder of about ``area`` square pixels: a clutter sprite or a plain shape."""
        if rng.random() < 0.5:
            return shape_patch(rng, area)
        return self._posed(rng, self._clutter[int(rng.integers(len(self._clutter)))], area, rng.uniform(-np.pi, np.pi))

    def _posed(self, rng: np.random.Generator, stamp: Stamp, area: float, tilt: float, colour: str = "") -> Patch:
        light_on_it = colour_matrix(rng, self.config.colour_strength)
        if colour:
            light_on_it = light_on_it @ np.concatenate([paint(colour), [[0.0, 0.0, 0.0, 1.0]]])
        stretch = float(np.exp(rng.uniform(-0.12, 0.12)))
        return pose_stamp(stamp, Pose(area, self.config.min_side, tilt, stretch, bool(rng.random() < 0.5), light_on_it))

    def _finish(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """Apply the effects of light, lens and sensor."""
        image = light(rng, image, self.config.light)
        sigma = rng.uniform(*self.config.blur)
        if sigma > 0.3:
            image = cv2.GaussianBlur(image, (0, 0), sigma)
        return self._grain.add(rng, image, rng.uniform(*self.config.noise))
