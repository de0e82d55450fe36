"""Targets: files that somebody else may have written."""

from __future__ import annotations

import json
import math
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from acs_core.artifacts.built import BUILT_FILE, built_for
from acs_core.artifacts.calibration import Calibration
from acs_core.artifacts.heads import HeadFile
from acs_core.artifacts.registry import ASSETS
from acs_core.errors import CalibrationError, HeadFileError, ModelError
from acs_core.lvlm import load_lvlm
from acs_ros.bags.bags import read_bag, write_bag
from acs_ros.errors import BagError
from fuzz.bag_parts import few_frames
from fuzz.draw import FuzzedData, change_bytes, change_json
from fuzz.scratch import scratch, write
from fuzz.target import Broken, Target
from training.data.coco import read_coco
from training.errors import DataError

TINY = ASSETS / "tiny-internvl"
CANARY = "canary"


def changed_json(draw: FuzzedData, good: Path | dict[str, Any]) -> bytes:
    """A JSON file with changed fields, or changed bytes."""
    text = json.dumps(good).encode() if isinstance(good, dict) else good.read_bytes()
    if draw.chance(4):
        return change_bytes(draw, text, draw.integer(1, 6))
    data = change_json(draw, json.loads(text), draw.integer(1, 4))
    try:
        return json.dumps(data).encode()
    except (RecursionError, ValueError):
        return b"[" * 980 + b"]" * 980


def heads(draw: FuzzedData) -> None:
    """A head file names heads of its model only."""
    name = draw.pick(("tiny-internvl", "tiny-qwen2.5-vl", "qwen2.5-vl-7b"))
    file = HeadFile.load(write("heads.json", changed_json(draw, ASSETS / name / "heads.json")))
    for pairs in file.pairs():
        if not pairs or not all(
            0 <= layer < file.identity.num_layers and 0 <= head < file.identity.num_heads for layer, head in pairs
        ):
            raise Broken("a head outside the model")


def calibration(draw: FuzzedData) -> None:
    """A calibration maps every confidence into [0, 1]."""
    name = f"calibration-acs-{draw.pick(('free', 'learned'))}.json"
    curve = Calibration.load(write("calibration.json", changed_json(draw, TINY / name)))
    given = np.array([-1e308, -1.0, 0.0, 0.3, 1.0, 1e308, -math.inf, math.inf])
    for values in (curve.apply(given), curve.expected_iou(given)):
        if values is not None and not ((values >= 0) & (values <= 1)).all():
            raise Broken(f"probabilities {values}")


def built(draw: FuzzedData) -> None:
    """An acs.json names a model, or is refused."""
    good = {
        "schema_version": 1,
        "model": "tiny-internvl",
        "revision": None,
        "max_image_tokens": 99,
        "coordinate_frame": "0-1",
    }
    write(BUILT_FILE, changed_json(draw, good))
    found = built_for(scratch())
    if found is None or not found.model or not isinstance(found.revision, str | None):
        raise Broken(f"{found} names no model")


EDITED = ("config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json")


def model(draw: FuzzedData) -> None:
    """A model folder with changed files loads, or is a ModelError; nothing in it runs."""
    folder = scratch() / "model"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in TINY.iterdir():
        (folder / file.name).symlink_to(file)
    evil = f"open({str(scratch() / CANARY)!r}, 'w')\nclass Evil: pass\n"
    for name in ("modeling_evil.py", "processing_evil.py", "tokenization_evil.py"):
        (folder / name).write_text(evil)
    for _ in range(draw.integer(1, 2)):
        name = draw.pick(EDITED)
        data = json.loads((TINY / name).read_text())
        if draw.chance(3):
            data["auto_map"] = {
                draw.pick(("AutoModel", "AutoConfig", "AutoProcessor", "AutoTokenizer")): "modeling_evil.Evil"
            }
            content = json.dumps(data).encode()
        else:
            content = changed_json(draw, data)
        (folder / name).unlink()
        (folder / name).write_bytes(content)
    try:
        load_lvlm(folder, device="cpu")
    finally:
        if (scratch() / CANARY).exists():
            (scratch() / CANARY).unlink()
            raise Broken("code of the folder ran")


def coco(draw: FuzzedData) -> None:
    """Annotations give boxes inside their pictures, and pictures inside their folder."""
    good = {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 2, "file_name": "images/v1/patch8/b.png", "width": 40, "height": 30},
        ],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "key"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 12], "area": 120, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [0, 0, 2, 2.5]},
            {"id": 3, "image_id": 2, "category_id": 2, "bbox": [5, 5, 2, 2], "area": 4},
        ],
    }
    found = read_coco(write("instances.json", changed_json(draw, good)))
    folder = scratch() / "images"
    folder = (folder if folder.is_dir() else scratch()).resolve()
    for image in found.images:
        if not image.file.resolve().is_relative_to(folder):
            raise Broken(f"a picture outside the folder: {image.file}")
        for o in image.objects:
            inside = 0 <= o.box.x1 < o.box.x2 <= image.size[0] and 0 <= o.box.y1 < o.box.y2 <= image.size[1]
            if not inside or not math.isfinite(o.area):
                raise Broken(f"{o} in {image.size}")
    found.problems.lines()


@cache
def good_bag() -> Path:
    """A bag of three frames."""
    folder = scratch() / "good_bag"
    write_bag(folder, few_frames())
    return folder


def bag(draw: FuzzedData) -> None:
    """A bag gives frames whose messages can be made, or a BagError."""
    folder = scratch() / "bag"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(good_bag(), folder)
    file = folder / draw.pick(("metadata.yaml", "good_bag.mcap", "good_bag.mcap"))
    file.write_bytes(change_bytes(draw, file.read_bytes(), draw.integer(1, 5)))
    for frame in read_bag(folder):
        if frame.image.ndim != 3 or frame.image.shape[2] != 3 or frame.image.dtype != np.uint8:
            raise Broken(f"a picture of shape {frame.image.shape}")
        if frame.image_message.header.frame_id != frame.frame_id or len(frame.truth_message.detections) != len(
            frame.truth
        ):
            raise Broken("a frame that changes on its way into messages")


TARGETS = (
    Target("heads", "head files", heads, (HeadFileError,)),
    Target("calibration", "calibration files", calibration, (CalibrationError,)),
    Target("built", "acs.json of a folder that acs-train build wrote", built, (ModelError,)),
    Target(
        "model", "model folders with changed JSON files and Python files beside them", model, (ModelError,), heavy=True
    ),
    Target("coco", "COCO annotations", coco, (DataError,)),
    Target("bag", "bags: metadata and mcap with changed bytes", bag, (BagError,)),
)
