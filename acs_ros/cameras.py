"""One camera: what is subscribed while its frames are wanted, what is kept of them, and its outputs."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from acs_core.errors import ImageError
from acs_core.image import check_image
from acs_ros.bags import stamp_ns
from acs_ros.frames import Frame
from acs_ros.ledger import Ledger
from acs_ros.messages import box_from_message
from acs_ros.outputs import CameraOutputs, Composed
from acs_ros.parameter_table import COMPRESSED
from acs_ros.parameters import Settings
from acs_ros.qos import NEWEST, OVERRIDABLE, sensor
from acs_ros.reporter import Reporter
from acs_ros.stamps import StampWatch
from acs_ros.tracking import BoxTracker, Seen

DEPTH_KEPT = 15  # depth images that wait for their picture: half a second at 30 Hz


class Camera:
    """The camera ``name`` ("" for the only one) of ``node``, made when the node is configured.

    ``take`` gets every frame that can be used; ``settings`` is called for every frame.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        settings: Callable[[], Settings],
        ledger: Ledger,
        reporter: Reporter,
        take: Callable[[Frame], None],
    ) -> None:
        self._node, self.name, self._settings = node, name, settings
        self._ledger, self._reporter, self._take = ledger, reporter, take
        now = settings()
        self._prefix = f"~/{name}/" if name else "~/"
        self._compressed = now.image_transport == COMPRESSED
        self.topic = node.resolve_topic_name(self._image_name)
        self.outputs = CameraOutputs(node, self._prefix, now, reporter, ledger)
        self.tracker = BoxTracker(now.track_half_life, now.track_min_score) if now.tracking else None
        self._stamps = StampWatch(self.topic)
        self._subscriptions: list[Any] = []
        self.since: float | None = None  # steady seconds: when it was subscribed to
        self._one_at_a_time = threading.Lock()
        self._lock = threading.Lock()
        self._depths: deque[Image] = deque(maxlen=DEPTH_KEPT)
        self._info: CameraInfo | None = None

    @property
    def _image_name(self) -> str:
        return self._prefix + ("image/compressed" if self._compressed else "image")

    @property
    def listening(self) -> bool:
        """Whether the camera is subscribed to."""
        return bool(self._subscriptions)

    def listen(self) -> None:
        """Subscribe; nothing happens where that is so already."""
        if self._subscriptions:
            return
        settings = self._settings()
        kind = CompressedImage if self._compressed else Image
        # Groups of their own each time: rclpy 9.1.2 leaves the group of a subscription taken for good that is destroyed
        # when a QoS event of its own is about to be read, and the camera would never be heard again.
        group, side_group = MutuallyExclusiveCallbackGroup(), MutuallyExclusiveCallbackGroup()
        made = [self._subscribe(kind, self._image_name, self._on_image, NEWEST, group)]
        # The camera info also serves the markers, and costs next to nothing.
        made.append(self._subscribe(CameraInfo, self._prefix + "camera_info", self._on_info, sensor(1), side_group))
        if settings.use_depth:
            made.append(self._subscribe(Image, self._prefix + "depth", self._on_depth, sensor(5), side_group))
        self._subscriptions, self.since = made, time.monotonic()

    def ignore(self) -> None:
        """Unsubscribe."""
        made, self._subscriptions, self.since = self._subscriptions, [], None
        for subscription in made:
            self._node.destroy_subscription(subscription)
        self.forget()

    def forget(self) -> None:
        """Drop what is kept of earlier frames: the time went backwards, or nobody listened meanwhile."""
        with self._lock:
            self._depths.clear()
        if self.tracker is not None:
            self.tracker.reset()

    def destroy(self) -> None:
        """Take all of its topics away."""
        self.ignore()
        self.outputs.destroy()

    def complete(self, frame: Frame) -> Frame:
        """The frame with the depth image nearest in time, where one is near enough, and the camera info."""
        at, limit = stamp_ns(frame.header), self._settings().depth_tolerance * 1e9
        with self._lock:
            near = min(self._depths, key=lambda d: abs(stamp_ns(d.header) - at), default=None)
            info = self._info
        if near is not None and abs(stamp_ns(near.header) - at) > limit:
            near = None
        return frame.with_depth(frame.depth if frame.depth is not None else near, info)

    def identify(self, frame: Frame, answer: Composed, phrases: tuple[str, ...]) -> None:
        """Give the detections of an answer their ids, and follow them from now on."""
        if self.tracker is None:
            return
        found = answer.detections.detections
        seen = [
            Seen(d.results[0].hypothesis.class_id, box_from_message(d.bbox), d.results[0].hypothesis.score)
            for d in found
        ]
        ids = self.tracker.take_answer(stamp_ns(frame.header) / 1e9, phrases, seen)
        names = {(s.phrase, s.score, s.box.center): i for s, i in zip(seen, ids, strict=True)}
        for detection, name in zip(found, ids, strict=True):
            detection.id = name
        for detection in answer.detections_3d.detections:
            hypothesis = detection.results[0].hypothesis
            matches = {i for (p, s, _), i in names.items() if (p, s) == (hypothesis.class_id, hypothesis.score)}
            detection.id = matches.pop() if len(matches) == 1 else ""

    def _subscribe(self, kind: Any, topic: str, callback: Any, qos: Any, group: Any) -> Any:
        return self._node.create_subscription(
            kind,
            topic,
            callback,
            qos,
            callback_group=group,
            event_callbacks=self._reporter.input_events("image_qos_problem", topic),
            qos_overriding_options=OVERRIDABLE,
        )

    def _on_image(self, msg: Image | CompressedImage) -> None:
        with self._one_at_a_time:  # one of an earlier subscription may still be at work
            self._use(Frame(msg, self.name))

    def _use(self, frame: Frame) -> None:
        log = self._reporter.log
        now = self._node.get_clock().now().nanoseconds / 1e9
        sim_time = bool(self._node.get_parameter("use_sim_time").value)
        stamp = stamp_ns(frame.header) / 1e9
        problem, backwards = self._stamps.judge(stamp, now, self._settings().stale_after, sim_time)
        self._ledger.note(stamp_problem=problem)
        if backwards:
            self._ledger.count("clock_jumps")
            self.forget()
        if problem:
            log.warning(f"stamps of {self.topic}", problem)
        try:
            if self.tracker is not None:  # first: an answer must find its frame there
                self._track(frame, self.tracker)
            self._take(frame)
        except ImageError as error:
            self._ledger.image_came(str(error), self.name)
            log.warning(f"images of {self.topic}", f"image on {self.topic} dropped: {error}")
        else:
            self._ledger.image_came("", self.name)

    def _track(self, frame: Frame, tracker: BoxTracker) -> None:
        settings = self._settings()
        tracker.half_life, tracker.min_score = settings.track_half_life, settings.track_min_score
        # Checked as the model will: what it cannot take, the tracker cannot either.
        image = check_image(frame.rgb(settings.max_image_pixels, settings.accept_tiff))
        tracks = tracker.take_frame(stamp_ns(frame.header) / 1e9, image)
        if self.outputs.tracks is not None and self.listening:
            self.outputs.tracks.publish(self.outputs.tracks_message(frame.header, tracks))

    def _on_depth(self, msg: Image) -> None:
        with self._lock:
            self._depths.append(msg)

    def _on_info(self, msg: CameraInfo) -> None:
        with self._lock:
            self._info = msg
