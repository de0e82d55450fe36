"""All cameras of the node: subscribed to while their frames are wanted, and published on while the node is active."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from std_msgs.msg import Header
from vision_msgs.msg import VisionInfo

from acs_core.types import GroundingResult
from acs_ros.conversions.bridge import bridge_state
from acs_ros.conversions.images import Frame
from acs_ros.dds import LATCHED
from acs_ros.diagnostics.statistics import NodeStatistics
from acs_ros.node.camera import Camera
from acs_ros.node.parameters import NodeParameters
from acs_ros.node.publishers import ComposedMessages, FrameAnswer
from acs_ros.node.reporter import Reporter
from acs_ros.node.transform_listener import TransformListener


class CameraSet:
    """The cameras of ``node``, which exist while the node is configured."""

    def __init__(self, node: Node, parameters: NodeParameters, statistics: NodeStatistics, reporter: Reporter) -> None:
        self._node, self._parameters, self._statistics, self._reporter = node, parameters, statistics, reporter
        self._lock = threading.RLock()  # nothing is subscribed to or published after close() has returned
        self._adjusting = threading.Lock()  # taken before _lock
        self._showing = threading.Lock()  # for pictures, which are megabytes: _lock is not held while they are sent
        self._wants_frames: Callable[[str], bool] | None = None  # None while closed
        self._is_answering: Callable[[], bool] = lambda: False
        self._cameras: dict[str, Camera] = {}
        self._info = node.create_publisher(VisionInfo, "~/vision_info", LATCHED)
        self._infos = 0
        self._transforms: TransformListener | None = None
        self._decoder_told = False
        # Subscriptions are made and destroyed on the executor, never in a callback of their own.
        self._look = node.create_guard_condition(self._adjust, callback_group=MutuallyExclusiveCallbackGroup())

    def make(self, take: Callable[[Frame], None]) -> None:
        """Make the cameras that the parameters name, with their topics; those made before are destroyed.

        Args:
            take: Called with every frame, on a thread of the executor.
        """
        self.destroy()
        if not self._decoder_told:
            self._decoder_told = True
            self._tell_decoder()
        settings = self._parameters.current
        if settings.target_frame and settings.use_depth:
            self._transforms = TransformListener(self._node, settings.target_frame)
        elif settings.target_frame:
            self._node.get_logger().warning(
                "target_frame changes nothing without use_depth: set use_depth: true, or leave target_frame empty"
            )
        with self._lock:
            for name in self._parameters.current.camera_names:
                self._cameras[name] = Camera(
                    self._node,
                    name,
                    self._parameters,
                    self._statistics,
                    self._reporter,
                    take,
                    lambda: self._transforms,
                )

    def _tell_decoder(self) -> None:
        state, log = bridge_state(), self._node.get_logger()
        if state.note:
            log.warning(state.note)
        if state.encodings:
            log.info(f"cv_bridge converts raw images of {len(state.encodings)} encodings, acs those of the others")

    def destroy(self) -> None:
        """Unsubscribe from all cameras and destroy their topics."""
        self.close()
        with self._lock:
            cameras, self._cameras = self._cameras, {}
            transforms, self._transforms = self._transforms, None
        if transforms is not None:
            transforms.destroy()
        for camera in cameras.values():
            camera.destroy()

    def open(self, wants_frames: Callable[[str], bool], is_answering: Callable[[], bool] = lambda: False) -> None:
        """Subscribe to the cameras for which ``wants_frames(name)`` is true, now and after each
        :meth:`demand_changed`; answers are published from now on. While ``is_answering()`` is true, depth images and
        camera infos are still received."""
        with self._lock:
            self._wants_frames, self._is_answering = wants_frames, is_answering
            for camera in self._cameras.values():
                camera.forget()
        self._adjust()

    def close(self) -> None:
        """Unsubscribe from all cameras and publish nothing more."""
        with self._lock:
            self._wants_frames = None
            for camera in self._cameras.values():
                camera.ignore()
        with self._showing:
            pass  # wait for a picture that is being sent

    @property
    def inputs(self) -> Sequence[tuple[str, str, float | None]]:
        """Name and image topic of each camera, and since when it is subscribed to, in steady seconds."""
        with self._lock:
            return [(c.name, c.topic, c.since) for c in self._cameras.values()]

    @property
    def input_topics(self) -> dict[str, str]:
        """See :attr:`Camera.input_topics`; of all cameras."""
        with self._lock:
            return {name: topic for camera in self._cameras.values() for name, topic in camera.input_topics.items()}

    def other_type(self, camera: str) -> str:
        """See :attr:`Camera.other_type`; empty for a camera that does not exist."""
        with self._lock:
            found = self._cameras.get(camera)
        return found.other_type if found is not None else ""

    def other_transport(self, camera: str) -> str:
        """See :attr:`Camera.other_transport`; empty for a camera that does not exist."""
        with self._lock:
            found = self._cameras.get(camera)
        return found.other_transport if found is not None else ""

    def introduce(self, method: str, database: str) -> None:
        """Publish a latched VisionInfo: the method, and what the class ids are."""
        self._infos += 1
        header = Header(stamp=self._node.get_clock().now().to_msg())
        self._info.publish(
            VisionInfo(header=header, method=method, database_location=database, database_version=self._infos)
        )

    def why_no_image(self, camera: str) -> str:
        """Why no frame of ``camera`` came, for the message of a goal that waited for one."""
        with self._lock:
            found = self._cameras.get(camera)
        if found is None:
            return f"there is no camera {camera[:40]!r}"
        problems = self._statistics.snapshot().camera(camera)
        publishers = self._node.count_publishers(found.topic)
        if problems.image_qos and publishers:
            return problems.image_qos
        if problems.image:
            return f"the last image on {found.topic} could not be used: {problems.image}"
        if found.other_type:
            return f"{found.topic} is published as {found.other_type}, not as image_transport says"
        if publishers:
            return f"a publisher is on {found.topic}, but sends nothing"
        other = found.other_transport
        return f"nobody publishes on {found.topic}{other and f'; {other}'}"

    # --- answers -----------------------------------------------------------------------------------------------------

    def attention_wanted(self, camera: str) -> bool:
        """Whether an attention picture of ``camera`` has a subscriber."""
        found = self._cameras.get(camera)
        return found is not None and found.outputs.attention_wanted

    def expect_companions(self, frame: Frame) -> Frame:
        """Call this before the model works on ``frame``: see :meth:`.FrameSynchronizer.expect`."""
        found = self._cameras.get(frame.camera)
        return (
            found.synchronizer.expect(frame) if found is not None and found.places_wanted and not frame.own else frame
        )

    def add_companions(self, frame: Frame) -> Frame:
        """The frame with the depth image, camera info and transform that belong to it, where places are published."""
        found = self._cameras.get(frame.camera)
        return (
            found.synchronizer.complete(frame) if found is not None and found.places_wanted and not frame.own else frame
        )

    def compose(self, frame: Frame, image: np.ndarray, results: tuple[GroundingResult, ...]) -> ComposedMessages:
        """The messages about ``results``; on the model's thread."""
        return self._cameras[frame.camera].outputs.compose(frame, image, results, self._parameters.current)

    def publish(self, answer: FrameAnswer) -> None:
        """Publish an answer, unless the node was deactivated meanwhile; on the model's thread."""
        with self._lock:
            found = self._found(answer)
            if found is None:
                return
            if not answer.frame.own:
                found.identify(answer.frame, answer.messages, tuple(r.phrase for r in answer.results))
            for publisher, message in answer.messages.sends:
                publisher.publish(message)

    def show(self, answer: FrameAnswer) -> None:
        """Draw and publish the pictures that have a subscriber, unless the node was deactivated meanwhile."""
        found = self._found(answer)
        if found is None:
            return
        pictures = found.outputs.pictures_of(
            answer.frame.header, answer.image, answer.results, self._parameters.current.jpeg_quality
        )
        with self._showing:
            if self._found(answer) is found:
                for publisher, message in pictures:
                    publisher.publish(message)

    def _found(self, answer: FrameAnswer) -> Camera | None:
        """The camera of an answer; None once nothing may be published."""
        with self._lock:
            return self._cameras.get(answer.frame.camera) if self._wants_frames is not None else None

    def demand_changed(self) -> None:
        """Check soon, on the executor, which cameras to subscribe to. Any thread; does not wait."""
        self._look.trigger()

    def forget(self) -> None:
        """Drop everything kept of earlier frames, because the clock jumped."""
        with self._lock:
            for camera in self._cameras.values():
                camera.forget()
                camera.synchronizer.time_went_back()

    def _adjust(self, *_: Any) -> None:
        # One after the other, from the question to what follows: an activation and the executor may both be here, and
        # what the earlier one was told must not undo what the later one did. The last one is told what holds.
        with self._adjusting:
            with self._lock:
                names, wants_frames = list(self._cameras), self._wants_frames
            # Called without _lock: the query manager holds its own lock while it hands frames to the model's thread,
            # which may be waiting for _lock to publish.
            wanted = {name for name in names if wants_frames is not None and wants_frames(name)}
            # After wants_frames: a frame that is no longer wanted may have been taken.
            is_answering = self._is_answering()
            with self._lock:
                for name, camera in self._cameras.items():
                    if self._wants_frames is not None and name in wanted:
                        camera.listen()
                    elif self._wants_frames is not None and is_answering and camera.places_wanted:
                        camera.ignore_images()
                    elif camera.subscribed:
                        camera.ignore()
