"""The instruction of paper appendix D; ``{object_name}`` stands for the phrase."""

from __future__ import annotations

PROMPT = """\
Detect all instances of {object_name} in the image:

Your task is to detect any {object_name} objects that are visible in the image.

For each detected object, provide:
The bounding box coordinates [x1, y1, x2, y2]

Output format (as a JSON array):
[
  {"bbox_2d": [x1, y1, x2, y2], "label": "{object_name}"},
  {"bbox_2d": [x1, y1, x2, y2], "label": "{object_name}"}
]

Important: Focus on any {object_name} that might be present in the image,
especially those that are still visible and NOT masked out.

Example output:
[
  {"bbox_2d": [200, 150, 280, 220], "label": "{object_name}"},
  {"bbox_2d": [350, 180, 420, 270], "label": "{object_name}"}
]"""
