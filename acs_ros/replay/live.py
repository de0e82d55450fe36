"""The bag played to a node over DDS: what a robot would have got, at its rate.

Where the phrases are those of each frame's labels, the bag waits for the answer before the phrase changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from lifecycle_msgs.msg import Transition

from acs_core.types import ShouldStop
from acs_ros.dds import apply_profile
from acs_ros.node_client import NodeClient, NodeTrouble, own_domain
from acs_ros.node_process import NodeProcess
from acs_ros.replay.matching import Sent, key_of, match
from acs_ros.replay.material import Material
from acs_ros.replay.player import POLL_S, Pace, Player
from acs_ros.replay.replies import Fate, FrameReplies, Replies, recorded

LOAD_S, QUERY_S, STATUS_S = 900.0, 10.0, 5.0
COUNTERS = ("images", "bad_images", "replaced", "failed")  # of /diagnostics
GRACE_S = 0.2


@dataclass(frozen=True)
class LiveOptions:
    """How to play: the ``node`` (full name), the topic it hears images on ("": its own), ``rate`` times the bag's
    speed; how long to ``wait`` for the node, and to go on listening when nothing comes any more (``quiet``), seconds.
    ``start`` are parameters of a node to be started (None: it runs already), whose output goes to ``log``."""

    node: str
    publish_to: str
    rate: float
    wait: float
    quiet: float
    start: tuple[str, ...] | None
    log: Path


class LiveRun:
    """One play of a bag. ``progress`` is called for every frame, ``say`` with what goes on."""

    def __init__(
        self,
        options: LiveOptions,
        should_stop: ShouldStop,
        progress: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._options, self._should_stop, self._progress, self._say = options, should_stop, progress, say
        self._process: NodeProcess | None = None

    def run(self, material: Material) -> Replies:
        """Play, and listen until nothing more is to be expected.

        Raises:
            NodeTrouble: the node is not there, not active, or ended; says what to do.
        """
        options, compressed = self._options, material.topics.compressed
        apply_profile()
        topic = options.publish_to or f"{options.node}/image{'/compressed' if compressed else ''}"
        domain = own_domain() if options.start is not None else None
        with self._node(domain), NodeClient(options.node, domain, self._check) as client:
            self._bring_up(client)
            with Player(options.node, topic, compressed, domain) as player:
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

    def _play(self, material: Material, client: NodeClient, player: Player, sent: list[Sent]) -> None:
        asked = {a.frame.number: a.phrases for a in material.plan.asked if a.phrases}
        frames = [a.frame for a in material.plan.asked if a.phrases]
        now: tuple[str, ...] = ()
        pace, seen = Pace(self._options.rate), set()
        for frame, data in recorded(material.bag, material.topics, frames):
            while (left := pace.left(frame.time_ns)) > 0:
                self._check()
                time.sleep(min(left, 0.05))
            self._check()
            if frame.key in seen:
                continue  # its answer could not be told from that to the one before
            seen.add(frame.key)
            if asked[frame.number] != now:
                if now and not material.plan.recorded:
                    # Nobody asks so: a new question with each frame, and the model begins again each time.
                    self._listen(sent, player)
                    pace.restart(frame.time_ns)
                now = asked[frame.number]
                client.ask_for("; ".join(now), QUERY_S)
            sent.append(player.send(frame, now, data))
            self._progress()

    def _listen(self, sent: Sequence[Sent], player: Player) -> None:
        """Until the last frame, which nothing replaces, is answered, or it has been quiet for long."""
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
        """The node's counters as they are now; none where nothing comes on /diagnostics."""
        values = client.fresh_values(STATUS_S)
        return {name: int(values[name]) for name in COUNTERS if values.get(name, "").isdecimal()}


def _all_frames(material: Material, told: Sequence[FrameReplies], early: bool) -> tuple[FrameReplies, ...]:
    """Every frame of the bag; ``early``: the play ended before its end."""
    by_number = {reply.frame.number: reply for reply in told}
    bare = Fate.NOT_REACHED if early else Fate.NOT_ASKED
    return tuple(
        by_number.get(a.frame.number) or FrameReplies(a.frame, bare if a.phrases else Fate.NOT_ASKED, a.phrases)
        for a in material.plan.asked
    )


def _facts(sent: Sequence[Sent], before: dict[str, int], after: dict[str, int]) -> dict[str, str]:
    """What the node itself counted while the bag was played."""
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
