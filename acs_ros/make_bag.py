"""``python -m acs_ros.make_bag INSTANCES.json BAG``: a bag of frames with known answers from a COCO folder.

The shipped demo bag is made so from the rendered world that ``acs-train synth`` writes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from acs_ros.bags import BagError, frames_from_coco, write_bag

EXAMPLE = """example:
  acs-train synth --split test --images 60 --out world
  python -m acs_ros.make_bag world/instances.json acs_ros/assets/demo_bag --frames 30 --replace"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a bag; the exit code."""
    parser = argparse.ArgumentParser(
        prog="make_bag", description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("instances", type=Path, help="COCO instances file, pictures in images/ beside it")
    parser.add_argument("bag", type=Path, help="bag folder to write")
    parser.add_argument("--frames", type=int, default=30, help="how many frames (30)")
    parser.add_argument("--replace", action="store_true", help="remove an older bag of this name first")
    options = parser.parse_args(arguments)
    if options.frames < 1:
        parser.error(f"--frames must be at least 1, got {options.frames}")
    try:
        if options.replace and (options.bag / "metadata.yaml").is_file():
            shutil.rmtree(options.bag)
        count = write_bag(options.bag, frames_from_coco(options.instances, options.frames))
    except (BagError, OSError) as error:
        print(f"make_bag: {error}", file=sys.stderr)
        return 1
    size = sum(f.stat().st_size for f in options.bag.iterdir())
    print(f"{options.bag}: {count} frames, {size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
