"""Targets: safetensors files that somebody else may have written."""

from __future__ import annotations

import json
import struct
from functools import cache

import numpy as np
import torch

from acs_core.artifacts.identity import ModelIdentity
from acs_core.artifacts.trees import Trees
from acs_core.attention import AttentionRecord
from acs_core.errors import JointError, RegressorError
from acs_core.geometry import Box
from acs_core.selection.box_regressor import BoxRegressor, load_box_regressor, save_box_regressor
from acs_core.selection.joint_features import feature_names
from acs_core.selection.joint_model import JointIoUModel, load_joint, save_joint
from acs_core.selection.regressor import AttentionIoURegressor, load_regressor, save_regressor
from acs_core.types import Candidate
from fuzz.draw import FuzzedData, change_bytes, change_json
from fuzz.files import changed_json, scratch, write
from fuzz.target import Broken, Target


@cache
def small_regressor() -> bytes:
    """A regressor file of a model with one layer and one head."""
    path = scratch() / "good.safetensors"
    save_regressor(path, AttentionIoURegressor(1, 1), ModelIdentity("m", "internvl", 1, 1), (4, 4))
    return path.read_bytes()


DTYPES = (
    "BOOL",
    "U8",
    "I8",
    "I64",
    "F8_E4M3",
    "F8_E5M2",
    "F8_E8M0",
    "F4",
    "F6_E2M3",
    "F16",
    "BF16",
    "F32",
    "F64",
    "C64",
)


def changed_safetensors(draw: FuzzedData, good: bytes, key: str, values: tuple[bytes, ...]) -> bytes:
    """A safetensors file with something changed: bytes of its header, the metadata under ``key``, an entry, the
    header's JSON; and now and then ``values`` somewhere in its arrays."""
    (length,) = struct.unpack("<Q", good[:8])
    body = good[8 + length :]
    header = json.loads(good[8 : 8 + length])
    meta = json.loads(header["__metadata__"][key])
    kind = draw.integer(0, 3)
    if kind == 0:
        return change_bytes(draw, good[: 8 + length], draw.integer(1, 5)) + body
    if kind == 1:
        header["__metadata__"][key] = changed_json(draw, meta).decode("utf-8", "replace")
    elif kind == 2:
        entry = header[draw.pick([k for k in header if k != "__metadata__"])]
        entry["dtype"] = draw.pick(DTYPES)
        if draw.chance(2):
            entry["shape"] = draw.pick(([1], [], [0], [2**62], [2**32, 2**32], [4, 1]))
        if draw.chance(2):
            entry["data_offsets"] = draw.pick(([0, 4], [0, 2**62], [8, 4], [len(body), len(body)]))
    else:
        change_json(draw, header, draw.integer(1, 3))
    try:
        raw = json.dumps(header).encode()
    except (RecursionError, ValueError):
        raw = b"{}"
    return struct.pack("<Q", len(raw)) + raw + with_values(draw, body, values, 6)


def with_values(draw: FuzzedData, body: bytes, values: tuple[bytes, ...], odds: int) -> bytes:
    """``body`` with one of ``values`` at some place, in one of ``odds`` cases."""
    if not draw.chance(odds):
        return body
    value = draw.pick(values)
    at = draw.integer(0, len(body) - len(value))
    return body[:at] + value + body[at + len(value) :]


def regressor(draw: FuzzedData) -> None:
    """A regressor gives finite numbers in [0, 1]."""
    broken = (b"\xff" * 4, b"\x00\x7c\x00\x7c")  # not finite, or huge
    content = changed_safetensors(draw, small_regressor(), "acs_regressor", broken)
    model, info = load_regressor(write("regressor.safetensors", content))
    with torch.inference_mode():
        rows, columns = (min(8, side) for side in info.map_size)
        maps = torch.full((2, 4, model.num_layers, model.num_heads, rows, columns), 0.01)
        values = model(maps)
    if not ((values >= 0) & (values <= 1)).all():
        raise Broken(f"predicted IoU {values.tolist()}")


@cache
def small_box_regressor() -> bytes:
    """A box regressor's file of a model with one layer and one head."""
    path = scratch() / "good-box.safetensors"
    save_box_regressor(path, BoxRegressor(1, 1), ModelIdentity("m", "internvl", 1, 1), (4, 4))
    return path.read_bytes()


def box_regressor(draw: FuzzedData) -> None:
    """A box regressor gives finite numbers in [0, 1]."""
    broken = (b"\xff" * 4, b"\x00\x7c\x00\x7c")  # not finite, or huge
    content = changed_safetensors(draw, small_box_regressor(), "acs_box_regressor", broken)
    model, info = load_box_regressor(write("regressor-box.safetensors", content))
    with torch.inference_mode():
        rows, columns = (min(8, side) for side in info.map_size)
        maps = torch.full((2, 4, model.num_layers, model.num_heads, rows, columns), 0.01)
        values = model(maps, torch.tensor([[0.1, 0.1, 0.4, 0.6], [0.0, 0.0, 1.0, 1.0]]))
    if not ((values >= 0) & (values <= 1)).all():
        raise Broken(f"predicted IoU {values.tolist()}")


@cache
def small_joint() -> bytes:
    """A joint model of a model with one layer: two trees of two leaves."""
    width = len(feature_names(1))
    child = np.array([[[1, 2], [1, 1], [2, 2]]] * 2, np.int32)
    feature, threshold = np.array([[8, 0, 0], [0, 0, 0]], np.int32), np.zeros((2, 3))
    trees = Trees(feature, threshold, child, np.array([[0.0, 0.1, 0.4]] * 2), 0.2, width)
    path = scratch() / "good-joint.safetensors"
    save_joint(path, JointIoUModel(trees, ModelIdentity("m", "internvl", 1, 1), (4, 4)))
    return path.read_bytes()


def joint(draw: FuzzedData) -> None:
    """A joint model ends every walk through its trees, and gives finite numbers in [0, 1]."""
    numbers = (b"\xff" * 4, b"\x00" * 8, b"\x00\x00\x00\x00\x00\x00\xf0\x7f", struct.pack("<i", draw.integer(0, 200)))
    good = small_joint()
    if draw.chance(2):
        (length,) = struct.unpack("<Q", good[:8])
        content = good[: 8 + length] + with_values(draw, good[8 + length :], numbers, 1)
    else:
        content = changed_safetensors(draw, good, "acs_joint", numbers)
    quality = load_joint(write("joint.safetensors", content))
    count, layers, heads = 2, quality.identity.num_layers, quality.identity.num_heads
    if layers * heads > 256:
        return
    maps = np.full((count, 4, layers, heads, 4, 4), 0.01, np.float32)
    record = AttentionRecord(np.ones((count, 4, layers, heads), np.float32), maps, (4, 4), num_responses=count)
    boxes = [Candidate(Box(1.0, 1.0, 9.0 + i, 9.0), "", i, 0, (0, 0, 0, 0)) for i in range(count)]
    values = quality.predict(boxes, record, (20, 20))
    if not ((values >= 0) & (values <= 1)).all():
        raise Broken(f"predicted IoU {values.tolist()}")


TARGETS = (
    Target("regressor", "regressor files: safetensors and their metadata", regressor, (RegressorError,)),
    Target("box-regressor", "box regressors: safetensors and their metadata", box_regressor, (RegressorError,)),
    Target("joint", "joint models: safetensors and their metadata", joint, (JointError,)),
)
