"""Images that show an answer: candidates with their outcomes for every phrase, and attention."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from acs_core.geometry import Box
from acs_core.overlay import draw_result
from acs_core.types import GroundingResult, Outcome

MIN_SIDE = 480  # pixels: smaller images are enlarged by an integer factor
MAX_GRID = 2400  # pixels: larger grids are reduced, since DDS would not transport them
OPAQUE = 0.75  # opacity of the heat map at the largest attention; it is transparent at zero
WINNER, LOSER, LIGHT, DARK = (60, 255, 90), (255, 170, 60), (240, 240, 240), (22, 24, 28)


def debug_picture(
    image: np.ndarray, results: Sequence[GroundingResult], truths: Sequence[Sequence[Box]] = ()
) -> np.ndarray:
    """Draw the candidates and their outcomes on the (H, W, 3) uint8 RGB image, one image per phrase in a roughly square
    grid, with the true boxes of each phrase if given.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    pairs = zip(results, truths or [()] * len(results), strict=True)
    return _grid([draw_result(image, result, truth, min_side=MIN_SIDE) for result, truth in pairs])


def attention_picture(image: np.ndarray, results: Sequence[GroundingResult]) -> np.ndarray:
    """Draw the attention of the coordinate tokens of each chosen box as a heat map over the (H, W, 3) uint8 RGB image,
    with the box; one image per phrase.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    return _grid([_heat(image, result) for result in results])


def _heat(image: np.ndarray, result: GroundingResult) -> np.ndarray:
    factor = max(1, -(-MIN_SIDE // max(image.shape[:2])))
    size = (image.shape[1] * factor, image.shape[0] * factor)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    base = cv2.resize(grey, size, interpolation=cv2.INTER_NEAREST).astype(np.float32)
    attention = getattr(result, "attention", None)
    picture = base
    if attention is not None and float(attention.max()) > 0:
        share = (attention / attention.max()).astype(np.float32)  # (Hv, Wv) in [0, 1]
        share = _spread(share, result.region, size, factor)
        heat = cv2.applyColorMap((share * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[:, :, ::-1]
        opacity = OPAQUE * np.sqrt(share)[:, :, None]  # keeps faint attention visible
        picture = base * (1 - opacity) + heat * opacity
    canvas = Image.fromarray(picture.astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    unit = max(1, round(max(size) / 500))
    chosen = [(d.box, WINNER) for d in result.detections]
    if not chosen and result.candidates:
        chosen = [(max(result.candidates, key=lambda c: c.quality).box, LOSER)]
    for box, color in chosen:
        x1, y1, x2, y2 = (v * factor for v in box.as_tuple())
        draw.rectangle((x1 - unit, y1 - unit, x2 + unit, y2 + unit), outline=color, width=unit)
    says = f"“{result.phrase}”: " + _says(result, attention)
    font = ImageFont.load_default(13 * unit)
    strip = Image.new("RGB", (size[0], 20 * unit), DARK)
    ImageDraw.Draw(strip).text((5 * unit, 2 * unit), says, font=font, fill=LIGHT)
    return np.concatenate([np.asarray(strip), np.asarray(canvas)])


def _spread(share: np.ndarray, region: Box | None, size: tuple[int, int], factor: int) -> np.ndarray:
    """``share`` (Hv, Wv) of ``region``, or of the whole image, enlarged to the image of ``size`` (width, height), which
    is enlarged by ``factor``; zero outside of the region."""
    x1, y1, x2, y2 = (0, 0, *size) if region is None else (int(v) * factor for v in region.as_tuple())
    enlarged = np.clip(cv2.resize(share, (x2 - x1, y2 - y1), interpolation=cv2.INTER_CUBIC), 0.0, 1.0)
    spread = np.zeros((size[1], size[0]), np.float32)
    spread[y1:y2, x1:x2] = enlarged
    return spread


def _says(result: GroundingResult, attention: np.ndarray | None) -> str:
    if not result.candidates:
        return "no box, so no attention"
    if attention is None:
        return "the engine gave no attention"
    abstained = all(c.outcome is not Outcome.SELECTED for c in result.candidates)
    whose = "best box, which was refused" if abstained else "chosen box"
    return f"attention of the {whose}, {attention.shape[1]} x {attention.shape[0]} cells"


def _grid(tiles: Sequence[np.ndarray]) -> np.ndarray:
    if len(tiles) == 1:
        return tiles[0]
    columns = int(np.ceil(np.sqrt(len(tiles))))
    height, width = max(t.shape[0] for t in tiles), max(t.shape[1] for t in tiles)
    rows = -(-len(tiles) // columns)
    canvas = np.full((rows * height, columns * width, 3), DARK, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = i // columns * height, i % columns * width
        canvas[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    shrink = MAX_GRID / max(canvas.shape)
    return canvas if shrink >= 1 else cv2.resize(canvas, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
