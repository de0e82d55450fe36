"""Arrays of a store's part. Their descriptions and zstd frames are checked before zarr reads any value.

A description of some hundred bytes, or the header of a frame, can claim terabytes, which zarr would allocate. Only
descriptions as :func:`write_arrays` writes them are accepted.

Maps are quantised to one float per map, and one byte per cell that is proportional to the square root of the weight. A
map is a distribution over hundreds of cells with a few large weights and many small ones; equal steps of the square
root preserve both, since their squared error is the Hellinger distance of the two distributions. The step is a share of
the standard deviation of the map's square roots, so that a diffuse map, whose cells differ little, keeps as much of
these differences as a sharp one. The float (``unit``) preserves the sum of the map, which a regressor uses as a feature
and which rounding would change, most of all if few cells hold most of the weight. The codes are then compressed by
zstd, at its lowest level: noise is nearly all that is left in them, in which a longer search finds nothing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from zarr.codecs import ZstdCodec

from acs_core.artifacts.json_io import Limits, open_file, parse_json, read_bounded, shorten
from training.errors import DataError

LEVELS = 72  # the largest code of a stored map
STEP = 0.55  # of the codes, in standard deviations of the map's square roots; larger if a code would exceed LEVELS
FULL_STEP_CELLS = 576  # smaller maps have smaller steps: errors average over fewer cells, and bytes matter less
CODES = "codes"
TYPES = {CODES: "uint8", "unit": "float32", "place": "int32", "entropy": "float32", "rows": "float64"}
DESCRIPTION = "zarr.json"
DESCRIPTION_LIMITS = Limits(4 << 20, 100_000)  # of an array, or of a part with the reasons of its skipped pairs
MAX_CANDIDATES = 100_000  # of a part; far above ten pairs with thirty responses each
MAX_ELEMENTS = 1 << 28  # of an array that is read as a whole: 1 GiB of entropies
MAX_MAP = 1 << 24  # codes of one map: layers x heads x cells
CHUNK_BYTES = 1 << 18  # size of the codes that are compressed together, and unpacked to read one candidate
SHARD_BYTES = 1 << 27
PACKED = ["bytes", "zstd"]  # codecs, in their order
MAGIC = bytes.fromhex("28b52ffd")  # of a zstd frame
HEAD_BYTES = 18  # the longest header of a zstd frame
ABSENT = (1 << 64) - 1  # offset and size of a chunk that a shard leaves out because all its values are 0


@dataclass(frozen=True)
class CodeFrames:
    """Places of the zstd frames of a part's codes.

    Attributes:
        shape: shape (M, L, K, h, w) of all codes.
        maps: number of maps in a frame.
        files: the shards, each with the same number of frames.
        places: (F, 2) uint64 offset and bytes of each frame in its file; ``ABSENT`` for a frame of zeros.
    """

    shape: tuple[int, ...]
    maps: int
    files: tuple[Path, ...]
    places: np.ndarray


def check_size(shapes: Mapping[str, Sequence[int]]) -> None:
    """Check that arrays of these shapes, by name, are small enough to be read again.

    Raises:
        DataError: an array is larger than a part may hold.
    """
    for name, shape in shapes.items():
        size, most = (math.prod(shape[1:]), MAX_MAP) if name == CODES else (math.prod(shape), MAX_ELEMENTS)
        if size > most or (name == "rows" and shape[0] > MAX_CANDIDATES):
            raise DataError(
                f"{name} of the shape {tuple(shape)} is more than a part can hold: collect fewer responses or smaller "
                "maps (--samples, --map-side)"
            )


def write_arrays(group: zarr.Group, arrays: Mapping[str, np.ndarray]) -> None:
    """Write ``arrays``, by their names in ``TYPES``, into ``group``. Empty codes are not written."""
    for name, array in arrays.items():
        if name != CODES:
            chunks = tuple(max(1, n) for n in array.shape)
            group.create_array(name, data=array, chunks=chunks, compressors=ZstdCodec(level=3))
        elif len(array):
            each = max(1, array[0].size)
            chunk = max(1, min(len(array), CHUNK_BYTES // each))
            shard = chunk * max(1, min(-(-len(array) // chunk), SHARD_BYTES // (chunk * each)))
            group.create_array(
                name,
                data=array,
                chunks=(chunk, *array.shape[1:]),
                shards=(shard, *array.shape[1:]),
                compressors=ZstdCodec(level=1),
            )


def read_part_json(file: Path, limits: Limits) -> Any:
    """Read a JSON file of a part.

    Raises:
        OSError: the file cannot be read, but may be intact.
        ValueError: it is larger than ``limits``, or not valid JSON.
    """
    return parse_json(read_bounded(file, limits), limits)


def read_attributes(part: Path) -> Any:
    """Read the attributes of the zarr group ``part``.

    Raises:
        ValueError: ``part`` is not a group of zarr 3, or the attributes' text is too large.
    """
    told = read_part_json(part / DESCRIPTION, DESCRIPTION_LIMITS)
    if (told["node_type"], told["zarr_format"]) != ("group", 3):
        raise ValueError(f"{DESCRIPTION} describes no group of zarr 3")
    return told["attributes"]


def read_array(part: Path, name: str, wanted: Sequence[int | None]) -> np.ndarray:
    """Read the array ``name`` of ``part``, of shape ``wanted``; None stands for any length.

    Raises:
        ValueError: the array's description differs or is too large, or its frame would unpack to another size.
        Exception: raised by zarr if the content is damaged.
    """
    told, shape = _described(part, name, wanted)
    if math.prod(shape) > MAX_ELEMENTS:
        raise ValueError(f"{name} claims {math.prod(shape):,} values, a part holds {MAX_ELEMENTS:,} at most")
    chunk = tuple(max(1, n) for n in shape)
    if _lengths(told["chunk_grid"]["configuration"]["chunk_shape"], name) != chunk or _names(told["codecs"]) != PACKED:
        raise ValueError(f"{name} is not packed as one chunk with {' and '.join(PACKED)}")
    file = _chunk_file(part, name, [0] * len(shape))
    if file.exists():
        with open_file(file) as packed:
            _check_frame(packed.read(HEAD_BYTES), math.prod(chunk) * np.dtype(TYPES[name]).itemsize, name)
    return np.asarray(_open(part, name)[:])


def shape_of_codes(part: Path, layers: int | None, heads: int | None) -> tuple[int, ...]:
    """Return the shape (M, L, K, h, w) of the codes of ``part``. No code is read.

    Raises:
        ValueError: the codes' description differs or is too large, or has another number of ``layers`` or ``heads``.
    """
    return _codes(part, layers, heads)[0]


def find_frames(part: Path) -> CodeFrames:
    """Find the frames of the codes of ``part``.

    Raises:
        ValueError: a frame unpacks to another size than that of its chunk, or the index of a shard is damaged.
    """
    shape, chunk, shard = _codes(part, None, None)
    count = shard[0] // chunk[0]
    files = tuple(_chunk_file(part, CODES, [number, 0, 0, 0, 0]) for number in range(-(-shape[0] // shard[0])))
    nothing = np.full((count, 2), ABSENT, np.uint64)
    places = [_read_index(file, count, math.prod(chunk)) if file.exists() else nothing for file in files]
    return CodeFrames(shape, chunk[0], files, np.concatenate([nothing[:0], *places]))


def _codes(
    part: Path, layers: int | None, heads: int | None
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of all codes, of a chunk and of a shard."""
    told, shape = _described(part, CODES, (None, layers, heads, None, None))
    if (each := math.prod(shape[1:])) > MAX_MAP:
        raise ValueError(f"a map claims {each:,} codes, it has {MAX_MAP:,} at most")
    [sharding] = told["codecs"]
    inner = sharding["configuration"]
    shard = _lengths(told["chunk_grid"]["configuration"]["chunk_shape"], CODES)
    chunk = _lengths(inner["chunk_shape"], CODES)
    known = (
        sharding["name"] == "sharding_indexed"
        and _names(inner["codecs"]) == PACKED
        and _names(inner["index_codecs"]) == ["bytes", "crc32c"]
        and inner.get("index_location", "end") == "end"
        and told.get("fill_value") == 0
    )
    if not known or not shape[1:] == chunk[1:] == shard[1:] or shard[0] % chunk[0]:
        raise ValueError("codes are not packed in shards of whole maps")
    if math.prod(chunk) > max(CHUNK_BYTES, each) or math.prod(shard) > max(SHARD_BYTES, math.prod(chunk)):
        raise ValueError(f"codes are packed in chunks of {chunk[0]} and shards of {shard[0]} maps, which are too many")
    return shape, chunk, shard


