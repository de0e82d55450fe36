"""TIFF files as any encoder may write them, in kinds that neither Pillow nor OpenCV writes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import numpy as np

SHORT, LONG = 3, 4
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, OFFSETS = 256, 257, 258, 259, 262, 273
ORIENTATION, SAMPLES, ROWS, COUNTS, PLANAR, EXTRA, SAMPLE_FORMAT = 274, 277, 278, 279, 284, 338, 339
KIND = {"u": 1, "i": 2, "f": 3}


def tiff(pixels: np.ndarray, order: str = "<", tags: Mapping[int, int] = {}, deflate: bool = False) -> bytes:
    """A TIFF of ``pixels`` (H, W) or (H, W, C), ``order`` "<" (little-endian) or ">"; ``tags`` replaces what follows
    from them, for instance the photometric interpretation."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    planes = channels if tags.get(PLANAR) == 2 else 1
    stored = pixels.astype(pixels.dtype.newbyteorder(order))
    data = np.ascontiguousarray(np.moveaxis(stored, -1, 0) if planes > 1 else stored).tobytes()
    strips = [data[i * len(data) // planes : (i + 1) * len(data) // planes] for i in range(planes)]
    if deflate:
        strips = [zlib.compress(strip) for strip in strips]
    fields: dict[int, tuple[int, list[int]]] = {
        WIDTH: (LONG, [width]),
        HEIGHT: (LONG, [height]),
        BITS: (SHORT, [pixels.dtype.itemsize * 8] * channels),
        COMPRESSION: (SHORT, [8 if deflate else 1]),
        PHOTOMETRIC: (SHORT, [1 if channels < 3 else 2]),
        OFFSETS: (LONG, [0] * planes),
        SAMPLES: (SHORT, [channels]),
        ROWS: (LONG, [height]),
        COUNTS: (LONG, [len(strip) for strip in strips]),
        SAMPLE_FORMAT: (SHORT, [KIND[pixels.dtype.kind]] * channels),
    }
    fields |= {tag: (SHORT, [value]) for tag, value in tags.items()}
    at = 8 + 2 + 12 * len(fields) + 4
    places = {}
    for tag, (kind, values) in fields.items():
        if len(values) * (2 if kind == SHORT else 4) > 4:
            places[tag] = at
            at += len(values) * (2 if kind == SHORT else 4)
    fields[OFFSETS] = (LONG, [at + sum(map(len, strips[:i])) for i in range(planes)])
    directory, beside = b"", b""
    for tag in sorted(fields):
        kind, values = fields[tag]
        packed = struct.pack(f"{order}{len(values)}{'H' if kind == SHORT else 'I'}", *values)
        where = struct.pack(f"{order}I", places[tag]) if tag in places else packed.ljust(4, b"\0")
        directory += struct.pack(f"{order}HHI", tag, kind, len(values)) + where
    for tag in places:  # in the order in which they were given their places
        kind, values = fields[tag]
        beside += struct.pack(f"{order}{len(values)}{'H' if kind == SHORT else 'I'}", *values)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(fields))
    return head + directory + bytes(4) + beside + b"".join(strips)
