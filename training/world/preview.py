"""Contact sheet of rendered scenes, with the box and name of each object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.data.coco import read_coco
from training.data.phrases import coloured
from training.data.pictures import read_picture
from training.world.scene import Scene, SceneObject

BOX_COLOURS = ("#ff3b30", "#34c759", "#0a84ff", "#ffcc00", "#ff2dff", "#00e5ff", "#ff9500", "#c6ff00")


def read_scenes(file: Path, count: int = 20) -> tuple[Scene, ...]:
    """Read the first ``count`` images of a COCO-style instances.json, from ``images/`` beside it.

    Raises:
        DataError: the file or an image is missing or unreadable.
    """
    return tuple(
        Scene(
            read_picture(image.file, image.bits),
            tuple(SceneObject(o.name, o.box, o.area, o.colour) for o in image.objects),
        )
        for image in read_coco(file).images[:count]
    )


def contact_sheet(scenes: Sequence[Scene], columns: int = 5, cell: int = 480) -> np.ndarray:
    """Arrange ``scenes`` in rows of ``columns``, each scaled to fit a square of ``cell`` pixels; (H, W, 3) uint8.

    Raises:
        ValueError: no scenes, or less than one column.
    """
    from PIL import Image

    if not scenes or columns < 1:
        raise ValueError(f"a contact sheet of {len(scenes)} scenes in {columns} columns: both must be at least 1")
    rows = -(-len(scenes) // columns)
    sheet = Image.new("RGB", (min(columns, len(scenes)) * (cell + 6) - 6, rows * (cell + 6) - 6), "#202020")
    for i, scene in enumerate(scenes):
        picture = Image.fromarray(annotate(scene, cell / max(scene.image.shape[:2])))
        x, y = i % columns * (cell + 6), i // columns * (cell + 6)
        sheet.paste(picture, (x + (cell - picture.width) // 2, y + (cell - picture.height) // 2))
    return np.asarray(sheet)


def annotate(scene: Scene, scale: float = 2.0) -> np.ndarray:
    """Return the image of ``scene``, scaled by ``scale``, with boxes one pixel outside the objects and names beside
    them."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = (round(side * scale) for side in scene.image.shape[:2])
    picture = Image.fromarray(scene.image).resize((width, height), Image.Resampling.BICUBIC)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for i, o in enumerate(scene.objects):
        colour = BOX_COLOURS[i % len(BOX_COLOURS)]
        x1, y1, x2, y2 = (v * scale for v in o.box.as_tuple())
        pen.rectangle((x1 - 2, y1 - 2, x2 + 1, y2 + 1), outline=colour)
        text = coloured(o.colour, o.name) if o.colour else o.name
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        tx = min(max(0.0, x1 - 2), width - (right - left) - 4)
        ty = y1 - bottom - 4 if y1 - bottom - 4 >= 0 else y2 + 2
        pen.rectangle((tx, ty, tx + right - left + 3, ty + bottom - top + 3), fill=colour)
        pen.text((tx + 2, ty + 1 - top), text, font=font, fill="black")
    return np.asarray(picture)
