"""The executable ``grounding_node``: one node in one process, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import contextlib
import os
import sys

import rclpy
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor

from acs_ros.dds import apply_profile
from acs_ros.freeze_watch import FreezeWatch
from acs_ros.grounder_source import GrounderLoader, load_grounder
from acs_ros.grounding_node import STOP_TIMEOUT_S, GroundingNode
from acs_ros.memory import steady_heap
from acs_ros.spinning import spin

# Python's default is 5 ms. The model's thread computes for as long as it may, and every small step of a service or of a
# frame waits that long for its turn; the model waits as long for the frames of a fast camera.
SWITCH_S = 0.0003
THREADS = 6  # one may wait for a goal's answer and one load a model, the others keep the node responsive


def main(args: list[str] | None = None, load: GrounderLoader = load_grounder) -> int:
    """Run the node on the model that ``load`` gives. Exit code 2 for unusable parameters."""
    apply_profile()
    steady_heap()
    sys.setswitchinterval(SWITCH_S)
    try:
        rclpy.init(args=args)
    except RuntimeError as error:
        print(f"grounding: ROS cannot start: {error}", file=sys.stderr)
        print("grounding: if that is about logging, name a folder that can be written in ROS_LOG_DIR", file=sys.stderr)
        return 2
    try:
        node = GroundingNode(load=load)
    except ValueError as error:
        print(f"grounding: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    with FreezeWatch(node.settings.freeze_timeout):
        stopped = _run(node)
    if not stopped:
        # Python would tear torch down under the thread that is in the middle of it, which can crash or hang.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


def _run(node: GroundingNode) -> bool:
    """Until somebody ends it. False: a thread still loads or asks a model."""
    executor = MultiThreadedExecutor(num_threads=THREADS)
    executor.add_node(node)
    try:
        with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):  # how it is meant to end
            spin(executor)
    finally:
        print("grounding: stopping", file=sys.stderr)
        stopped = node.close()
        executor.shutdown(timeout_sec=STOP_TIMEOUT_S)
        node.destroy_node()
        rclpy.try_shutdown()
    return stopped


if __name__ == "__main__":
    sys.exit(main())
