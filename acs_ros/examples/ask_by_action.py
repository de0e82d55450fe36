"""Asks once, by action: ``python -m acs_ros.examples.ask_by_action key --picture photo.png``.

Without a picture the node looks at its camera's next frame. Ctrl-C cancels the goal, and the node stops at once.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
from acs_msgs.action import Ground
from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CompressedImage


class GroundClient(Node):
    """Sends one goal and waits for its result."""

    def __init__(self, grounding: str) -> None:
        super().__init__("ask_by_action")
        self._client: Any = ActionClient(self, Ground, f"{grounding}/ground")
        self._stopped = False

    def stop(self, *_: object) -> None:
        """Ctrl-C. Not as an exception at first, which could come while rclpy reads an answer, and lose it."""
        if self._stopped:
            raise KeyboardInterrupt
        self._stopped = True

    def ask(self, goal: Ground.Goal, timeout: float) -> tuple[int, Ground.Result]:
        """Status (a constant of GoalStatus) and result.

        Raises:
            TimeoutError: the action is not there, or the goal does not end in time.
            KeyboardInterrupt: Ctrl-C; the goal was cancelled.
        """
        until = time.monotonic() + timeout
        while not self._client.wait_for_server(0.1):
            if self._stopped:
                raise KeyboardInterrupt
            if time.monotonic() > until:
                raise TimeoutError("no action server: is the node running?")
        sent = self._client.send_goal_async(goal, feedback_callback=self._on_feedback)
        handle: Any = self._wait(sent, timeout, heed=False)  # only who has its handle can cancel a goal
        try:
            answer: Any = self._wait(handle.get_result_async(), timeout)
        except (KeyboardInterrupt, TimeoutError):
            self._wait(handle.cancel_goal_async(), timeout, heed=False)
            raise
        return answer.status, answer.result

    def _wait(self, future: Any, timeout: float, heed: bool = True) -> Any:
        until = time.monotonic() + timeout
        while not future.done():
            if heed and self._stopped:
                raise KeyboardInterrupt
            if time.monotonic() > until:
                raise TimeoutError(f"no answer within {timeout:g} s")
            rclpy.spin_once(self, timeout_sec=0.1)  # short, because Ctrl-C is noticed only in between
        return future.result()

    def _on_feedback(self, message: Any) -> None:
        print(f"{message.feedback.elapsed:6.2f} s  {message.feedback.stage}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask and print; the exit code: 1 without an answer, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phrase", help="what to look for")
    parser.add_argument("--picture", type=Path, help="a JPEG or PNG file to look at instead of the camera's next frame")
    parser.add_argument("--node", default="/grounding", help="the node's full name (/grounding)")
    parser.add_argument("--samples", type=int, default=0, help="responses sampled (the node's parameter)")
    parser.add_argument("--deadline", type=float, default=0.0, help="seconds after which sampling ends (none)")
    parser.add_argument("--min-score", type=float, default=-1.0, help="threshold (the node's parameter)")
    parser.add_argument("--multiple", action="store_true", help="every object, not only the best one")
    parser.add_argument("--timeout", type=float, default=60.0, help="longest wait in seconds (60)")
    options = parser.parse_args(remove_ros_args(sys.argv)[1:] if arguments is None else arguments)
    goal = Ground.Goal(
        phrase=options.phrase,
        samples=options.samples,
        deadline=options.deadline,
        min_score=options.min_score,
        multiple=options.multiple,
    )
    if options.picture:
        kind = options.picture.suffix.lstrip(".").lower()
        goal.compressed_image = CompressedImage(format=kind)
        goal.compressed_image.data.frombytes(options.picture.read_bytes())
    # rclpy's own handler would end the context at Ctrl-C, before the goal could be cancelled.
    with rclpy.init(signal_handler_options=SignalHandlerOptions.NO):
        client = GroundClient(options.node)
        before = signal.signal(signal.SIGINT, client.stop)
        try:
            status, result = client.ask(goal, options.timeout)
        except TimeoutError as error:
            print(error, file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("cancelled", file=sys.stderr)
            return 130
        finally:
            signal.signal(signal.SIGINT, before)
            client.destroy_node()
    for found in result.detections.detections:
        at = found.bbox.center.position
        print(f"{options.phrase}: score {found.results[0].hypothesis.score:.2f}, centre ({at.x:.0f}, {at.y:.0f})")
    if result.message:
        print(result.message)
    return 0 if status == GoalStatus.STATUS_SUCCEEDED else 1


if __name__ == "__main__":
    sys.exit(main())
