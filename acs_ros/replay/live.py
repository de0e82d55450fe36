"""Plays a bag to a node over DDS at the recorded rate and collects the answers.

Where the phrases are those of each frame's labels, the bag waits for the answer before the phrase changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from acs_msgs.msg import CandidateArray
from lifecycle_msgs.msg import Transition
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from acs_core.types import ShouldStop
from acs_ros.bags.frames import FrameAt, with_stamp
from acs_ros.client.background_node import SETTLE_S, BackgroundNode
from acs_ros.client.domains import own_domain
from acs_ros.client.node_client import NodeClient
from acs_ros.client.node_process import NodeProcess
from acs_ros.conversions.images import NS
from acs_ros.dds import apply_profile
from acs_ros.errors import NodeTrouble
from acs_ros.replay.material import BagData
from acs_ros.replay.replies import Fate, FrameReplies, Heard, Replies, Sent, key_of, match, recorded

POLL_S = 0.002
LOAD_S, QUERY_S, STATUS_S = 900.0, 10.0, 5.0
COUNTERS = ("images", "bad_images", "replaced", "failed")  # of /diagnostics
GRACE_S = 0.2


class Player:
    """Publishes frames on ``image_topic`` and collects ``NODE/detections`` and ``NODE/candidates``, in a context of its
    own; a context manager."""

    def __init__(self, node: str, image_topic: str, compressed: bool, domain_id: int | None = None) -> None:
        self._peer = BackgroundNode("acs_replay", domain_id)
        self._node = self._peer.node
        kind = CompressedImage if compressed else Image
        self.image_topic = image_topic
        frames = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        answers = QoSProfile(depth=500, reliability=ReliabilityPolicy.RELIABLE)
        self._images = self._node.create_publisher(kind, image_topic, frames)
        self.heard: list[Heard] = []
        self.candidates: list[CandidateArray] = []
        self._outputs = (f"{node}/detections", f"{node}/candidates")
        self._node.create_subscription(Detection2DArray, self._outputs[0], self._on_detections, answers)
        self._node.create_subscription(CandidateArray, self._outputs[1], self.candidates.append, answers)
        self._peer.start()

    def __enter__(self) -> Player:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._peer.close()

    def wait_for_node(self, timeout: float, alive: Callable[[], None] = lambda: None) -> None:
        """Wait until the images have a subscriber and the detections a publisher.

        Raises:
            NodeTrouble: not within ``timeout`` seconds; says what is missing.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._images.get_subscription_count() and self._node.count_publishers(self._outputs[0]):
                time.sleep(SETTLE_S)
                return
            alive()
            time.sleep(POLL_S)
        if not self._node.count_publishers(self._outputs[0]):
            raise NodeTrouble(
                f"nobody publishes {self._outputs[0]}: is the node configured and active? --node names another one, "
                "--start-node starts one (and the same ROS_DOMAIN_ID must hold here and there)"
            )
        raise NodeTrouble(
            f"nobody hears images on {self.image_topic}: --publish-to names the topic that the node hears; a node with "
            "the other image_transport hears ~/image or ~/image/compressed, not both"
        )

    def send(self, frame: FrameAt, phrases: tuple[str, ...], data: bytes) -> Sent:
        """Publish a recorded message, unchanged but for the stamp where the frame has one of its own."""
        if frame.own_stamp_ns is not None:
            data = with_stamp(data, frame.own_stamp_ns)
        at = time.monotonic()
        self._images.publish(data)
        return Sent(frame, phrases, at)

    def _on_detections(self, msg: Any) -> None:
        self.heard.append(Heard(msg, time.monotonic()))


