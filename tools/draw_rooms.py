"""Draw docs/rooms.svg: the packages of each room in the order in which they may import each other.

Run it after a change of the layers in pyproject.toml, which it draws; a test compares the two.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "rooms.svg"
ROOMS = {
    "acs_ros": ("The ROS 2 node, its clients, bags, replay and stress tests", "#dbe9f6", "#2f6aa3"),
    "training": ("Fits the files for a model", "#e4efdc", "#4f7f35"),
    "acs_core": ("The method, without ROS: an image and a phrase in, scored boxes out", "#f8e8d0", "#a3691f"),
}
ABOUT = {
    "acs_core.bench": "time and memory: acs-bench",
    "acs_core.evaluation": "accuracy: metrics, tables, report",
    "acs_core.cli": "acs-ground",
    "acs_core.grounder": "Grounder: loads a model, runs one call at a time",
    "acs_core.pipeline": "the stages of one call, and the second look",
    "acs_core.request": "the checked arguments of one call",
    "acs_core.selection": "quality of each candidate, the selected boxes, and the reasons for the others",
    "acs_core.attention": "stored queries against stored keys: maps and entropies at the coordinate tokens",
    "acs_core.generation": "one prefill, N responses that share its keys, boxes parsed from their text",
    "acs_core.lvlm": "one file per model family: prompt, image tokens, coordinates",
    "acs_core.image": "checked pixels",
    "acs_core.overlay": "drawing",
    "acs_core.serialize": "results as JSON",
    "acs_core.output_folder": "safe writing",
    "acs_core.artifacts": "files for a model",
    "acs_core.types": "Candidate, Detection, GroundingResult, SamplingConfig",
    "acs_core.geometry": "Box, IoU",
    "acs_core.result_views": "arrays and pictures of a result",
    "acs_core.errors": "AcsError and its kinds",
    "acs_ros.stress": "acs-load, acs-soak",
    "acs_ros.replay": "acs-replay",
    "acs_ros.main": "the process: signals, executor",
    "acs_ros.node": "the lifecycle node",
    "acs_ros.bags": "reading and playing bags",
    "acs_ros.diagnostics": "counters, status, memory",
    "acs_ros.client": "asking a node",
    "acs_ros.conversions": "messages to arrays and back",
    "acs_ros.rclpy_fixes": "workarounds for rclpy",
    "acs_ros.dds": "DDS profile and QoS",
    "acs_ros.errors": "kinds of AcsError",
    "training.cli": "acs-train",
    "training.tiny": "the embedded models",
    "training.evaluation": "acs-train evaluate, ablate",
    "training.fitting": "regressor, joint model, heads, calibrations",
    "training.collection": "responses with maps",
    "training.world": "the rendered world",
    "training.data": "COCO annotations and pairs",
    "training.settings": "settings of the stages",
    "training.errors": "kinds of AcsError",
}
WIDTH, MARGIN, GAP, HEAD, ROW, BOX = 900, 20, 8, 56, 48, 40
HALF = (WIDTH - 3 * MARGIN) // 2


def rows_of(room: str) -> list[list[str]]:
    """Return the layers of a room in pyproject.toml, top first; each is a list of the names on one line."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for contract in config["tool"]["importlinter"]["contracts"]:
        if contract.get("containers") == [room]:
            return [[name.strip("() ") for name in re.split("[|:]", layer)] for layer in contract["layers"]]
    raise ValueError(f"pyproject.toml has no layers of {room}")


def text(x: float, y: float, words: str, size: int, style: str = "") -> str:
    """Return one line of text, centred at ``x`` with its base line at ``y``."""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="middle" {style}>{escape(words)}</text>'


def panel(room: str, x: float, y: float, width: float) -> tuple[list[str], float]:
    """Return the elements of a room whose upper left corner is (x, y), and its height."""
    about, fill, stroke = ROOMS[room]
    rows = rows_of(room)
    height = HEAD + ROW * len(rows) + GAP
    parts = [
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height}" rx="8" fill="{fill}" stroke="{stroke}"/>',
        text(x + width / 2, y + 24, f"{room}/", 17, 'font-weight="bold"'),
        text(x + width / 2, y + 43, about, 13),
    ]
    for i, names in enumerate(rows):
        each = (width - 2 * MARGIN - GAP * (len(names) - 1)) / len(names)
        top = y + HEAD + ROW * i
        for k, name in enumerate(names):
            left = x + MARGIN + k * (each + GAP)
            parts += [
                f'<rect x="{left:g}" y="{top:g}" width="{each:g}" height="{BOX}" rx="4" fill="#ffffff" '
                f'stroke="{stroke}"/>',
                text(left + each / 2, top + 17, name, 14, 'font-weight="bold"'),
                text(left + each / 2, top + 33, ABOUT[f"{room}.{name}"], 12, 'fill="#444444"'),
            ]
    return parts, height


def arrow(x: float, y: float, length: float) -> str:
    """Return an arrow down from (x, y)."""
    tip = y + length
    return (
        f'<path d="M {x:g} {y:g} V {tip - 8:g}" stroke="#333333" stroke-width="2" fill="none"/>'
        f'<path d="M {x - 6:g} {tip - 9:g} L {x:g} {tip:g} L {x + 6:g} {tip - 9:g} Z" fill="#333333"/>'
    )


def drawing() -> str:
    """Return the SVG."""
    ros, ros_height = panel("acs_ros", MARGIN, MARGIN, HALF)
    trained, trained_height = panel("training", 2 * MARGIN + HALF, MARGIN, HALF)
    between = MARGIN + max(ros_height, trained_height) + 34
    core, core_height = panel("acs_core", MARGIN, between, WIDTH - 2 * MARGIN)
    height = between + core_height + MARGIN
    arrows = [
        arrow(MARGIN + HALF / 2, MARGIN + ros_height, between - MARGIN - ros_height),
        arrow(2 * MARGIN + HALF * 1.5, MARGIN + trained_height, between - MARGIN - trained_height),
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" '
        'font-family="Helvetica, Arial, sans-serif" fill="#111111">'
    )
    title = "<title>The packages of acs; each may import what stands below it</title>"
    ground = f'<rect width="{WIDTH}" height="{height:g}" fill="#ffffff"/>'
    return "\n".join([head, title, ground, *ros, *trained, *core, *arrows, "</svg>"]) + "\n"


def main() -> int:
    """Write the SVG and return exit status 0."""
    TARGET.write_text(drawing(), encoding="utf-8")
    print(f"wrote {TARGET.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
