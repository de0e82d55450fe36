"""The options of ``acs-replay``."""

from __future__ import annotations

import argparse
from pathlib import Path

from acs_ros.replay.coco_truth import MATCHES
from acs_ros.replay.settings import parse_assignment

EXAMPLE = """examples:
  acs-replay acs_ros/assets/demo_bag                     every frame, offline; the bag has its own ground truth
  acs-replay my_bag --query "key; red mug" --model qwen2.5-vl-7b --selector acs-learned
  acs-replay my_bag --extract to_label                   pictures and an empty COCO file, to be labelled
  acs-replay my_bag --coco to_label/instances.json
  acs-replay my_bag --query key --live                   over DDS at the bag's rate, to the running node /grounding
  acs-replay my_bag --query key --live --start-node --rate 0.5
  acs-replay --compare greedy/evaluation.json ours/evaluation.json

docs/replay.md says what is measured. A run that was stopped goes on where it was.

exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped with Ctrl-C (what there is was written)"""


def make_parser() -> argparse.ArgumentParser:
    """What the command line may hold."""
    parser = argparse.ArgumentParser(
        prog="acs-replay",
        description="How good are the answers about the frames of a bag? Asks the model about each of them, or plays\n"
        "the bag to a running node, and compares with the ground truth where there is some.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("bag", type=Path, nargs="?", metavar="BAG", help="bag folder, .mcap or .db3 file")
    add("--compare", type=Path, nargs=2, metavar=("A", "B"), help="two evaluation.json of the same bag, side by side")
    add("--extract", type=Path, metavar="DIR", help="only write the frames, and a COCO file to label them in, to DIR")
    bag = parser.add_argument_group("the bag").add_argument
    bag("--image-topic", metavar="T", help="Image or CompressedImage (default: the only one)")
    bag("--query", metavar="TEXT", help="ask this of every frame; several phrases are separated by semicolons")
    bag("--query-topic", metavar="T", help="ask what was in force on this std_msgs/String topic (default: .../query)")
    bag("--truth", metavar="T", help="true boxes, vision_msgs/Detection2DArray (default: the only one; '': none)")
    bag("--coco", type=Path, metavar="FILE", help="true boxes from a COCO file instead")
    bag(
        "--coco-match",
        choices=MATCHES,
        default="stamp",
        help="which picture is which frame: by the stamp in its name or its field stamp, by the number in its name "
        "(first frame: 0), or by their order (default: %(default)s)",
    )
    bag("--frames", type=_positive, metavar="N", help="only the first N frames")
    model = parser.add_argument_group("the model (offline, or with --start-node)").add_argument
    model("--model", help="short name, folder or Hugging Face id (default: tiny-internvl)")
    model("--selector", help="acs-free, acs-learned, greedy, ... (default: acs-free)")
    model("--samples", metavar="N", help="responses per phrase (default: 10); auto: fewer when they agree")
    model("--temperature", type=float, metavar="T", help="of sampling (default: 0.5)")
    model("--seed", type=int, metavar="S", help="of every call (default: 1); -1: a fresh one each")
    model("--min-score", type=float, metavar="P", help="abstain below this score (default: 0)")
    model("--multiple", action="store_true", default=None, help="every object found, not only the best box")
    model("--device", help="auto, cpu, cuda, cuda:1 (default: auto)")
    model("--params-file", type=Path, metavar="YAML", help="the node's parameter file")
    model(
        "-p",
        dest="assignments",
        type=_assignment,
        action="append",
        default=[],
        metavar="NAME:=VALUE",
        help="any parameter of the node (docs/node.md)",
    )
    live = parser.add_argument_group("live").add_argument
    live("--live", action="store_true", help="play the bag over DDS to a running node, and listen to it")
    live("--start-node", action="store_true", help="with --live: start a node for it, and end it afterwards")
    live("--node", default="/grounding", metavar="NAME", help="full name of the node (default: %(default)s)")
    live("--publish-to", metavar="T", help="where the node hears images (default: NODE/image[/compressed])")
    live("--rate", type=_rate, default=1.0, metavar="R", help="times the bag's own speed (default: %(default)s)")
    live("--wait", type=_seconds, default=30.0, metavar="S", help="longest wait for the node (default: %(default)s)")
    live(
        "--quiet",
        type=_seconds,
        default=10.0,
        metavar="S",
        help="give up on answers when none came for this long after the last frame (default: %(default)s)",
    )
    output = parser.add_argument_group("output").add_argument
    output("--out", type=Path, metavar="DIR", help="where everything goes (default: replay_output/BAG)")
    output("--json", type=Path, metavar="FILE", help="all numbers and every answer")
    output("--title", help="of the report (default: the bag's name)")
    output("--name", help="what this run is called in tables (default: the selector)")
    output(
        "--pictures", type=int, default=2000, metavar="N", help="most frames kept for the report (default: %(default)s)"
    )
    output("--no-bag", action="store_true", help="write no bag of detections and annotated images")
    return parser


def usage_problem(options: argparse.Namespace) -> str:
    """What does not go together, or ""."""
    if options.compare:
        return "--compare takes no bag" if options.bag else ""
    if options.bag is None:
        return "name a bag, or two evaluations with --compare"
    if options.query is not None and not options.query.strip(" ;\n\t"):
        return "--query is empty: name what to look for, like 'key; red mug'"
    together = {
        "--query and --query-topic": options.query is not None and options.query_topic,
        "--truth and --coco": options.truth and options.coco,
        "--live and --extract": options.live and options.extract,
    }
    wrong = [names for names, both in together.items() if both]
    if wrong:
        return f"{wrong[0]} exclude one another"
    if options.start_node and not options.live:
        return "--start-node needs --live"
    asked_of_node = ("model", "selector", "samples", "temperature", "seed", "min_score", "multiple", "device")
    given = [n for n in (*asked_of_node, "params_file") if getattr(options, n) is not None]
    if options.live and not options.start_node and (given or options.assignments):
        what = f"--{given[0].replace('_', '-')}" if given else "-p"
        return f"{what} cannot change a node that runs already: set its parameters, or use --start-node"
    if not options.node.startswith("/"):
        return f"--node must be a full name like /grounding, got {options.node}"
    return ""


def given_parameters(options: argparse.Namespace) -> dict[str, object]:
    """The node's parameters as far as the command line names them."""
    names = ("model", "selector", "temperature", "seed", "min_score", "multiple", "device")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.samples == "auto":
        given["auto_samples"] = True
    elif options.samples is not None:
        given["samples"] = int(options.samples) if options.samples.isdecimal() else options.samples
    return given | dict(options.assignments)


def _assignment(text: str) -> tuple[str, object]:
    try:
        return parse_assignment(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0.001 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"must be in [0.001, 1000], got {text}")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value
