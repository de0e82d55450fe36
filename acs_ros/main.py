"""The executable ``grounding_node``: runs one node until SIGINT or SIGTERM."""

from __future__ import annotations

if __name__ == "__main__":  # first: a signal may come while the modules below are imported
    from acs_core.entry import run

    run("acs_ros.main", "grounding", stopped=0, at_once=True)

import contextlib
import os
import sys
from textwrap import fill

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.signals import SignalHandlerOptions

from acs_core.option_types import version_line
from acs_core.terminal import print_error
from acs_ros.dds import apply_profile
from acs_ros.diagnostics.memory import steady_heap
from acs_ros.node.given_parameters import GivenParameters, check_words
from acs_ros.node.grounding_node import STOP_TIMEOUT_S, GroundingNode
from acs_ros.node.model_loader import GrounderLoader, load_grounder
from acs_ros.node.parameter_table import GROUPS
from acs_ros.rclpy_fixes import FaultTolerantExecutor, FreezeWatch, spin_tolerant
from acs_ros.shared_memory import remove_dead_segments
from acs_ros.stop_signals import StopSignals, end_at_the_third

# Seconds. With Python's default of 5 ms, every step of a service or a frame waits that long for the model's thread, and
# the model as long for the frames of a fast camera.
SWITCH_S = 0.0003
THREADS = 6  # one may wait for a goal's answer and one for a model to load; the others keep the node responsive


def main(args: list[str] | None = None, load: GrounderLoader = load_grounder) -> int:
    """Run the node on the model that ``load`` gives. Exit code 0 after a signal, 2 for unusable parameters or
    parameter files."""
    words = sys.argv[1:] if args is None else args
    if asked := next((word for word in words if word in ("-h", "--help", "--version")), ""):
        print(version_line("grounding_node") if asked == "--version" else help_text())
        return 0
    with StopSignals(end_at_the_third("grounding")) as stop:
        apply_profile()
        steady_heap()
        sys.setswitchinterval(SWITCH_S)
        try:
            if args is None:
                check_words(sys.argv[1:])
            given = GivenParameters.of(sys.argv if args is None else args)
        except ValueError as error:
            print_error("grounding", error)
            return 2
        removed = remove_dead_segments()
        try:
            # rclpy's own handlers raise KeyboardInterrupt anywhere in the main thread, and shut the context down while
            # callbacks run.
            rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        except RuntimeError as error:
            print_error("grounding", f"ROS cannot start: {error}")
            print_error("grounding", "if that is about logging, name a folder that can be written in ROS_LOG_DIR")
            return 2
        try:
            node = GroundingNode(load=load, given=given)
        except ValueError as error:
            print_error("grounding", error)
            rclpy.try_shutdown()
            return 2
        if removed.count:
            node.get_logger().info(str(removed))
        with FreezeWatch(node.settings.freeze_timeout):
            stopped = _run(node, stop)
        if not stopped:
            # At exit Python would unload torch while a thread runs in it, which can crash or hang.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
    return 0


def help_text() -> str:
    """Return what ``grounding_node --help`` prints: how arguments are given, and every parameter."""
    lines = [
        "usage: grounding_node [--ros-args] [-p NAME:=VALUE] [--params-file FILE] [-r FROM:=TO] [--log-level LEVEL]",
        "",
        "Finds what phrases name in camera images. Arguments come after --ros-args, as for every ROS 2 node:",
        "",
        "  grounding_node --ros-args -p model:=tiny-internvl -p initial_query:=key -r __ns:=/robot",
        "",
        "docs/node.md has the topics, services and the action. Parameters, with their defaults:",
    ]
    for group, specs in GROUPS.items():
        lines += ["", f"{group}:"]
        for spec in specs:
            default = str(spec.default).lower() if isinstance(spec.default, bool) else str(spec.default)
            text = fill(spec.description, 80, initial_indent=" " * 6, subsequent_indent=" " * 6)
            lines += [f"  {spec.name}  ({spec.type_name}{f', {default}' if default else ''})", text]
    return "\n".join(lines)


def _run(node: GroundingNode, stop: StopSignals) -> bool:
    """Spin until shutdown. Returns False if a thread is still loading or running a model."""
    executor = FaultTolerantExecutor(THREADS, node.callback_failed)
    executor.add_node(node)
    try:
        with contextlib.suppress(ExternalShutdownException):
            spin_tolerant(executor, stop, lambda error: node.callback_failed("the executor", error))
    finally:
        with contextlib.suppress(OSError):  # the reader of stderr may be gone
            print("grounding: stopping", file=sys.stderr)
        stopped = node.close()
        executor.shutdown(timeout_sec=STOP_TIMEOUT_S)
        node.destroy_node()
        rclpy.try_shutdown()
    return stopped
