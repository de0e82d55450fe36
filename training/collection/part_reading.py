"""Reading of one part of a store: compares its files with their digests, and checks the ranges of its values."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acs_core.artifacts.json_io import Limits
from training.collection.part_arrays import (
    MAX_CANDIDATES,
    CodeFrames,
    find_frames,
    read_array,
    read_attributes,
    read_part_json,
    shape_of_codes,
)
from training.collection.part_codes import read_ahead, unpack
from training.collection.part_digests import Digests, errors_as_data_errors, read_digests, verify

ANSWERS = "answers.json"
ANSWERS_LIMITS = Limits(1 << 30, 100_000_000)  # ten pairs, a thousand responses each, of thousands of tokens
COLUMNS = ("iou", "x1", "y1", "x2", "y2", "pair", "image", "response", "order", "width", "height", "grid_h", "grid_w")
TOKENS = ("token_x1", "token_y1", "token_x2", "token_y2")
NAMES = (*COLUMNS, *TOKENS)
WHOLE = NAMES[NAMES.index("pair") :]  # columns that hold integers

MAX_SIDE = 100_000  # of an image in pixels, and of a grid in cells
# Fields of a stored response, besides the entropies and log-probabilities of its tokens.
RESPONSE: dict[str, type] = {
    "pair": int,
    "response": int,
    "text": str,
    "num_boxes": int,
    "finished": bool,
    "problem": str,
}
HIDDEN = "hidden"  # field of the first response to a prompt: last hidden state at its end; not in earlier collections
MAX_NATS = 1e3  # of an entropy; far above that of any vocabulary or map
MAX_STATE = 1e30  # of a number of a hidden state; float32 holds it
BELOW_ZERO = -1e-3  # rounding in float32 can make an entropy of zero negative


@dataclass(frozen=True)
class CandidateTable:
    """Candidates of a part.

    Attributes:
        pairs: indices of the sampled pairs.
        skipped: reason for each skipped pair, by pair index.
        rows: (C, 17) columns ``NAMES`` of the candidates.
        entropy: (C, 4, L, K) in nats.
        place: (C, 4) indices of distinct maps.
    """

    pairs: tuple[int, ...]
    skipped: dict[int, str]
    rows: np.ndarray
    entropy: np.ndarray
    place: np.ndarray


def is_map_data(name: str) -> bool:
    """Whether a file of a part holds codes, which are most of its bytes and are verified only before their first
    read."""
    return name.startswith("codes/c/")


def read_table(part: Path, collection: str, manifest: Mapping[str, Any]) -> CandidateTable:
    """Read the candidates of ``part``. All of its files except the codes are compared with their digests.

    Args:
        part: folder of the part.
        collection: fingerprint of the collection.
        manifest: manifest of the collection.

    Raises:
        DataError: the part is damaged, of another collection, or a value is out of its range; names part and value.
    """
    verify(part, read_digests(part, collection), lambda name: not is_map_data(name))
    with errors_as_data_errors(part):
        pairs, skipped = _pairs(part, len(manifest.get("pairs") or ()) or None)
        rows = read_array(part, "rows", (None, len(NAMES)))
        count = len(rows)
        if count > MAX_CANDIDATES:
            raise ValueError(f"it holds {count} candidates, a part has {MAX_CANDIDATES} at most")
        _check_rows(rows, set(pairs), manifest)
        place = read_array(part, "place", (count, 4))
        if not count:
            return CandidateTable(pairs, skipped, rows, np.zeros((0, 4, 1, 1), np.float32), place)
        maps, layers, heads, _, _ = shape_of_codes(part, *_heads(manifest))
        entropy = read_array(part, "entropy", (count, 4, layers, heads))
        _check_evidence(entropy, place, maps)
        return CandidateTable(pairs, skipped, rows, entropy, place)


def read_skipped_pairs(part: Path, collection: str) -> dict[int, str]:
    """Read the skipped pairs of ``part``, with the reason for each.

    Raises:
        DataError: the part is damaged.
    """
    verify(part, read_digests(part, collection), lambda name: name == "zarr.json")
    with errors_as_data_errors(part):
        return _pairs(part, None)[1]


def read_answers(part: Path, collection: str) -> list[dict[str, Any]]:
    """Read the responses of ``part``, as described at :func:`training.collection.store.read_responses`.

    Raises:
        DataError: the part is damaged, or a response lacks a field or has an invalid one.
    """
    verify(part, read_digests(part, collection), lambda name: name in (ANSWERS, "zarr.json"))
    with errors_as_data_errors(part):
        pairs = set(_pairs(part, None)[0])
        answers = read_part_json(part / ANSWERS, ANSWERS_LIMITS)
        if not isinstance(answers, list):
            raise ValueError(f"{ANSWERS} holds no list")
        seen = set()
        for answer in answers:
            _check_answer(answer, pairs)
            if HIDDEN in answer:  # an array takes a small part of the memory of a list
                answer[HIDDEN] = np.array(answer[HIDDEN], np.float32)
            seen.add((answer["pair"], answer["response"]))
        if len(seen) < len(answers):
            raise ValueError(f"{ANSWERS} holds a response twice")
        return answers


class PartMaps:
    """Codes and units of the distinct maps of one part; ``shape`` is (M, L, K, h, w). The codes are compared with their
    digests before the first read. Several threads may read at the same time.

    Raises:
        DataError: the part is damaged.
    """

    def __init__(self, part: Path) -> None:
        self._part = part
        self._digests: Digests = read_digests(part)
        self._frames: CodeFrames | None = None  # until the codes were compared
        self._comparing = threading.Lock()
        verify(part, self._digests, lambda name: name.startswith(("codes/zarr", "zarr")))
        with errors_as_data_errors(part):
            self.shape = shape_of_codes(part, None, None)
        self._unit: np.ndarray | None = self._read_unit()

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return codes (n, L, K, h, w) uint8 and units (n, L, K) float32 of the maps ``rows``."""
        codes = np.empty((len(rows), *self.shape[1:]), np.uint8)
        unit = np.empty((len(rows), *self.shape[1:3]), np.float32)
        self.read_into(rows, codes, unit, np.arange(len(rows)))
        return codes, unit

    def read_into(self, rows: np.ndarray, codes: np.ndarray, unit: np.ndarray, at: np.ndarray) -> None:
        """Write codes and units of the maps ``rows`` (n,) to ``codes[at]`` (N, L, K, h, w) and ``unit[at]`` (N, L,
        K)."""
        frames = self._compared()
        with errors_as_data_errors(self._part):
            unpack(frames, rows, codes, at)
        known = self._unit
        if known is None:
            self._unit = known = self._read_unit()
        unit[at] = known[rows]

    def read_ahead(self) -> None:
        """Tell the system that all codes will be read soon."""
        with errors_as_data_errors(self._part):
            read_ahead(tuple(self._part / name for name in self._digests.files if is_map_data(name)))

    def release(self) -> None:
        """Give the memory of the units back, which the next read reads again."""
        self._unit = None

    def _compared(self) -> CodeFrames:
        """Return the frames of the codes, after comparing these with their digests once."""
        with self._comparing:
            if self._frames is None:
                verify(self._part, self._digests, is_map_data)
                with errors_as_data_errors(self._part):
                    self._frames = find_frames(self._part)
            return self._frames

    def _read_unit(self) -> np.ndarray:
        verify(self._part, self._digests, lambda name: name.startswith("unit/"))
        with errors_as_data_errors(self._part):
            unit = read_array(self._part, "unit", self.shape[:3])
            if not np.isfinite(unit).all() or (unit < 0).any():
                raise ValueError("a unit is negative or not finite")
            return unit


