"""One camera: its subscriptions, the depth images and camera info kept for its frames, its tracker and publishers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from acs_core.errors import ImageError
from acs_core.image import check_image
from acs_ros.conversions.detections import box_from_message
from acs_ros.conversions.images import Frame, stamp_ns
from acs_ros.dds import NEWEST, OVERRIDABLE, sensor
from acs_ros.diagnostics.statistics import NodeStatistics
from acs_ros.diagnostics.status import NO_CLOCK
from acs_ros.node.parameter_table import COMPRESSED, COMPRESSED_DEPTH
from acs_ros.node.parameters import NodeParameters
from acs_ros.node.publishers import CameraPublishers, ComposedMessages
from acs_ros.node.reporter import Reporter
from acs_ros.node.synchronizer import FrameSynchronizer, doubled_transport
from acs_ros.node.tracker import BoxTracker, TrackedQuery
from acs_ros.node.transform_listener import TransformListener

JUMP_S = 1.0  # seconds by which stamps jump back if time did; by less, images came out of order, and /tf is right
WALL_TIME = 1e9  # seconds: September 2001; no simulation or uptime gets that far, and no clock that is set is behind it
# Transports of image_transport that are not decoded here.
UNREAD_TRANSPORTS = ("theora", "ffmpeg", "zstd", "compressedDepth")


class Camera:
    """The camera ``name`` ("" for the only one) of ``node``, made when the node is configured.

    ``take`` is called with every frame and raises :class:`~acs_core.errors.ImageError` for one that cannot be used.
    ``transforms`` returns what finds transforms to the parameter ``target_frame``, or None without it.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        parameters: NodeParameters,
        statistics: NodeStatistics,
        reporter: Reporter,
        take: Callable[[Frame], None],
        transforms: Callable[[], TransformListener | None] = lambda: None,
    ) -> None:
        self._node, self.name, self._parameters = node, name, parameters
        self._statistics, self._reporter, self._take = statistics, reporter, take
        now = parameters.current
        self._prefix = f"~/{name}/" if name else "~/"
        self._compressed = now.image_transport == COMPRESSED
        self._image_name = transport_topic(node, self._prefix + "image", "compressed" if self._compressed else "")
        self._compressed_depth = now.depth_transport == COMPRESSED_DEPTH
        self._depth_name = transport_topic(
            node, self._prefix + "depth", COMPRESSED_DEPTH if self._compressed_depth else ""
        )
        self.topic = node.resolve_topic_name(self._image_name)
        self.synchronizer = FrameSynchronizer(
            node,
            node.resolve_topic_name(self._depth_name),
            node.resolve_topic_name(self._prefix + "camera_info"),
            parameters,
            transforms,
        )
        self.outputs = CameraPublishers(node, name, now, reporter, statistics)
        self.tracker = BoxTracker(now.track_half_life, now.track_min_score) if now.tracking else None
        self._stamps = TimestampCheck(self.topic)
        self._subscriptions: list[Any] = []  # to images
        self._companion_subscriptions: list[Any] = []  # to depth images and camera infos
        self.since: float | None = None  # steady seconds: when it was subscribed to
        self._noted = False  # whether the log has a note about usable images
        self._image_lock = threading.Lock()
        self._sending = threading.Lock()  # nothing is sent about frames after ignore() has returned

    @property
    def input_topics(self) -> dict[str, str]:
        """The topics that are subscribed to while answers are wanted: full names by the node's own, like ~/image."""
        names = {f"{self._prefix}camera_info": f"{self._prefix}camera_info"}
        inputs = [("image", COMPRESSED if self._compressed else "", self._image_name)]
        if self._parameters.current.use_depth:
            inputs.append(("depth", COMPRESSED_DEPTH if self._compressed_depth else "", self._depth_name))
        for base, transport, topic in inputs:
            own = f"{self._prefix}{base}"
            if transport and not topic.startswith("~"):
                names[own] = own  # by image_transport's convention a rule for raw images holds for this transport, too
            names[f"{own}/{transport}" if transport else own] = topic
        return {name: self._node.resolve_topic_name(topic) for name, topic in names.items()}

    @property
    def other_type(self) -> str:
        """The type that the image topic is published with, where nobody publishes it with the one that is read."""
        wanted = f"sensor_msgs/msg/{'CompressedImage' if self._compressed else 'Image'}"
        types = {publisher.topic_type for publisher in self._node.get_publishers_info_by_topic(self.topic)}
        return "" if wanted in types else ", ".join(sorted(types))

    @property
    def other_transport(self) -> str:
        """What to do if the images are published, but by another transport than the one that is read; else empty."""
        if self._node.count_publishers(self.topic):
            return ""
        if hint := doubled_transport(self._node, self.topic):
            return hint
        base = self._node.resolve_topic_name(self._prefix + "image")
        if self._compressed and self._published_as_compressed(base):
            own = f"{self._prefix}image"
            return f"{base} is published as CompressedImage: remap {own}/compressed to it, and not {own}"
        readable = (base, "raw") if self._compressed else (f"{base}/{COMPRESSED}", COMPRESSED)
        if self._node.count_publishers(readable[0]):
            return f"{readable[0]} is published: set image_transport: {readable[1]}"
        for transport in UNREAD_TRANSPORTS:
            if self._node.count_publishers(f"{base}/{transport}"):
                return (
                    f"{base}/{transport} is published, which is not decoded here: let the driver publish raw or "
                    "compressed images, or run image_transport's republish"
                )
        return ""

    def _published_as_compressed(self, topic: str) -> bool:
        types = {publisher.topic_type for publisher in self._node.get_publishers_info_by_topic(topic)}
        return types == {"sensor_msgs/msg/CompressedImage"}

    @property
    def listening(self) -> bool:
        """Whether images are subscribed to."""
        return bool(self._subscriptions)

    @property
    def subscribed(self) -> bool:
        """Whether anything is subscribed to."""
        return bool(self._subscriptions or self._companion_subscriptions)

    def listen(self) -> None:
        """Subscribe, unless that is done already."""
        if self._subscriptions:
            return
        settings = self._parameters.current
        kind = CompressedImage if self._compressed else Image
        # Groups of their own each time: rclpy 9.1.2 leaves the group of a subscription taken for good that is destroyed
        # when a QoS event of its own is about to be read, and the camera would never be heard again.
        group, side_group = MutuallyExclusiveCallbackGroup(), MutuallyExclusiveCallbackGroup()
        images = [self._subscribe(kind, self._image_name, self._on_image, NEWEST, group)]
        if not self._companion_subscriptions:
            self._companion_subscriptions = self._subscribe_companions(settings.use_depth, side_group)
        self._subscriptions, self.since = images, time.monotonic()

    def _subscribe_companions(self, use_depth: bool, group: Any) -> list[Any]:
        # The camera info also serves the markers, and costs next to nothing.
        take_info, take_depth = self.synchronizer.take_info, self.synchronizer.take_depth
        made = [self._subscribe(CameraInfo, self._prefix + "camera_info", take_info, sensor(5), group)]
        if use_depth:
            kind = CompressedImage if self._compressed_depth else Image
            made.append(self._subscribe(kind, self._depth_name, take_depth, sensor(5), group))
        return made

    def ignore_images(self) -> None:
        """Unsubscribe from the images; what belongs to those that were taken may still come."""
        with self._sending:
            made, self._subscriptions, self.since = self._subscriptions, [], None
        for subscription in made:
            self._node.destroy_subscription(subscription)
        if made and self.tracker is not None:
            self.tracker.reset()

    def ignore(self) -> None:
        """Unsubscribe."""
        self.ignore_images()
        made, self._companion_subscriptions = self._companion_subscriptions, []
        for subscription in made:
            self._node.destroy_subscription(subscription)
        self.forget()

    def forget(self) -> None:
        """Drop depth images and tracks of earlier frames: time went backwards, or frames were missed."""
        self.synchronizer.forget()
        if self.tracker is not None:
            self.tracker.reset()

    def destroy(self) -> None:
        """Destroy the subscriptions and publishers."""
        self.ignore()
        self.outputs.destroy()

    @property
    def places_wanted(self) -> bool:
        """Whether places in space are published, for which a frame needs a depth image, camera info and transform."""
        return self.outputs.places_wanted(self._parameters.current)

    def identify(self, frame: Frame, answer: ComposedMessages, phrases: tuple[str, ...]) -> None:
        """Set the ids of the detections of an answer, and track them from now on."""
        if self.tracker is None:
            return
        found = answer.detections.detections
        seen = [
            TrackedQuery(d.results[0].hypothesis.class_id, box_from_message(d.bbox), d.results[0].hypothesis.score)
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
            event_callbacks=self._reporter.camera_events(
                self.name, "image_qos" if topic == self._image_name else "depth_qos", topic
            ),
            qos_overriding_options=OVERRIDABLE,
        )

    def _on_image(self, msg: Image | CompressedImage) -> None:
        with self._image_lock:  # one of an earlier subscription may still be at work
            self._use(Frame(msg, self.name))

    def _use(self, frame: Frame) -> None:
        log = self._reporter.log
        now = self._node.get_clock().now().nanoseconds / 1e9
        sim_time = bool(self._node.get_parameter("use_sim_time").value)
        stamp = stamp_ns(frame.header) / 1e9
        problem, backwards = self._stamps.judge(stamp, now, self._parameters.current.stale_after, sim_time)
        mixed = bool(problem) and not backwards and are_mixed(stamp, now)
        self._statistics.set_camera(self.name, stamp=problem, clocks_mixed=mixed)
        if backwards:
            self._statistics.increment("clock_jumps")
            self.forget()
            if backwards >= JUMP_S:
                self.synchronizer.time_went_back()
        if problem:
            log.warning(f"stamps of {self.topic}", problem)
        try:
            if self.tracker is not None:  # first: an answer must find its frame there
                self._track(frame, self.tracker)
            self._take(frame)
        except ImageError as error:
            self._statistics.image_came(str(error), self.name)
            log.warning(f"images of {self.topic}", f"image on {self.topic} dropped: {error}")
        else:
            self._statistics.image_came("", self.name)
            note = "" if self._noted else frame.note
            if note:
                self._noted = True
                self._node.get_logger().warning(f"images on {self.topic}: {note}")

    def _track(self, frame: Frame, tracker: BoxTracker) -> None:
        settings = self._parameters.current
        tracker.half_life, tracker.min_score = settings.track_half_life, settings.track_min_score
        # Checked as the model will: what it cannot take, the tracker cannot either.
        image = check_image(
            frame.rgb(settings.max_image_pixels, settings.accept_tiff, settings.image_bits, settings.accept_16uc1)
        )
        tracks = tracker.take_frame(stamp_ns(frame.header) / 1e9, image)
        if self.outputs.tracks is None:
            return
        message = self.outputs.tracks_message(frame.header, tracks)
        with self._sending:
            if self.listening:
                self.outputs.tracks.publish(message)


