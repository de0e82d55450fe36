"""``python -m acs_ros.bags.make_bag INSTANCES.json BAG``: makes a bag of frames with ground truth from a COCO folder.

The shipped demo bag was made with it from a data set of ``acs-train synth``.
"""

from __future__ import annotations

if __name__ == "__main__":  # first: a signal may come while the modules below are imported
    from acs_core.entry import run

    run("acs_ros.bags.make_bag", "make_bag")

import argparse
from collections.abc import Sequence
from pathlib import Path

from acs_core.errors import AcsError, os_problem
from acs_core.option_types import StrictParser, whole_option
from acs_core.output_folder import OutputFolder
from acs_core.plain_text import printable
from acs_core.terminal import print_error
from acs_ros.bags.bags import frames_from_coco, write_bag
from acs_ros.errors import BagError

EXAMPLE = """example:
  acs-train synth --split test --near --images 60 --out world
  python -m acs_ros.bags.make_bag world/instances.json acs_ros/assets/demo_bag --frames 24 --absent-every 6 --replace"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a bag; returns the exit code."""
    options = make_parser().parse_args(arguments)
    try:
        if options.bag.exists() and not options.replace:
            raise BagError(f"{options.bag} exists already: name another folder, or give --replace")
        with (
            OutputFolder(options.bag, "make_bag", inputs=[options.instances], replaces=["*"]) as out,
            out.stage("*") as staged,
        ):
            made = staged / "bag" / options.bag.resolve().name  # rosbags names the file after the folder
            made.parent.mkdir()
            count = write_bag(made, frames_from_coco(options.instances, options.frames, options.absent_every))
            for file in made.iterdir():
                file.rename(staged / file.name)
    except AcsError as error:
        print_error("make_bag", error)
        return 1
    except OSError as error:
        print_error("make_bag", os_problem(error, options.bag))
        return 1
    size = sum((options.bag / f).stat().st_size for f in ("metadata.yaml", f"{options.bag.resolve().name}.mcap"))
    print(printable(f"{options.bag}: {count} frames, {size / 1e6:.2f} MB"))
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = StrictParser(prog="make_bag", description=__doc__, epilog=EXAMPLE)
    parser.add_argument("instances", type=Path, help="COCO instances file, pictures in images/ beside it")
    parser.add_argument("bag", type=Path, help="bag folder to write")
    parser.add_argument("--frames", type=whole_option(1), default=30, metavar="N", help="how many frames (30)")
    parser.add_argument(
        "--absent-every",
        type=whole_option(0),
        default=0,
        metavar="N",
        help="ask in every N-th frame for an object that it does not show; 0: never (0)",
    )
    parser.add_argument("--replace", action="store_true", help="replace a bag that this command made")
    return parser
