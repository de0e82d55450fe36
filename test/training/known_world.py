"""Pairs that the shipped embedded model can answer about: its twelve categories, in plain pictures of its size."""

from dataclasses import replace

from training.coco import load_pairs
from training.scene import WorldConfig
from training.synth import write_coco

KNOWN = (
    *("apple", "banana", "bird", "book", "broccoli", "cell phone"),
    *("clock", "cup", "key", "orange", "teddy bear", "umbrella"),
)
PLAIN = replace(WorldConfig(), shapes=((224, 224),), max_objects=8, occluded_share=0.0, clutter=1, max_tilt_deg=15.0)


def known_pairs(folder, split, count):
    """``count`` pairs."""
    pairs = load_pairs(write_coco(folder, split, 3 * count, PLAIN))
    return [p for p in pairs if p.category in KNOWN][:count]
