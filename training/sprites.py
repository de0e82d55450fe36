"""Sprites of everyday objects: loading the shipped sheet, and making it from an emoji font.

The sheet is a folder of RGBA PNG files, one a category, cropped to the drawing. They are Noto Color Emoji glyphs
(SIL Open Font License 1.1, see ``assets/sprites/LICENSE``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

SPRITE_FOLDER = Path(__file__).parent / "assets" / "sprites"

# name -> glyph; COCO's names where COCO has the category
GLYPHS = {
    "apple": "🍎",
    "banana": "🍌",
    "bird": "🐦",
    "book": "📘",
    "broccoli": "🥦",
    "cell phone": "📱",
    "clock": "⏰",
    "cup": "☕",
    "key": "🔑",
    "orange": "🍊",
    "teddy bear": "🧸",
    "umbrella": "☂",
}


@dataclass(frozen=True)
class Sprite:
    """One category's drawing: ``rgba`` is (H, W, 4) uint8, cropped so that the drawing touches all four sides."""

    name: str
    rgba: np.ndarray


def load_sprites(folder: Path = SPRITE_FOLDER) -> tuple[Sprite, ...]:
    """The sprites of ``folder`` in alphabetical order of their names (file ``cell_phone.png`` is "cell phone").

    Raises:
        FileNotFoundError: the folder holds no PNG file.
        ValueError: a file is not a readable RGBA picture.
    """
    files = sorted(folder.glob("*.png"))
    if not files:
        raise FileNotFoundError(f"no sprites in {folder}: it should hold PNG files with an alpha channel")
    return tuple(_read(path) for path in files)


def _read(path: Path) -> Sprite:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3 or image.shape[2] != 4:
        raise ValueError(f"{path} is not a PNG with an alpha channel")
    return Sprite(path.stem.replace("_", " "), cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA))


def make_sprites(font_file: Path, folder: Path = SPRITE_FOLDER, size: int = 96) -> int:
    """Draws every glyph of ``GLYPHS`` with ``font_file`` (NotoColorEmoji.ttf) into ``folder``; returns how many.

    ``size`` is the longer side in pixels. Needs Pillow built with FreeType colour-bitmap support.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(str(font_file), 109)  # the one bitmap size that the font holds
    folder.mkdir(parents=True, exist_ok=True)
    for name, glyph in GLYPHS.items():
        canvas = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
        ImageDraw.Draw(canvas).text((8, 8), glyph, font=font, embedded_color=True)
        drawing = canvas.crop(canvas.getbbox())
        scale = size / max(drawing.size)
        drawing = drawing.resize(
            (round(drawing.width * scale), round(drawing.height * scale)), Image.Resampling.LANCZOS
        )
        drawing.save(folder / f"{name.replace(' ', '_')}.png", optimize=True)
    return len(GLYPHS)
