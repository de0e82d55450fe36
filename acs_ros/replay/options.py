"""The options of ``acs-replay``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from acs_core.option_types import Parse, StrictParser, real_option, whole_option, whole_or_auto
from acs_core.types import DEFAULT_MODEL
from acs_ros.dds import name_option
from acs_ros.node.parameter_table import SPECS
from acs_ros.replay.coco_truth import MATCHES
from acs_ros.replay.settings import parse_assignment

# Options that set the node's parameter of the same name; --samples sets two.
OF_NODE = (
    "model",
    "selector",
    "temperature",
    "seed",
    "min_score",
    "multiple",
    "whole_responses",
    "speculation",
    "prefix_bytes",
    "device",
)
EXAMPLE = """examples:
  acs-replay acs_ros/assets/demo_bag                     every frame, offline; the bag has its own ground truth
  acs-replay my_bag --query "key; red mug" --model qwen2.5-vl-7b --selector acs-learned
  acs-replay my_bag --extract to_label                   pictures and an empty COCO file, to be labelled
  acs-replay my_bag --coco to_label/instances.json
  acs-replay my_bag --query key --live                   over DDS at the bag's rate, to the running node /grounding
  acs-replay my_bag --query key --live --start-node --rate 0.5
  acs-replay acs_ros/assets/demo_bag --live --start-node --lockstep --min-answered 0.9
  acs-replay --compare greedy/evaluation.json ours/evaluation.json

docs/replay.md says what is measured. A run that was stopped goes on where it was.

exit codes: 0 done, 1 failed, a node that contradicts itself, or fewer frames answered than --min-answered asks for,
2 wrong usage, 130 stopped with Ctrl-C (what there is was written)"""


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = StrictParser(
        prog="acs-replay",
        description="How good are the answers about the frames of a bag? Asks the model about each of them, or plays\n"
        "the bag to a running node, and compares with the ground truth where there is some.",
        epilog=EXAMPLE,
        may_be_empty=("--truth",),  # none of the bag's topics
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
    bag("--frames", type=whole_option(1), metavar="N", help="only the first N frames")
    model = parser.add_argument_group("the model (offline, or with --start-node)").add_argument
    model("--model", help=f"short name, folder or Hugging Face id (default: {DEFAULT_MODEL})")
    model("--selector", help="acs-free, acs-learned, greedy, ... (default: auto)")
    model(
        "--samples", type=_samples, metavar="N", help="responses per phrase (default: 10); auto: fewer when they agree"
    )
    model("--temperature", type=parameter_option("temperature"), metavar="T", help="of sampling (default: 0.5)")
    model("--seed", type=parameter_option("seed"), metavar="S", help="of every call (default: 1); -1: a fresh one each")
    model("--min-score", type=parameter_option("min_score"), metavar="P", help="abstain below this score (default: 0)")
    model("--multiple", action="store_true", default=None, help="every object found, not only the best box")
    model(
        "--whole-responses",
        action="store_true",
        default=None,
        help="let the model write on after the first box of a response",
    )
    model(
        "--speculation",
        action=argparse.BooleanOptionalAction,
        help="draft nearly certain tokens and check them together, for speed (default: yes)",
    )
    model(
        "--prefix-bytes",
        type=parameter_option("prefix_bytes"),
        metavar="BYTES",
        help="memory for images that stay read (default: 256 MiB); 0 keeps none",
    )
    model("--device", help="auto, cpu, cuda, cuda:1 (default: auto)")
    model("--params-file", "--params", type=Path, metavar="YAML", help="the node's parameter file")
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
    live(
        "--node",
        type=name_option(absolute=True),
        default="/grounding",
        metavar="NAME",
        help="full name of the node (default: %(default)s)",
    )
    live(
        "--publish-to",
        type=name_option(),
        metavar="T",
        help="where the node hears images (default: NODE/image[/compressed])",
    )
    live(
        "--rate",
        type=real_option(0.001, 1000),
        default=1.0,
        metavar="R",
        help="times the bag's own speed (default: %(default)s)",
    )
    live(
        "--lockstep",
        action="store_true",
        help="send each frame when the one before is answered, whatever the bag's speed: none is dropped",
    )
    live(
        "--wait",
        type=real_option(0, 1e6, above=True),
        default=30.0,
        metavar="S",
        help="longest wait for the node (default: %(default)s)",
    )
    live(
        "--quiet",
        "--timeout",
        type=real_option(0, 1e6, above=True),
        default=10.0,
        metavar="S",
        help="give up on an answer when none came for this long after the newest frame (default: %(default)s)",
    )
    output = parser.add_argument_group("output").add_argument
    output("--out", type=Path, metavar="DIR", help="where everything goes (default: replay_output/BAG)")
    output("--json", type=Path, metavar="FILE", help="all numbers and every answer")
    output("--title", help="of the report (default: the bag's name)")
    output("--name", help="what this run is called in tables (default: the selector)")
    output(
        "--pictures",
        type=whole_option(0),
        default=2000,
        metavar="N",
        help="most frames kept for the report (default: %(default)s)",
    )
    output(
        "--min-answered",
        type=real_option(0, 1),
        default=0.0,
        metavar="SHARE",
        help="fail when a smaller share of the frames that were asked about is answered (default: %(default)s)",
    )
    output("--no-bag", action="store_true", help="write no bag of detections and annotated images")
    return parser


def without_ros_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments without those between ``--ros-args`` and ``--``, or the end.

    rclpy's function also takes away every ``NAME:=VALUE`` that could be a remapping, such as that of ``-p``.
    """
    kept, ours = [], True
    for argument in arguments:
        if argument == "--ros-args":
            ours = False
        elif ours:
            kept.append(argument)
        elif argument == "--":
            ours = True
    return kept


