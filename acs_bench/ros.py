"""From an image message to its detections without a model: two processes over DDS, one frame at a time."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Sequence
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

from acs_bench.awake import kept_awake
from acs_bench.errors import BenchError
from acs_ros.dds import apply_profile
from acs_ros.image_conversion import fill_image
from acs_ros.node_client import NodeClient, NodeTrouble
from acs_ros.node_process import NodeProcess
from acs_ros.peer import Peer

NODE = "/grounding"
PATIENCE_S, ANSWER_S = 60.0, 5.0
WARM_UP = 10  # frames


@dataclass(frozen=True)
class RosRow:
    """Milliseconds from publishing a frame of ``size`` to having its detections, over ``frames`` frames; ``lost`` had
    none within five seconds. ``awake``: the processor's cores were kept from sleeping meanwhile."""

    size: str
    awake: bool
    frames: int
    lost: int
    p50_ms: float
    p95_ms: float
    most_ms: float

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return vars(self)


def ros_overhead(sizes: Sequence[tuple[int, int]], frames: int) -> list[RosRow]:
    """Starts the node with a model that answers at once and asks it about ``frames`` pictures of each of ``sizes``
    (width, height): as the machine is, and with its cores kept awake.

    Raises:
        BenchError: the node does not come up, or answers nothing.
    """
    apply_profile()
    with tempfile.TemporaryDirectory() as folder:
        process = NodeProcess(["-p", "autostart:=false"], Path(folder) / "node.log", module="acs_bench.instant_node")
        try:
            with process, NodeClient(NODE) as client:
                client.wait_for_services(PATIENCE_S)
                client.change_state(Transition.TRANSITION_CONFIGURE, PATIENCE_S)
                client.change_state(Transition.TRANSITION_ACTIVATE, PATIENCE_S)
                client.wait_for_topics(PATIENCE_S)
                client.ask_for("key", PATIENCE_S)
                with _Stopwatch() as watch:
                    rows = []
                    for keep in (False, True):
                        with kept_awake(keep) as awake:
                            if keep == awake:
                                rows += [watch.measure(width, height, frames, awake) for width, height in sizes]
                    return rows
        except NodeTrouble as error:
            raise BenchError(f"{error}\n{process.last_lines()}") from error


class _Stopwatch:
    """Publishes frames and notes when their detections arrive, in the callback itself."""

    def __init__(self) -> None:
        self._peer = Peer("stopwatch")
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
        """One frame after the other, each when the one before has been answered."""
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
        msg.header.stamp = self._node.get_clock().now().to_msg()  # an old one would be warned about, which takes time
        self._waiting_for = msg.header.stamp
        began = time.perf_counter()
        self._images.publish(msg)
        return (self._at - began) * 1e3 if self._arrived.wait(ANSWER_S) else None

    def _on_detections(self, msg: Detection2DArray) -> None:
        if msg.header.stamp == self._waiting_for:
            self._at = time.perf_counter()
            self._arrived.set()