class PlaybackClock:
    """Times at which frames are due: the bag's intervals divided by ``rate``, from the first frame on."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._start: tuple[float, int] | None = None

    def restart(self, time_ns: int) -> None:
        """Make the frame that the bag has at ``time_ns`` due now, and later ones after it."""
        self._start = self._clock(), time_ns

    def left(self, time_ns: int) -> float:
        """Seconds until the frame that the bag has at ``time_ns`` is due; 0 or less: now."""
        if self._start is None:
            self._start = self._clock(), time_ns
        began, first = self._start
        return began + (time_ns - first) / NS / self._rate - self._clock()


@dataclass(frozen=True)
class LiveOptions:
    """Settings of a live run: full name of the ``node``, its image topic ("": NODE/image), ``rate`` over the recorded
    speed; timeouts in seconds for the node (``wait``) and for answers after the newest frame (``quiet``). ``start`` are
    arguments of a node to start (None: it runs already), whose output goes to ``log``.
    ``lockstep``: each frame is sent when the one before has its answer, at no pace."""

    node: str
    publish_to: str
    rate: float
    wait: float
    quiet: float
    start: tuple[str, ...] | None
    log: Path
    lockstep: bool = False


class LiveRun:
    """Plays a bag once. ``progress`` is called for every frame, ``say`` with messages for the user."""

    def __init__(
        self,
        options: LiveOptions,
        should_stop: ShouldStop,
        progress: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._options, self._should_stop, self._progress, self._say = options, should_stop, progress, say
        self._process: NodeProcess | None = None

    def run(self, material: BagData) -> Replies:
        """Play all frames and wait for the outstanding answers.

        Raises:
            NodeTrouble: the node is not there, not active, or ended; says what to do.
        """
        options, compressed = self._options, material.topics.compressed
        apply_profile()
        topic = options.publish_to or f"{options.node}/image{'/compressed' if compressed else ''}"
        with (
            own_domain() if options.start is not None else nullcontext() as domain,
            self._node(domain),
            NodeClient(options.node, domain, self._check) as client,
        ):
            with self._explained():
                self._bring_up(client)
            with Player(options.node, topic, compressed, domain) as player:
                with self._explained():
                    player.wait_for_node(options.wait, self._check)
                before = self._counters(client)
                sent: list[Sent] = []
                problem = ""
                try:
                    self._play(material, client, player, sent)
                    self._listen(sent, player)
                    after = self._counters(client)
                except KeyboardInterrupt:
                    after = {}
                except NodeTrouble as error:  # what came before counts
                    after, problem = {}, str(error)
                told = match(sent, player.heard, player.candidates)
        stopped = self._should_stop()
        return Replies(
            _all_frames(material, told, stopped or bool(problem)), stopped, problem, _facts(sent, before, after)
        )

    def _node(self, domain: int | None) -> AbstractContextManager[object]:
        if self._options.start is None:
            return nullcontext()
        namespace, _, name = self._options.node.rpartition("/")
        remap = ["-r", f"__node:={name}", *(["-r", f"__ns:={namespace}"] if namespace else [])]
        self._process = NodeProcess([*self._options.start, *remap], self._options.log, {"ROS_DOMAIN_ID": str(domain)})
        return self._process

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Shows the last lines of a node that was started here and does not come up."""
        try:
            yield
        except NodeTrouble as error:
            if self._process is None:
                raise
            self._say(f"the last lines of the node:\n{self._process.last_lines()}")
            raise NodeTrouble(f"{error}; all of its output is in {self._process.log}") from error

    def _check(self) -> None:
        if self._should_stop():
            raise KeyboardInterrupt
        if self._process is not None and self._process.exit_code is not None:
            last = self._process.last_lines(3).replace("\n", "; ")
            raise NodeTrouble(f"the node ended with exit code {self._process.exit_code}: {last} ({self._process.log})")

    def _bring_up(self, client: NodeClient) -> None:
        options = self._options
        try:
            client.wait_for_services(options.wait)
        except NodeTrouble as error:
            raise NodeTrouble(
                f"there is no node {options.node}: start it, name another with --node, or use --start-node"
            ) from error
        if options.start is not None:
            self._say("loading the model")
            client.change_state(Transition.TRANSITION_CONFIGURE, LOAD_S)
            client.change_state(Transition.TRANSITION_ACTIVATE, options.wait)
        elif (state := client.state(options.wait)) != "active":
            raise NodeTrouble(f"{options.node} is {state}: ros2 lifecycle set {options.node} configure, then activate")

    def _play(self, material: BagData, client: NodeClient, player: Player, sent: list[Sent]) -> None:
        asked = {a.frame.number: a.phrases for a in material.plan.asked if a.phrases}
        frames = [a.frame for a in material.plan.asked if a.phrases]
        now: tuple[str, ...] = ()
        pace = PlaybackClock(self._options.rate)
        due = {a.frame.number: at for a, at in zip(material.plan.asked, material.due, strict=True)}
        for frame, data in recorded(material.bag, material.topics, frames):
            while not self._options.lockstep and (left := pace.left(due[frame.number])) > 0:
                self._check()
                time.sleep(min(left, 0.05))
            self._check()
            if self._options.lockstep:
                self._listen(sent, player)
            if asked[frame.number] != now:
                if now and not material.plan.recorded:
                    # A robot would not change its query with every frame, which makes the model start over each time.
                    self._listen(sent, player)
                    pace.restart(due[frame.number])
                now = asked[frame.number]
                client.ask_for("; ".join(now), QUERY_S)
            sent.append(player.send(frame, now, data))
            self._progress()

    def _listen(self, sent: Sequence[Sent], player: Player) -> None:
        """Wait until the newest frame is answered, or no answer came for ``quiet`` seconds."""
        last = time.monotonic()
        while sent and not self._should_stop():
            if any(key_of(heard.msg) == sent[-1].frame.key for heard in player.heard[-3:]):
                time.sleep(GRACE_S)  # its candidates travel on a topic of their own
                return
            if player.heard:
                last = max(last, player.heard[-1].at)
            if time.monotonic() - last > self._options.quiet:
                return
            self._check()
            time.sleep(POLL_S)

    def _counters(self, client: NodeClient) -> dict[str, int]:
        """Current counters of the node; empty where nothing comes on /diagnostics."""
        values = client.fresh_values(STATUS_S)
        return {name: int(values[name]) for name in COUNTERS if values.get(name, "").isdecimal()}


def _all_frames(material: BagData, told: Sequence[FrameReplies], early: bool) -> tuple[FrameReplies, ...]:
    """Replies for every frame of the bag; ``early``: playing ended before the end of the bag; a
    frame that was not played although it did not is one that could not be read again."""
    by_number = {reply.frame.number: reply for reply in told}
    bare = Fate.NOT_REACHED if early else Fate.UNREADABLE
    return tuple(
        by_number.get(a.frame.number) or FrameReplies(a.frame, bare if a.phrases else Fate.NOT_ASKED, a.phrases)
        for a in material.plan.asked
    )


def _facts(sent: Sequence[Sent], before: dict[str, int], after: dict[str, int]) -> dict[str, str]:
    """Counts of the node itself while the bag was played."""
    grown = {name: after[name] - before[name] for name in COUNTERS if name in after and name in before}
    if not grown:
        return {"frames published": str(len(sent))}
    words = {
        "images": "frames that reached the node",
        "bad_images": "frames the node could not use",
        "replaced": "frames replaced in the node by newer ones",
        "failed": "frames the node failed on",
    }
    found = {"frames published": str(len(sent)), **{words[name]: str(value) for name, value in grown.items()}}
    return found | {"frames lost on the way": str(len(sent) - grown["images"])}