def usage_problem(options: argparse.Namespace) -> str:
    """Message about options that exclude one another, or ""."""
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
        "--lockstep and --rate": options.lockstep and options.rate != 1.0,
    }
    wrong = [names for names, both in together.items() if both]
    if wrong:
        return f"{wrong[0]} exclude one another"
    if (options.start_node or options.lockstep) and not options.live:
        return f"{'--start-node' if options.start_node else '--lockstep'} needs --live"
    given = [n for n in (*OF_NODE, "samples", "params_file") if getattr(options, n) is not None]
    if options.live and not options.start_node and (given or options.assignments):
        what = _as_given(given[0], getattr(options, given[0])) if given else "-p"
        return f"{what} cannot change a node that runs already: set its parameters, or use --start-node"
    return ""


def _as_given(name: str, value: object) -> str:
    """The option that gave ``name`` the value."""
    return f"--{'no-' if value is False else ''}{name.replace('_', '-')}"


def given_parameters(options: argparse.Namespace) -> dict[str, object]:
    """The node's parameters that the command line sets."""
    given = {name: getattr(options, name) for name in OF_NODE if getattr(options, name) is not None}
    if options.samples == "auto":
        given["auto_samples"] = True
    elif options.samples is not None:
        given["samples"] = options.samples
    return given | dict(options.assignments)


def _assignment(text: str) -> tuple[str, object]:
    try:
        name, value = parse_assignment(text)
        if problem := next(spec for spec in SPECS if spec.name == name).problem(value):
            raise ValueError(problem)
        return name, value
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parameter_option(name: str) -> Parse:
    """``type`` of an argparse option that sets the node's number parameter ``name``: its type and its range."""
    [spec] = [spec for spec in SPECS if spec.name == name]
    low, high = spec.low, spec.high
    if low is None or high is None:
        raise ValueError(f"the parameter {name} has no range")
    return whole_option(int(low), int(high)) if isinstance(spec.default, int) else real_option(low, high)


def _samples(text: str) -> int | str:
    low, high = 1, next(int(spec.high) for spec in SPECS if spec.name == "samples" and spec.high is not None)
    return whole_or_auto(low, high)(text) or "auto"
