"""The options of ``acs-ground``."""

from __future__ import annotations

import argparse
from pathlib import Path

DEFAULT_SAMPLES = 10
EXAMPLE = """example:
  acs-ground table.jpg "key" --samples 10 --seed 1 --out answer.png --json answer.json

exit codes: 0 answered (also when nothing was detected), 1 failed, 2 wrong usage, 130 stopped with Ctrl-C"""


def make_parser() -> argparse.ArgumentParser:
    """What the command line may hold."""
    parser = argparse.ArgumentParser(
        prog="acs-ground",
        description="Find what a phrase names in a picture: a vision-language model answers several times, and the\n"
        "box that its own attention supports best is picked.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("image", type=Path, metavar="IMAGE", help="picture file")
    add("phrase", metavar="PHRASE", help='what to look for, like "key"')
    model = parser.add_argument_group("model").add_argument
    model("--model", default="tiny-internvl", help="shipped model, hub id or folder (default: %(default)s)")
    model("--revision", help="commit, tag or branch of a hub id")
    model("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    model(
        "--quantization", default="none", choices=("none", "8bit", "4bit"), help="of the weights (default: %(default)s)"
    )
    model("--dtype", default="auto", choices=("auto", "float32", "float16", "bfloat16"), help="default: %(default)s")
    choice = parser.add_argument_group("selection").add_argument
    choice(
        "--selector",
        default="acs-free",
        help="what picks the box: acs-free, acs-joint, greedy, ...; a wrong name lists all (default: %(default)s)",
    )
    choice("--heads", type=Path, metavar="FILE", help="head file for acs-free (default: the model's own)")
    choice("--regressor", type=Path, metavar="FILE", help="for acs-learned or acs-joint: what it predicts with")
    choice("--calibration", type=Path, metavar="FILE", help="calibration of the score (default: the model's own)")
    choice("--multiple", action="store_true", help="report every object found, not only the best box")
    choice("--min-score", type=_fraction, default=0.0, metavar="P", help="report nothing below this score (default: 0)")
    choice(
        "--min-votes",
        type=_positive,
        default=2,
        metavar="N",
        help="with --multiple: an object must be in this many responses (default: %(default)s)",
    )
    sampling = parser.add_argument_group("sampling").add_argument
    sampling(
        "--samples",
        type=_samples,
        default=DEFAULT_SAMPLES,
        metavar="N",
        help=f"responses to draw (default: %(default)s); auto: at most {DEFAULT_SAMPLES}, fewer when they agree",
    )
    sampling(
        "--deadline", type=_milliseconds, metavar="MS", help="answer with what there is after this many milliseconds"
    )
    sampling(
        "--second-look", action="store_true", help="enlarge the place of the answer and ask again; for small objects"
    )
    sampling("--temperature", type=float, default=0.5, metavar="T", help="above 0 (default: %(default)s)")
    sampling("--top-p", type=float, default=0.9, metavar="P", help="in (0, 1] (default: %(default)s)")
    sampling("--top-k", type=int, default=100, metavar="K", help="0 keeps all tokens (default: %(default)s)")
    sampling("--seed", type=_seed, metavar="S", help="repeats a run (default: a fresh one, printed)")
    output = parser.add_argument_group("output").add_argument
    output("--out", type=Path, metavar="PICTURE", help="write the picture with all boxes drawn")
    output(
        "--json",
        type=Path,
        nargs="?",
        const=Path("-"),
        metavar="FILE",
        help="write everything as JSON to FILE; without FILE (or with -) to standard output, instead of the table",
    )
    return parser


def _fraction(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"must be in [0, 1], got {text}")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def _samples(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number or auto, got {text!r}")
    return int(text)


def _milliseconds(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"must be from 0 to 2^63 - 1, got {text}")
    return value