def _described(part: Path, name: str, wanted: Sequence[int | None]) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Return the description and the shape of the array ``name``."""
    told = read_part_json(part / name / DESCRIPTION, DESCRIPTION_LIMITS)
    if (told["node_type"], told["zarr_format"], told["data_type"]) != ("array", 3, TYPES[name]):
        raise ValueError(f"{name} is no array of {TYPES[name]} in zarr 3")
    shape = told["shape"]
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"{name} has a senseless shape {shorten(shape)}")
    if len(shape) != len(wanted) or any(w is not None and n != w for n, w in zip(shape, wanted, strict=True)):
        asked = ", ".join("any" if w is None else str(w) for w in wanted)
        raise ValueError(f"{name} has the shape {shorten(shape)}, not ({asked})")
    keys = {"name": "default", "configuration": {"separator": "/"}}
    if told.get("storage_transformers") or told["chunk_key_encoding"] != keys:
        raise ValueError(f"{name} is stored in another way than acs writes it")
    return told, tuple(shape)


def _open(part: Path, name: str) -> Any:
    # format 3 alone: zarr would also open an array of format 2, which may name any codec of numcodecs
    return zarr.open_array(part / name, mode="r", zarr_format=3)


def _chunk_file(part: Path, name: str, index: Sequence[int]) -> Path:
    return part.joinpath(name, "c", *map(str, index))


def _lengths(told: Any, name: str) -> tuple[int, ...]:
    if not isinstance(told, list) or not all(type(n) is int and n >= 1 for n in told):
        raise ValueError(f"{name} has a senseless chunk {shorten(told)}")
    return tuple(told)


def _names(codecs: Any) -> list[str]:
    return [str(codec["name"]) for codec in codecs]


def _read_index(file: Path, count: int, size: int) -> np.ndarray:
    """Return the places of a shard's ``count`` frames (:attr:`CodeFrames.places`), which unpack to ``size`` bytes each.
    The shard ends with its index (offset and size of each chunk) and a checksum of four bytes."""
    with open_file(file) as packed:
        whole = os.fstat(packed.fileno()).st_size
        if whole < 16 * count + 4:
            raise ValueError("a shard of codes is shorter than its index")
        packed.seek(whole - 16 * count - 4)
        index = np.frombuffer(packed.read(16 * count), "<u8").reshape(-1, 2)
        for start, length in index.tolist():
            if start == length == ABSENT:
                continue
            if start + length > whole:
                raise ValueError("a shard's index names a place outside it")
            packed.seek(start)
            _check_frame(packed.read(min(length, HEAD_BYTES)), size, CODES)
        return index


def _check_frame(head: bytes, size: int, name: str) -> None:
    """Raise ValueError unless ``head`` is the header of a zstd frame with a content size of ``size`` bytes. zarr
    allocates the size in the header, and any amount for a frame without one."""
    stated = _content_size(head)
    if stated != size:
        raise ValueError(f"{name} would unpack to {'any' if stated is None else f'{stated:,}'} bytes, not {size:,}")


def _content_size(head: bytes) -> int | None:
    """Return the content size in the header ``head`` of a zstd frame (RFC 8878, 3.1.1.1); None if the frame states none
    or the header is incomplete."""
    if len(head) < 6 or head[:4] != MAGIC:
        return None
    flags = head[4]
    single = flags >> 5 & 1  # single segment: the header has no window descriptor
    width = (single, 2, 4, 8)[flags >> 6]
    start = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    field = head[start : start + width]
    if not width or len(field) < width:
        return None
    return int.from_bytes(field, "little") + (256 if width == 2 else 0)


def encode(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantise weights (..., h, w) at or above 0.

    Returns:
        Codes (..., h, w) uint8 in 0 to ``LEVELS``, and the unit (...) float32 of each map: the weight of code 1, chosen
        such that decoding preserves the sum of the map.
    """
    roots = np.sqrt(maps, dtype=np.float32)
    step = np.maximum(roots.max(axis=(-2, -1)) / LEVELS, step_share(maps.shape[-2:]) * roots.std(axis=(-2, -1)))
    roots /= np.maximum(step, np.finfo(np.float32).tiny)[..., None, None]
    np.rint(roots, out=roots)
    codes = roots.astype(np.uint8)
    np.square(roots, out=roots)
    squares = np.maximum(roots.sum(axis=(-2, -1)), 1)
    return codes, (maps.sum(axis=(-2, -1)) / squares).astype(np.float32)


def step_share(size: tuple[int, ...]) -> float:
    """Return the step of the codes of maps of ``size`` (h, w), in standard deviations of their square roots."""
    return STEP * min(1.0, math.prod(size) / FULL_STEP_CELLS)


def decode(codes: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Return the weights (..., h, w) float32 of codes and units of :func:`encode`."""
    return np.square(codes, dtype=np.float32) * unit[..., None, None]


def decode_on_device(codes: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    """Decode tensors as :func:`decode` does, on their device: only a quarter of the bytes is transferred to it."""
    return codes.float().square_() * unit[..., None, None]
