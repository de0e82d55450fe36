"""Latency from an image message to its detections without a model, between two processes over DDS."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from lifecycle_msgs.msg import Transition
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from acs_core.errors import BenchError
from acs_ros.client.background_node import BackgroundNode
from acs_ros.client.domains import own_domain
from acs_ros.client.node_client import NodeClient
from acs_ros.client.node_process import NodeProcess
from acs_ros.conversions.images import fill_image
from acs_ros.dds import apply_profile
from acs_ros.errors import NodeTrouble

# At SCHED_IDLE it runs only on an otherwise idle core; it ends with its parent.
_SPIN = """
import os
os.sched_setaffinity(0, {%d})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while os.getppid() == %d:
    for _ in range(1_000_000):
        pass
"""


NODE = "/grounding"
PATIENCE_S, ANSWER_S = 60.0, 5.0
WARM_UP = 10  # frames


@contextmanager
def keep_cores_awake(wanted: bool = True) -> Iterator[bool]:
    """Keep all cores that this process may use busy at the lowest priority in the block, so that none sleeps.

    On a virtual machine, waking a core can take milliseconds, more than the measured time. Linux only; yields whether
    it is in effect.
    """
    if not (wanted and hasattr(os, "SCHED_IDLE")):
        yield False
        return
    spinners = [
        subprocess.Popen([sys.executable, "-c", _SPIN % (core, os.getpid())]) for core in os.sched_getaffinity(0)
    ]
    try:
        yield True
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


@dataclass(frozen=True)
class RosRow:
    """Latency from publishing a frame to its detections.

    Attributes:
        size: size of the frames.
        awake: whether the processor's cores were kept awake.
        frames: number of frames.
        lost: number of frames without detections within five seconds.
        p50_ms: median in milliseconds.
        p95_ms: 95th percentile in milliseconds.
        most_ms: maximum in milliseconds.
    """

    size: str
    awake: bool
    frames: int
    lost: int
    p50_ms: float
    p95_ms: float
    most_ms: float

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return vars(self)


def ros_overhead(sizes: Sequence[tuple[int, int]], frames: int) -> list[RosRow]:
    """Start the node with a model that answers at once, and measure ``frames`` frames of each of ``sizes`` (width,
    height), first with the machine unchanged and then with its cores kept awake.

    Raises:
        BenchError: the node does not come up, or answers nothing.
    """
    apply_profile()
    with own_domain(export=True) as domain, tempfile.TemporaryDirectory() as folder:
        process = NodeProcess(
            ["-p", "autostart:=false"], Path(folder) / "node.log", module="acs_ros.stress.instant_node"
        )
        try:
            with process, NodeClient(NODE, domain) as client:
                client.wait_for_services(PATIENCE_S)
                client.change_state(Transition.TRANSITION_CONFIGURE, PATIENCE_S)
                client.change_state(Transition.TRANSITION_ACTIVATE, PATIENCE_S)
                client.wait_for_topics(PATIENCE_S)
                client.ask_for("key", PATIENCE_S)
                with _Stopwatch(domain) as watch:
                    rows = []
                    for keep in (False, True):
                        with keep_cores_awake(keep) as awake:
                            if keep == awake:
                                rows += [watch.measure(width, height, frames, awake) for width, height in sizes]
                    return rows
        except NodeTrouble as error:
            raise BenchError(f"{error}\n{process.last_lines()}") from error


class _Stopwatch:
    """Publisher of frames that records the arrival of their detections in the callback itself."""

    def __init__(self, domain: int) -> None:
        self._peer = BackgroundNode("stopwatch", domain)
        self._node = self._peer.node
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self._images = self._node.create_publisher(Image, f"{NODE}/image", qos)
        self._node.create_subscription(Detection2DArray, f"{NODE}/detections", self._on_detections, qos)
        self._arrived = threading.Event()
        self._waiting_for, self._at = Time(), 0.0

    def __enter__(self) -> _Stopwatch:
        self._peer.start()
        until = time.monotonic() + PATIENCE_S
        while not (self._images.get_subscription_count() and self._node.count_publishers(f"{NODE}/detections")):
            if time.monotonic() > until:
                raise NodeTrouble(f"{NODE} was not found on DDS within {PATIENCE_S:.0f} s")
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._peer.close()

    def measure(self, width: int, height: int, frames: int, awake: bool) -> RosRow:
        """Send frames one at a time, each after the answer to the previous one."""
        picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        msg = fill_image(Image(header=Header(frame_id="camera")), picture)
        took = [self._once(msg) for _ in range(WARM_UP + frames)][WARM_UP:]
        got = [ms for ms in took if ms is not None]
        if not got:
            raise NodeTrouble(f"none of {frames} frames of {width} x {height} pixels was answered")
        p50, p95 = np.percentile(got, [50, 95])
        return RosRow(f"{width}x{height}", awake, frames, frames - len(got), float(p50), float(p95), max(got))

    def _once(self, msg: Image) -> float | None:
        self._arrived.clear()
        msg.header.stamp = self._node.get_clock().now().to_msg()  # old stamps cause warnings, which take time
        self._waiting_for = msg.header.stamp
        began = time.perf_counter()
        self._images.publish(msg)
        return (self._at - began) * 1e3 if self._arrived.wait(ANSWER_S) else None

    def _on_detections(self, msg: Detection2DArray) -> None:
        if msg.header.stamp == self._waiting_for:
            self._at = time.perf_counter()
            self._arrived.set()
