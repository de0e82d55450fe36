"""``python tools/sample_picture.py WORLD NUMBER``: makes docs/sample.png and docs/sample.json, the picture that pages
ask about and its true boxes, from a data set of ``acs-train synth --near``.

NUMBER is the place of the picture in WORLD/instances.json, from 0.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from PIL import Image

from acs_core import read_image

DOCS = Path(__file__).resolve().parents[1] / "docs"


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("world", type=Path, help="folder of acs-train synth")
    parser.add_argument("number", type=int, help="place of the picture, from 0")
    options = parser.parse_args()
    content = json.loads((options.world / "instances.json").read_text())
    image = content["images"][options.number]
    names = {c["id"]: c["name"] for c in content["categories"]}
    mine = [a for a in content["annotations"] if a["image_id"] == image["id"]]
    boxes = {names[a["category_id"]]: [a["bbox"][0], a["bbox"][1], *_far(a["bbox"])] for a in mine}
    found = next(
        f for f in (options.world / "images" / image["file_name"], options.world / image["file_name"]) if f.is_file()
    )
    Image.fromarray(read_image(found)).save(DOCS / "sample.png")  # both files are the project's own
    text = {"picture": "sample.png", "size": [image["width"], image["height"]], "boxes": boxes}
    (DOCS / "sample.json").write_text(json.dumps(text, indent=1) + "\n")
    print(f"{DOCS / 'sample.png'}: {', '.join(sorted(boxes))}")


def _far(bbox: list[float]) -> list[float]:
    return [bbox[0] + bbox[2], bbox[1] + bbox[3]]


if __name__ == "__main__":
    main()