class TimestampCheck:
    """Checks the time stamps of one camera: stale, ahead of the clock, missing, or jumping back."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._last: float | None = None

    def judge(self, stamp: float, now: float, stale_after: float, sim_time: bool) -> tuple[str, float]:
        """What is wrong with the next image's ``stamp``, or an empty string; and by how much time went backwards, which
        makes everything kept of earlier images invalid, or 0. Seconds; ``now`` is the node's own clock, ``stale_after``
        0 accepts any age."""
        last, self._last = self._last, stamp
        if last is not None and stamp < last:
            return (
                f"the stamps on {self._topic} jumped back by {_span(last - stamp)}: a bag that began again, two "
                "publishers on one topic, or a clock that was set"
            ), last - stamp
        if sim_time and now == 0:
            return NO_CLOCK, 0.0
        if stale_after <= 0:
            return "", 0.0
        if stamp == 0:
            return f"the images on {self._topic} carry no stamp (0): fix the camera driver", 0.0
        apart = f"{_span(now - stamp)} ago" if now > stamp else f"{_span(stamp - now)} ahead"
        if abs(now - stamp) > stale_after and are_mixed(stamp, now):
            clock = "the simulated time of /clock" if sim_time else "the wall clock"
            remedy = (
                "start the camera driver with use_sim_time: true too"
                if sim_time
                else "in a simulation start it with use_sim_time: true, else let the driver stamp by the host's clock"
            )
            return (
                f"simulated and wall time are mixed: the last image on {self._topic} was stamped {apart}, and this "
                f"node goes by {clock}: {remedy}"
            ), 0.0
        if now - stamp > stale_after:
            why = "a bag played without use_sim_time, clocks of two machines that differ, or a queue on the way"
            if sim_time:
                why = "two sources of simulated time, or a queue on the way"
            return f"the last image on {self._topic} was stamped {apart}: {why}", 0.0
        if stamp - now > stale_after:
            clock = "/clock: two sources of simulated time, or a slow /clock"
            if not sim_time:
                clock = "this machine's clock: synchronise the clocks, or set use_sim_time as the publisher has it"
            return f"the last image on {self._topic} is stamped {apart} of {clock}", 0.0
        return "", 0.0


def transport_topic(node: Node, base: str, transport: str) -> str:
    """The name of the topic of an image transport: by image_transport's convention that of the ``base`` topic, as
    remapped, and the transport; unless the node's remapping rules name that topic itself.

    Args:
        node: The node, for its remapping rules.
        base: Name of the topic of raw images.
        transport: Name of the transport; empty for raw images.
    """
    if not transport:
        return base
    own = f"{base}/{transport}"
    if node.resolve_topic_name(own) != node.resolve_topic_name(own, only_expand=True):
        return own
    return f"{node.resolve_topic_name(base)}/{transport}"


def are_mixed(stamp: float, now: float) -> bool:
    """Whether one of two times, in seconds, is simulated and the other is wall time: simulations begin at 0."""
    return (stamp < WALL_TIME) != (now < WALL_TIME)


def _span(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 86400 else f"{seconds / 86400:.0f} days"