def _pairs(part: Path, count: int | None) -> tuple[tuple[int, ...], dict[int, str]]:
    """Return the sampled and the skipped pairs; the manifest has ``count`` pairs."""
    attributes = read_attributes(part)
    pairs, skipped = attributes["pairs"], attributes["skipped"]
    asked = tuple(pairs)
    left = {int(number): why for number, why in skipped.items()}
    both = [*asked, *left]
    if not all(type(i) is int and i >= 0 and (count is None or i < count) for i in both):
        raise ValueError(f"it names pairs that are not in the manifest: {both}")
    if len(set(both)) < len(both):
        raise ValueError("it names a pair twice")
    if not all(isinstance(why, str) for why in left.values()):
        raise ValueError("a pair was skipped for no reason")
    return asked, left


def _check_rows(rows: np.ndarray, pairs: set[int], manifest: Mapping[str, Any]) -> None:
    if not np.isfinite(rows).all():
        raise ValueError("a row holds a number that is not finite")
    column = {name: rows[:, i] for i, name in enumerate(NAMES)}
    responses = 1 if manifest.get("greedy") else manifest.get("samples", math.inf)
    tokens = manifest.get("max_new_tokens", math.inf)
    ranges = {  # lowest and highest
        "iou": (0, 1),
        "x1": (0, MAX_SIDE),
        "y1": (0, MAX_SIDE),
        "x2": (0, MAX_SIDE),
        "y2": (0, MAX_SIDE),
        "image": (-(2**53), 2**53),  # integers that float64 represents exactly
        "response": (0, responses - 1),
        "order": (0, MAX_SIDE),
        **dict.fromkeys(("width", "height", "grid_h", "grid_w"), (1, MAX_SIDE)),
        **dict.fromkeys(TOKENS, (0, tokens)),
    }
    for name, (least, most) in ranges.items():
        wrong = (column[name] < least) | (column[name] > most)
        if wrong.any():
            raise ValueError(f"a candidate has {name} {column[name][wrong][0]:g}, outside {least:g} to {most:g}")
    for name in WHOLE:
        if (column[name] != np.rint(column[name])).any():
            raise ValueError(f"a candidate has a {name} that is no whole number")
    if strange := {int(p) for p in np.unique(column["pair"])} - pairs:
        raise ValueError(f"a candidate belongs to pair {min(strange)}, which the part does not hold")
    for low, high, side in (("x1", "x2", "width"), ("y1", "y2", "height")):
        if (column[low] >= column[high]).any():
            raise ValueError(f"a box has {low} at or above {high}")
        if (column[high] > column[side]).any():
            raise ValueError(f"a box has {high} outside its picture")


