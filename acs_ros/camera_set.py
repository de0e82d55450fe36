"""All cameras of the node: subscribed to while somebody waits for their frames, and the outlet of the answers."""

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
from acs_ros.asking import Asker
from acs_ros.cameras import Camera
from acs_ros.frames import Frame
from acs_ros.ledger import Ledger
from acs_ros.outlet import Answer
from acs_ros.outputs import Composed
from acs_ros.parameters import Settings
from acs_ros.qos import LATCHED
from acs_ros.reporter import Reporter


class CameraSet:
    """The cameras of ``node``; an :class:`acs_ros.asking.Outlet`. They exist while the node is configured."""

    def __init__(self, node: Node, settings: Callable[[], Settings], ledger: Ledger, reporter: Reporter) -> None:
        self._node, self._settings, self._ledger, self._reporter = node, settings, ledger, reporter
        self._lock = threading.RLock()  # nothing is subscribed or sent after close() has returned
        self._showing = threading.Lock()  # pictures are megabytes: who needs the other lock must not wait for them
        self._open = False
        self._cameras: dict[str, Camera] = {}
        self._info = node.create_publisher(VisionInfo, "~/vision_info", LATCHED)
        self._infos = 0
        self.asker: Asker | None = None
        # Subscriptions are made and destroyed on the executor, never in a callback of their own.
        self._look = node.create_guard_condition(self._adjust, callback_group=MutuallyExclusiveCallbackGroup())

    def make(self) -> None:
        """Make the cameras that the parameters name, with their topics; ones made before are taken away."""
        self.destroy()
        with self._lock:
            for name in self._settings().camera_names:
                take = self._take
                self._cameras[name] = Camera(self._node, name, self._settings, self._ledger, self._reporter, take)

    def destroy(self) -> None:
        """Take the cameras away."""
        self.close()
        with self._lock:
            cameras, self._cameras = self._cameras, {}
        for camera in cameras.values():
            camera.destroy()

    def open(self) -> None:
        """Listen to the cameras whose frames are wanted, from now on."""
        with self._lock:
            self._open = True
            for camera in self._cameras.values():
                camera.forget()
        self._adjust()

    def close(self) -> None:
        """Listen to none, and send nothing."""
        with self._lock:
            self._open = False
            for camera in self._cameras.values():
                camera.ignore()
        with self._showing:
            pass  # a picture on its way is out

    @property
    def inputs(self) -> Sequence[tuple[str, str, float | None]]:
        """Name and image topic of each camera, and since when it is subscribed to, in steady seconds."""
        with self._lock:
            return [(c.name, c.topic, c.since) for c in self._cameras.values()]

    def introduce(self, method: str, database: str) -> None:
        """Publish VisionInfo for who comes now or later: the method, and what the class ids are."""
        self._infos += 1
        header = Header(stamp=self._node.get_clock().now().to_msg())
        self._info.publish(
            VisionInfo(header=header, method=method, database_location=database, database_version=self._infos)
        )

    def why_no_image(self, camera: str) -> str:
        """Words for somebody who waits for a frame in vain."""
        with self._lock:
            found = self._cameras.get(camera)
        if found is None:
            return f"there is no camera {camera[:40]!r}"
        facts = self._ledger.facts()
        if facts.image_qos_problem:
            return facts.image_qos_problem
        if facts.last_image_problem:
            return f"the last image on {found.topic} could not be used: {facts.last_image_problem}"
        if self._node.count_publishers(found.topic):
            return f"a publisher is on {found.topic}, but sends nothing"
        return f"nobody publishes on {found.topic}"

    # --- the outlet --------------------------------------------------------------------------------------------------

    def attention_wanted(self, camera: str) -> bool:
        """Whether somebody looks at the attention."""
        found = self._cameras.get(camera)
        return found is not None and found.outputs.attention_wanted

    def complete(self, frame: Frame) -> Frame:
        """The frame with its depth image and camera info, where there are some."""
        found = self._cameras.get(frame.camera)
        return frame if found is None or frame.own else found.complete(frame)

    def compose(self, frame: Frame, image: np.ndarray, results: tuple[GroundingResult, ...]) -> Composed:
        """The messages of an answer."""
        return self._cameras[frame.camera].outputs.compose(frame, image, results, self._settings())

    def publish(self, answer: Answer) -> None:
        """Send an answer, unless the node was deactivated meanwhile."""
        composed: Composed = answer.messages
        with self._lock:
            found = self._cameras.get(answer.frame.camera)
            if not self._open or found is None:
                return
            if not answer.frame.own:
                found.identify(answer.frame, composed, tuple(r.phrase for r in answer.results))
            for publisher, message in composed.sends:
                publisher.publish(message)

    def show(self, answer: Answer) -> None:
        """Draw and send the pictures that somebody looks at, unless the node was deactivated meanwhile."""
        found = self._found(answer)
        if found is None:
            return
        pictures = found.outputs.pictures_of(
            answer.frame.header, answer.image, answer.results, self._settings().jpeg_quality
        )
        with self._showing:
            if self._found(answer) is found:
                for publisher, message in pictures:
                    publisher.publish(message)

    def _found(self, answer: Answer) -> Camera | None:
        """The camera of an answer, while it may send anything."""
        with self._lock:
            return self._cameras.get(answer.frame.camera) if self._open else None

    def complain(self, problem: str) -> None:
        """Tell a person that a frame has no answer."""
        self._reporter.log.warning("no answer", problem)

    def demand_changed(self) -> None:
        """Look, soon, which cameras to listen to."""
        self._look.trigger()

    def forget(self) -> None:
        """The time jumped: what is kept of earlier frames is void."""
        with self._lock:
            for camera in self._cameras.values():
                camera.forget()

    def _take(self, frame: Frame) -> None:
        if self.asker is not None:
            self.asker.take_frame(frame)

    def _adjust(self, *_: Any) -> None:
        with self._lock:
            names = list(self._cameras)
        # Asked without our lock: the asker holds its own while it hands frames to the model's thread, which may just
        # now wait for ours to publish. Should the answer be outdated when it is used, somebody has triggered us again.
        wanted = {name for name in names if self.asker is not None and self.asker.wants_frames(name)}
        with self._lock:
            for name, camera in self._cameras.items():
                if self._open and name in wanted:
                    camera.listen()
                elif camera.listening:
                    camera.ignore()
