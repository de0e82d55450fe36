"""``make demo``: plays a bag to the grounding node, which runs as a process of its own, and shows what it answers.

Everything goes over DDS as on a robot: the phrase on ~/query, the frame on ~/image, the answer on ~/detections.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from lifecycle_msgs.msg import Transition
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from acs_core.errors import AcsError
from acs_core.geometry import Box
from acs_core.oserrors import os_problem
from acs_ros.bags import DEMO_BAG, TRUTH_TOPIC, BagError, BagFrame, BagWriter, read_bag
from acs_ros.dds import apply_profile
from acs_ros.demo_report import Row, print_summary, print_table, summarize, write_json, write_pictures
from acs_ros.files import shipped_file
from acs_ros.node_client import NodeClient, NodeTrouble, own_domain
from acs_ros.node_process import NodeProcess

ENOUGH = 0.9  # share of the played frames that must get an answer
APPEAR_S, LOAD_S, CONNECT_S, QUERY_S = 60.0, 900.0, 30.0, 10.0
OUTPUTS = ("frames", "result_bag", "contact_sheet.png", "results.json", "node.log")
EXAMPLE = """example:
  python -m acs_ros.demo --selector acs-learned --samples 16 --frames 10 --out my_output

exit codes: 0 done, 1 failed or fewer than 90 % of the frames answered, 2 wrong usage, 130 stopped with Ctrl-C"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; the exit code."""
    options = _parser().parse_args(arguments)
    console = Console()
    signal.signal(signal.SIGTERM, _as_keyboard_interrupt)
    try:
        return _run(options, console)
    except (AcsError, BagError, NodeTrouble) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"demo: {os_problem(error, options.out)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace, console: Console) -> int:
    frames = [f for f in read_bag(options.bag) if f.truth][: options.frames or None]
    if not frames:
        raise BagError(f"{options.bag} has no frame with ground truth on {TRUTH_TOPIC}: nothing can be asked")
    questions = [(i, frame, phrase, box) for i, frame in enumerate(frames) for phrase, box in frame.truth]
    out: Path = options.out
    _make_room(out)
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    domain = own_domain()
    apply_profile()
    played = f"playing {len(frames)} frames of {options.bag} to the node on DDS domain {domain}"
    console.print(Text(played), soft_wrap=True)
    with NodeProcess(_ros_args(options), out / "node.log", {"ROS_DOMAIN_ID": str(domain)}) as process:
        try:
            with NodeClient("/grounding", domain, lambda: _check(process)) as client:
                rows = _play(client, questions, options.timeout, console)
        except NodeTrouble as error:
            console.rule("the last lines of the node", style="red")
            console.print(Text(process.last_lines()), soft_wrap=True)
            raise NodeTrouble(f"{error}; all of its output is in {process.log}") from error
    summary = summarize(rows)
    print_table(console, rows)
    print_summary(console, summary)
    sheet = write_pictures(out / "frames", rows)
    write_json(out / "results.json", rows, summary)
    _write_result_bag(out / "result_bag", rows)
    written = f"pictures: {sheet} and {out / 'frames'}; result bag: {out / 'result_bag'}; {out / 'results.json'}"
    console.print(Text(written), soft_wrap=True)
    if summary.answered < ENOUGH * summary.due:
        problem = f"only {summary.answered} of {summary.due} frames got an answer within {options.timeout:g} s"
        print(f"demo: FAILED: {problem}; see {out / 'node.log'}", file=sys.stderr)
        return 1
    return 0


def _play(
    client: NodeClient, questions: Sequence[tuple[int, BagFrame, str, Box]], timeout: float, console: Console
) -> list[Row]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    rows: list[Row] = []
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting the node", total=len(questions))
        client.wait_for_services(APPEAR_S)
        progress.update(task, description="loading the model")
        client.change_state(Transition.TRANSITION_CONFIGURE, LOAD_S)
        client.change_state(Transition.TRANSITION_ACTIVATE, CONNECT_S)
        client.wait_for_topics(CONNECT_S)
        for number, frame, phrase, box in questions:
            progress.update(task, description=f"frame {number}: {phrase}")
            client.ask_for(phrase, QUERY_S)
            reply = client.ask_about(frame.header, frame.image, phrase, timeout)
            rows.append(Row.of(number, frame, phrase, box, reply))
            progress.advance(task)
    return rows


def _ros_args(options: argparse.Namespace) -> list[str]:
    args = ["--params-file", str(options.params or shipped_file("config/tiny_internvl.yaml"))]
    given = {"model": options.model, "selector": options.selector, "samples": options.samples, "seed": options.seed}
    for name, value in given.items():
        if value is not None:
            args += ["-p", f"{name}:={value}"]
    return args


def _check(process: NodeProcess) -> None:
    if process.exit_code is not None:
        raise NodeTrouble(f"the node ended by itself with exit code {process.exit_code}")


def _write_result_bag(folder: Path, rows: Sequence[Row]) -> None:
    """Each frame once with all its truths, and the answers of the run, for rviz or a script."""
    with BagWriter(folder) as bag:
        for frame in {row.number: row.frame for row in rows}.values():
            bag.write_frame(frame)
        for row in rows:
            if row.reply is not None:
                answered = row.frame.stamp_ns + int(row.reply.latency_ms * 1e6)
                bag.write("/grounding/candidates", row.reply.candidates, answered)
                bag.write("/grounding/detections", row.reply.detections, answered)


def _make_room(out: Path) -> None:
    """An output folder without the files of an earlier run; other files in it stay."""
    out.mkdir(parents=True, exist_ok=True)
    for name in OUTPUTS:
        old = out / name
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)


def _as_keyboard_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="grounding_demo",
        description="Plays a bag to the grounding node over DDS and shows what it answers.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bag", type=Path, default=DEMO_BAG, help="bag with frames and ground truth (the shipped one)")
    parser.add_argument("--frames", type=_positive, default=0, metavar="N", help="play only the first N frames")
    parser.add_argument("--model", help="another model: short name, folder or Hugging Face id")
    parser.add_argument("--selector", help="another selector: acs-free, acs-learned, greedy, ...")
    parser.add_argument("--samples", type=_positive, metavar="N", help="responses sampled per frame")
    parser.add_argument("--seed", type=int, default=1, help="seed of every call (1); -1: a fresh one each")
    parser.add_argument("--params", type=Path, metavar="YAML", help="parameter file (config/tiny_internvl.yaml)")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="longest wait for an answer, seconds")
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="output folder (demo_output)")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
