"""Options of ``acs-ground``."""

from __future__ import annotations

import argparse
from pathlib import Path

from acs_core.arguments import MAX_SEED
from acs_core.option_types import StrictParser, real_option, whole_option, whole_or_auto
from acs_core.pixels import LEAST_BITS, MOST_BITS
from acs_core.request import MAX_DEADLINE_MS
from acs_core.types import (
    COORDINATE_FRAMES,
    DEFAULT_MODEL,
    DEFAULT_PREFIX_BYTES,
    FAMILY_FRAME,
    LEAST_IMAGE_TOKENS,
    MAX_IMAGE_TOKENS,
    MAX_PREFIX_BYTES,
    MAX_SAMPLES,
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
)

DEFAULT_SAMPLES = 10
EXAMPLE = """example:
  acs-ground table.jpg "key" --samples 10 --seed 1 --out answer.png --json answer.json
  acs-ground shelf/ "key; cup" --json -             every image of the folder, two phrases, JSON alone

exit codes: 0 answered (also when nothing was detected), 1 failed, for one image or all, 2 wrong usage, 130 stopped
with Ctrl-C. A command that is stopped, or fails, writes the answers so far to the file of --json"""


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of ``acs-ground``."""
    parser = StrictParser(
        prog="acs-ground",
        description="Find the object that a phrase names in an image: several responses are sampled from a\n"
        "vision-language model, and the box that its attention supports best is selected.",
        epilog=EXAMPLE,
    )
    add = parser.add_argument
    add(
        "image",
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="image file; or several, folders of image files, patterns such as 'shelf/*.jpg'",
    )
    add(
        "--bits",
        type=whole_option(LEAST_BITS, MOST_BITS),
        default=MOST_BITS,
        metavar="B",
        help="number of bits that the values of a 16-bit image use, like 12 (default: %(default)s)",
    )
    add("phrase", metavar="PHRASE", help='name of the object, like "key"; several: "key; cup"')
    model = parser.add_argument_group("model").add_argument
    model(
        "--model",
        default=DEFAULT_MODEL,
        help="shipped model, hub id or folder, of a model or of files built for one (default: %(default)s)",
    )
    model("--revision", help="commit, tag or branch of a hub id")
    model("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    model(
        "--quantization", default="none", choices=("none", "8bit", "4bit"), help="of the weights (default: %(default)s)"
    )
    model("--dtype", default="auto", choices=("auto", "float32", "float16", "bfloat16"), help="default: %(default)s")
    model(
        "--max-image-tokens",
        type=whole_option(LEAST_IMAGE_TOKENS, MAX_IMAGE_TOKENS),
        metavar="T",
        help="scale pictures down to this many image tokens (default: by the model's family; see docs/performance.md)",
    )
    model(
        "--coordinate-frame",
        default=FAMILY_FRAME,
        choices=COORDINATE_FRAMES,
        help="how the model states coordinates: as its family does, or 0 to 1000, in pixels of the resized or of the "
        "original picture, or 0 to 1 (default: %(default)s; acs-bench check-model finds out)",
    )
    model(
        "--prefix-bytes",
        type=whole_option(0, MAX_PREFIX_BYTES),
        default=DEFAULT_PREFIX_BYTES,
        metavar="BYTES",
        help="memory for windows of second looks that several phrases share (default: %(default)s); 0 reads each anew",
    )
    choice = parser.add_argument_group("selection").add_argument
    choice(
        "--selector",
        default="auto",
        help="how the box is selected: acs-free, acs-joint, greedy, ...; a wrong name lists all (default: the "
        "first of acs-fusion-box, acs-free and consensus whose file is known for the model)",
    )
    choice(
        "--heads",
        type=Path,
        metavar="FILE",
        help="head file for acs-free, or table-1-from-1 (default: the model's own)",
    )
    choice("--regressor", type=Path, metavar="FILE", help="for acs-learned: what it predicts with")
    choice("--joint-model", type=Path, metavar="FILE", help="for acs-joint: what it predicts with")
    choice("--calibration", type=Path, metavar="FILE", help="calibration of the score (default: the model's own)")
    choice("--multiple", action="store_true", help="report every object found, not only the best box")
    choice(
        "--min-score",
        type=real_option(0, 1),
        default=0.0,
        metavar="P",
        help="report no box below this score (default: 0)",
    )
    choice(
        "--min-votes",
        type=whole_option(1),
        default=2,
        metavar="N",
        help="with --multiple: an object must be in this many responses (default: %(default)s)",
    )
    choice(
        "--check-labels",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="rank boxes that the model labels as something else than the phrase below the others (default: yes)",
    )
    sampling = parser.add_argument_group("sampling").add_argument
    sampling(
        "--samples",
        type=whole_or_auto(1, MAX_SAMPLES),
        default=DEFAULT_SAMPLES,
        metavar="N",
        help=f"responses to draw (default: %(default)s); auto: at most {DEFAULT_SAMPLES}, fewer when they agree",
    )
    sampling(
        "--deadline",
        type=real_option(0, MAX_DEADLINE_MS, above=True),
        metavar="MS",
        help="stop sampling after this many milliseconds and use the boxes so far",
    )
    sampling(
        "--second-look", action="store_true", help="sample again from the enlarged region of the box; for small objects"
    )
    sampling(
        "--temperature",
        type=_temperature,
        default=0.5,
        metavar="T",
        help="0.0001 to 10000 (default: %(default)s)",
    )
    sampling(
        "--top-p", type=real_option(0, 1, above=True), default=0.9, metavar="P", help="in (0, 1] (default: %(default)s)"
    )
    sampling(
        "--top-k", type=whole_option(0), default=100, metavar="K", help="0 keeps all tokens (default: %(default)s)"
    )
    sampling(
        "--speculation",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="draft nearly certain tokens and check them together, for speed (default: yes)",
    )
    sampling(
        "--whole-responses",
        action="store_true",
        help="let the model write on after the first box of a response (default: only with --multiple, and for "
        "selectors that read what follows)",
    )
    sampling("--seed", type=whole_option(0, MAX_SEED), metavar="S", help="repeats a run (default: random, printed)")
    output = parser.add_argument_group("output").add_argument
    output(
        "--out",
        type=Path,
        metavar="PICTURE",
        help="write the image with all boxes drawn; for several images, a folder for them",
    )
    output(
        "--json",
        type=Path,
        nargs="?",
        const=Path("-"),
        metavar="FILE",
        help="write the result as JSON to FILE; without FILE (or with -) to standard output, instead of the table",
    )
    return parser


def _temperature(text: str) -> float:
    """Return the value of --temperature; the message for 0 names the option for what is meant by it."""
    try:
        return float(real_option(MIN_TEMPERATURE, MAX_TEMPERATURE)(text))
    except argparse.ArgumentTypeError as error:
        hint = "" if text.strip("0.") else "; for the most likely response, use --selector greedy"
        raise argparse.ArgumentTypeError(f"{error}{hint}") from None