def _heads(manifest: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return the numbers of layers and heads of the manifest's model; None if it states none."""
    model = manifest.get("model")
    return (model.get("num_layers"), model.get("num_heads")) if isinstance(model, Mapping) else (None, None)


def _check_evidence(entropy: np.ndarray, place: np.ndarray, maps: int) -> None:
    if not np.isfinite(entropy).all() or (entropy < BELOW_ZERO).any():
        raise ValueError("an entropy is negative or not finite")
    if (place < 0).any() or (place >= maps).any():
        raise ValueError(f"a candidate's map is not among the {maps} that there are")


def _check_answer(answer: Any, pairs: set[int]) -> None:
    if not isinstance(answer, dict):
        raise ValueError(f"{ANSWERS} holds something that is no response")
    for name, kind in RESPONSE.items():
        if type(answer.get(name)) is not kind:
            raise ValueError(f"{ANSWERS}: a response has {name} {str(answer.get(name))[:60]!r}")
    for name in ("response", "num_boxes"):
        if answer[name] < 0:
            raise ValueError(f"{ANSWERS}: a response has {name} {answer[name]}")
    if answer["pair"] not in pairs:
        raise ValueError(f"{ANSWERS}: a response is about pair {answer['pair']}, which the part does not hold")
    for name, least, most in (("token_entropy", 0.0, MAX_NATS), ("token_logprob", -MAX_NATS, 0.0)):
        values = answer.get(name)
        if not isinstance(values, list) or not all(
            type(nats) in (int, float) and least + BELOW_ZERO <= nats <= most - BELOW_ZERO for nats in values
        ):
            raise ValueError(f"{ANSWERS}: a response has a {name} that is no list of {least:g} to {most:g}")
    hidden = answer.get(HIDDEN, [])
    if not isinstance(hidden, list) or not all(type(v) in (int, float) and abs(v) <= MAX_STATE for v in hidden):
        raise ValueError(f"{ANSWERS}: a response has a {HIDDEN} that is no list of numbers of sensible size")
