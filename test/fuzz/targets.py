"""All targets by name, found without importing more than the one that is wanted: some bring torch."""

from __future__ import annotations

from importlib import import_module

from fuzz.target import Target

ROOMS = {
    "fuzz.answers": ("parser", "candidates"),
    "fuzz.pictures": ("converter", "compressed", "picture", "depth", "tracking"),
    "fuzz.files": ("heads", "calibration", "built", "model", "coco", "bag"),
    "fuzz.recordings": ("evaluation", "answers", "recording"),
    "fuzz.tensors": ("regressor", "box-regressor", "joint"),
    "fuzz.asking": ("prompt", "queries", "goal", "parameter"),
}
NAMES = tuple(name for names in ROOMS.values() for name in names)


def find(name: str) -> Target:
    """The target of that name, one of NAMES."""
    room = next(room for room, names in ROOMS.items() if name in names)
    return next(target for target in import_module(room).TARGETS if target.name == name)
