"""Sprites of everyday objects: the categories, the shipped drawings, and their creation from emoji sources.

``assets/sprites/noto`` holds the drawings of the train, val and test splits (Noto Color Emoji glyphs, SIL Open Font
License 1.1), ``assets/sprites/fluent`` other drawings of the same categories for the shifted split (Microsoft Fluent
emoji, MIT), ``assets/sprites/clutter`` glyphs that belong to no category. Each folder holds its licence.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from acs_core.artifacts.json_io import Limits, read_json
from acs_core.errors import ImageError
from training.errors import DataError

SPRITE_FOLDER = Path(__file__).parents[1] / "assets" / "sprites"
ICONS = Limits(64 * 2**20, 1_000_000)  # thousands of drawings as SVG text
NOTO, FLUENT, CLUTTER = (SPRITE_FOLDER / name for name in ("noto", "fluent", "clutter"))

# category -> (Noto glyphs, Fluent drawings); COCO's names where COCO has the category
CATEGORIES: dict[str, tuple[str, str]] = {
    "apple": ("🍎 🍏", "red-apple green-apple"),
    "backpack": ("🎒", "backpack"),
    "banana": ("🍌", "banana"),
    "bell": ("🔔", "bell"),
    "bicycle": ("🚲", "bicycle"),
    "bird": ("🐦 🦜 🦆", "bird parrot duck"),
    "boat": ("⛵ 🚤", "sailboat speedboat"),
    "book": ("📘 📕 📗", "blue-book closed-book green-book"),
    "bottle": ("🍾 🍼 🧴", "bottle-with-popping-cork baby-bottle lotion-bottle"),
    "broccoli": ("🥦", "broccoli"),
    "bus": ("🚌 🚍", "bus oncoming-bus"),
    "cake": ("🎂 🍰", "birthday-cake shortcake"),
    "camera": ("📷", "camera"),
    "car": ("🚗 🚙 🚘", "automobile sport-utility-vehicle oncoming-automobile"),
    "carrot": ("🥕", "carrot"),
    "cat": ("🐈 🐱", "cat cat-face"),
    "cell phone": ("📱", "mobile-phone"),
    "chair": ("🪑", "chair"),
    "clock": ("⏰ 🕐", "alarm-clock one-oclock"),
    "cup": ("☕ 🍵", "hot-beverage teacup-without-handle"),
    "dog": ("🐕 🐶", "dog dog-face"),
    "donut": ("🍩", "doughnut"),
    "elephant": ("🐘", "elephant"),
    "flashlight": ("🔦", "flashlight"),
    "hammer": ("🔨", "hammer"),
    "handbag": ("👜", "handbag"),
    "hat": ("🎩 👒", "top-hat womans-hat"),
    "hot dog": ("🌭", "hot-dog"),
    "key": ("🔑 🗝", "key old-key"),
    "kite": ("🪁", "kite"),
    "laptop": ("💻", "laptop"),
    "lemon": ("🍋", "lemon"),
    "light bulb": ("💡", "light-bulb"),
    "lock": ("🔒 🔓", "locked unlocked"),
    "orange": ("🍊", "tangerine"),
    "pizza": ("🍕", "pizza"),
    "potted plant": ("🪴", "potted-plant"),
    "scissors": ("✂", "scissors"),
    "shoe": ("👟 👞", "running-shoe mans-shoe"),
    "sports ball": ("⚽ 🏀 🏐", "soccer-ball basketball volleyball"),
    "stop sign": ("🛑", "stop-sign"),
    "strawberry": ("🍓", "strawberry"),
    "suitcase": ("🧳", "luggage"),
    "teddy bear": ("🧸", "teddy-bear"),
    "toothbrush": ("🪥", "toothbrush"),
    "traffic light": ("🚦 🚥", "vertical-traffic-light horizontal-traffic-light"),
    "train": ("🚂 🚆", "locomotive train"),
    "truck": ("🚚 🚛", "delivery-truck articulated-lorry"),
    "tv": ("📺", "television"),
    "umbrella": ("☂ ☔", "umbrella umbrella-with-rain-drops"),
    "watch": ("⌚", "watch"),
    "wine glass": ("🍷", "wine-glass"),
}

# drawn now and then, never annotated
CLUTTER_GLYPHS: dict[str, str] = {
    "balloon": "🎈",
    "cloud": "☁",
    "coin": "🪙",
    "die": "🎲",
    "diamond": "🔶",
    "flower": "🌸",
    "gem": "💎",
    "herb": "🌿",
    "leaf": "🍁",
    "log": "🪵",
    "moon": "🌙",
    "mushroom": "🍄",
    "paw": "🐾",
    "puzzle": "🧩",
    "ribbon": "🎀",
    "rock": "🪨",
    "shell": "🐚",
    "star": "⭐",
}


@dataclass(frozen=True)
class Sprite:
    """A drawing of the category ``name``: ``rgba`` is (H, W, 4) uint8, cropped to the visible pixels."""

    name: str
    rgba: np.ndarray


def category_names() -> tuple[str, ...]:
    """Return all categories of the world in alphabetical order, the same in every split."""
    return tuple(sorted(CATEGORIES))


def load_sprites(folder: Path = NOTO) -> tuple[Sprite, ...]:
    """Load the sprites of ``folder``, sorted by name; ``cell_phone.png``, ``cell_phone-2.png``, ... all are "cell
    phone".

    Raises:
        DataError: the folder holds no PNG file, or a file is not a readable image with an alpha channel.
    """
    files = sorted(folder.glob("*.png"), key=lambda path: (_name(path), path.stem))
    if not files:
        raise DataError(f"no sprites in {folder}: it should hold PNG files with an alpha channel")
    return tuple(_read(path) for path in files)


def _name(path: Path) -> str:
    return path.stem.partition("-")[0].replace("_", " ")


def _read(path: Path) -> Sprite:
    from acs_core.image import open_picture
    from acs_core.pixels import upright

    try:
        with open_picture(path.read_bytes()) as file:
            if file.mode != "RGBA" and "transparency" not in file.info:
                raise DataError(f"{path} has no alpha channel; save it as a PNG with one")
            return Sprite(_name(path), np.asarray(upright(file).convert("RGBA")))
    except (OSError, ImageError) as error:
        raise DataError(f"{path} is not a readable PNG: {error}") from error


def make_noto_sprites(font_file: Path, folder: Path = SPRITE_FOLDER, size: int = 96) -> int:
    """Draw the glyphs of ``CATEGORIES`` and ``CLUTTER_GLYPHS`` with ``font_file`` (NotoColorEmoji.ttf) into
    ``folder/noto`` and ``folder/clutter``, with the longer side of ``size`` pixels; returns their number.

    Needs Pillow built with FreeType colour-bitmap support.

    Raises:
        DataError: the font cannot be read, or lacks a glyph.
    """
    from PIL import Image, ImageDraw, ImageFont

    try:
        font = ImageFont.truetype(str(font_file), 109)  # the one bitmap size that the font holds
    except OSError as error:
        raise DataError(f"{font_file} is no readable colour font ({error}): name NotoColorEmoji.ttf") from error

    def draw(glyph: str, file: Path) -> None:
        canvas = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
        ImageDraw.Draw(canvas).text((8, 8), glyph, font=font, embedded_color=True)
        _save(np.asarray(canvas), file, size)

    glyphs = {name: noto.split() for name, (noto, _) in CATEGORIES.items()}
    files = _files(glyphs, folder / "noto") + _files({k: [v] for k, v in CLUTTER_GLYPHS.items()}, folder / "clutter")
    for glyph, file in files:
        draw(glyph, file)
    return len(files)


def make_fluent_sprites(icons_file: Path, folder: Path = SPRITE_FOLDER, size: int = 96) -> int:
    """Draw the Fluent drawings of ``CATEGORIES`` into ``folder/fluent``; returns their number.

    ``icons_file`` is the icons.json of the npm package @iconify-json/fluent-emoji. Needs resvg-py.

    Raises:
        DataError: resvg-py is missing, the file is no icon set, or it lacks a drawing.
    """
    try:
        import resvg_py
    except ImportError as error:
        raise DataError("drawing SVG sprites needs a renderer: pip install resvg-py") from error
    from PIL import Image

    try:
        content = read_json(icons_file, ICONS)
        content["icons"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{icons_file} is no icon set ({error}): name the icons.json of the package") from error
    files = _files({name: fluent.split() for name, (_, fluent) in CATEGORIES.items()}, folder / "fluent")
    for key, file in files:
        key = content.get("aliases", {}).get(key, {}).get("parent", key)
        if key not in content["icons"]:
            raise DataError(f"{icons_file} has no drawing {key!r}; is it the fluent-emoji package?")
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{content["icons"][key]["body"]}</svg>'
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=4 * size, height=4 * size))
        _save(np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")), file, size)
    return len(files)


def _files(keys: dict[str, list[str]], folder: Path) -> list[tuple[str, Path]]:
    """Return (key, file) of every drawing; the file name of the first drawing of a category has no number."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        (key, folder / f"{name.replace(' ', '_')}{f'-{i + 1}' if i else ''}.png")
        for name, some in keys.items()
        for i, key in enumerate(some)
    ]


def _save(rgba: np.ndarray, file: Path, size: int) -> None:
    """Crop to the drawing, scale the longer side to ``size`` pixels and write a palette PNG."""
    from PIL import Image

    ys, xs = np.nonzero(rgba[..., 3] > 64)
    if not len(ys):
        raise DataError(f"the source has no drawing for {file.name}: is it the font or icon set that the help names?")
    drawing = rgba[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].astype(np.float32)
    drawing[..., :3] *= drawing[..., 3:] / 255  # premultiplied, so that scaling creates no dark fringe
    scale = size / max(drawing.shape[:2])
    h, w = (max(1, round(side * scale)) for side in drawing.shape[:2])
    small = np.asarray(cv2.resize(drawing, (w, h), interpolation=cv2.INTER_AREA), dtype=np.float32)
    small[..., :3] *= 255 / np.maximum(small[..., 3:], 1)
    picture = Image.fromarray(np.clip(small.round(), 0, 255).astype(np.uint8))
    picture.quantize(192, method=Image.Quantize.FASTOCTREE).save(file, optimize=True)
