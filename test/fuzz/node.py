"""Sends senseless messages of valid types to a running grounding node, over DDS, on every way in that the graph shows.

``python -m fuzz.node --cases 10000 --seed 1`` starts a node with a model that answers at once, fuzzes it and says how
it took it. The topics it subscribes to and all its services, those of actions, parameters and the lifecycle with them,
are read from the graph, and their values from the message definitions: a new topic is fuzzed without an edit.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import GetParameters, ListParameters, SetParameters
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from acs_core.errors import AcsError
from acs_core.option_types import StrictParser, whole_option
from acs_core.terminal import print_error
from acs_ros.client.background_node import BackgroundNode
from acs_ros.client.domains import private_domain
from acs_ros.client.node_client import NodeClient
from acs_ros.client.node_process import NodeProcess
from acs_ros.dds import apply_profile
from acs_ros.errors import NodeTrouble
from fuzz.messages import MessageMaker
from fuzz.types import class_of

NAME, SPACE = "grounding", "/"
TARGET = f"/{NAME}"
PATIENCE_S = 60.0  # for what must come; nothing is timed
SETTLE_CASES = 25  # topics may appear and go as the node's state and use_sim_time change
STARTING = {"unconfigured": Transition.TRANSITION_CONFIGURE, "inactive": Transition.TRANSITION_ACTIVATE}
ENDING = {"shutdown", "destroy"}  # a transition that a peer may ask for, and after which a node answers nothing
WORDS = (
    "key",
    "red mug",
    "",
    "rgb8",
    "mono8",
    "16UC1",
    "32FC1",
    "bgr8",
    "jpeg",
    "png",
    "camera",
    "configure",
    "activate",
)


@dataclass
class Found:
    """What a campaign did, and how the node took it."""

    sent: Counter[str] = field(default_factory=Counter)  # by topic or service; a topic's had a subscriber
    unheard: Counter[str] = field(default_factory=Counter)  # not sent: the node had left the topic
    not_sent: Counter[str] = field(default_factory=Counter)  # rclpy refused to send it
    unanswered: list[str] = field(default_factory=list)  # services that owe an answer
    callback_errors: int = 0  # as counted on /diagnostics
    last_error: str = ""


class NodeFuzzer:
    """Fuzzes the node TARGET on ``domain``; ``alive`` raises when its process has ended."""

    def __init__(self, domain: int, seed: int, alive: Callable[[], None]) -> None:
        self._rng = random.Random(seed)
        self._alive = alive
        self._peer = BackgroundNode("fuzzer", domain).start()
        self._node = self._peer.node
        self._publishers: dict[tuple[str, str], Any] = {}
        self._clients: dict[tuple[str, str], Any] = {}
        self._maker = MessageMaker(self._rng, WORDS)
        self._found = Found()

    def close(self) -> None:
        """Leave DDS."""
        self._peer.close()

    def run(self, cases: int) -> Found:
        """Send ``cases`` messages in turn to all ways in.

        Raises:
            NodeTrouble: The node's process ended, or its services cannot be found.
        """
        self._maker = MessageMaker(self._rng, (*WORDS, *self.parameter_names()))
        self._known_cases()
        ways: list[tuple[str, str, bool]] = []
        for case in range(cases):
            if not ways:
                self._bring_up()
                ways = self.ways_in()
                self._rng.shuffle(ways)
            self._send(*ways.pop())
            if case % SETTLE_CASES == 0:
                self._alive()
        return self._found

    def ways_in(self) -> list[tuple[str, str, bool]]:
        """Name, type and whether it is a service, of every topic and service of the node at present."""
        topics = self._node.get_subscriber_names_and_types_by_node(NAME, SPACE)
        services = self._node.get_service_names_and_types_by_node(NAME, SPACE)
        return sorted(
            [(name, kind, False) for name, kinds in topics for kind in kinds]
            + [(name, kind, True) for name, kinds in services for kind in kinds]
        )

    def parameter_names(self) -> list[str]:
        """All parameters of the node."""
        return list(self.call(ListParameters, "list_parameters").result.names)

    def call(self, kind: Any, name: str, **fields: Any) -> Any:
        """The answer of a service of the node to a request that makes sense."""
        client = self._client(f"{TARGET}/{name}", kind)
        future = client.call_async(kind.Request(**fields))
        self._wait(future.done, f"an answer of {name}")
        return future.result()

    def _known_cases(self) -> None:
        """What ended the process once, before anything else."""
        self._bring_up()
        for kind in (10, 200):
            wrong = Parameter(name="samples", value=ParameterValue(type=kind))
            self.call(SetParameters, "set_parameters", parameters=[wrong])
        self._wait(lambda: any(name == "/clock" for name, _, _ in self.ways_in()), "/clock")
        clock = Clock()
        clock.clock.sec = -1
        if not self._publish("/clock", Clock, clock):
            raise NodeTrouble("the node left /clock")

    def _bring_up(self) -> None:
        """Make the node listen to its cameras and to /clock; what was sent before may have ended that."""
        sim = Parameter(name="use_sim_time", value=ParameterValue(type=1, bool_value=True))
        self.call(SetParameters, "set_parameters", parameters=[sim])
        self.call(SetBool, "pause", data=False)
        for before, transition in STARTING.items():
            if self.call(GetState, "get_state").current_state.label == before:
                self.call(ChangeState, "change_state", transition=Transition(id=transition))

    def _send(self, name: str, kind: str, is_service: bool) -> None:
        made = class_of(kind)
        message = self._maker.make(made.Request if is_service else made)
        if isinstance(message, ChangeState.Request) and _ends_the_node(message):
            return
        try:
            if not is_service:
                heard = self._publish(name, made, message)
                (self._found.sent if heard else self._found.unheard)[name] += 1
                return
            client = self._client(name, made)
            self._found.sent[name] += 1
            future = client.call_async(message)
        except (UnicodeError, ValueError, TypeError, SystemError):  # what rclpy does not send, nobody can
            self._found.not_sent[name] += 1
            return
        if "/_action/" in name:  # a result is there when its goal ends
            return
        with contextlib.suppress(TimeoutError):
            self._wait(future.done, f"an answer of {name}")
        if not future.done():
            self._found.unanswered.append(f"{name}: {message}"[:500])
            client.remove_pending_request(future)

    def _publish(self, name: str, kind: Any, message: Any) -> bool:
        """Publish to the node; False: it has left the topic, as it leaves a camera when its state changes.

        Raises:
            TimeoutError: The graph shows that it subscribes, and it never hears.
        """
        key = (name, kind.__name__)
        if key not in self._publishers:
            qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
            self._publishers[key] = self._node.create_publisher(kind, name, qos)
        publisher = self._publishers[key]
        self._wait(lambda: publisher.get_subscription_count() or not self._is_heard(name), f"a subscriber of {name}")
        if not publisher.get_subscription_count():
            return False
        publisher.publish(message)
        return True

    def _is_heard(self, name: str) -> bool:
        """Whether the graph shows that the node subscribes to a topic at present."""
        return any(found.node_name == NAME for found in self._node.get_subscriptions_info_by_topic(name))

    def _client(self, name: str, kind: Any) -> Any:
        key = (name, kind.__name__)
        if key not in self._clients:
            client: Any = self._node.create_client(kind, name)
            self._wait(client.service_is_ready, name)
            self._clients[key] = client
        return self._clients[key]

    def _wait(self, condition: Callable[[], Any], what: str, patience: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + patience
        while not condition():
            self._alive()
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {patience:g} s in vain for {what}")
            time.sleep(0.001)


def _ends_the_node(request: ChangeState.Request) -> bool:
    asked = request.transition
    ids = (
        Transition.TRANSITION_DESTROY,
        Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
        Transition.TRANSITION_INACTIVE_SHUTDOWN,
        Transition.TRANSITION_ACTIVE_SHUTDOWN,
    )
    return asked.id in ids or asked.label in ENDING


@contextmanager
def running_node(domain: int, log: Path, transport: str = "raw") -> Iterator[NodeProcess]:
    """The node, active, with a model that answers at once and all inputs that there are for this image_transport.

    Raises:
        NodeTrouble: It does not come up.
    """
    apply_profile()
    given = ("autostart:=false", "diagnostics_period:=0.2", "use_depth:=true", "tracking:=true")
    arguments = [word for one in (*given, f"image_transport:={transport}") for word in ("-p", one)]
    env = {"ROS_DOMAIN_ID": str(domain)}
    with NodeProcess(arguments, log, env, module="acs_ros.stress.instant_node") as process:
        with NodeClient(TARGET, domain, lambda: check_alive(process)) as client:
            client.wait_for_services(PATIENCE_S)
            _activate(client)
        yield process


def check_alive(process: NodeProcess) -> None:
    """Raise NodeTrouble when the process has ended."""
    if process.exit_code is not None:
        raise NodeTrouble(f"the node ended with exit code {process.exit_code}:\n{process.last_lines()}")


def fuzz_node(process: NodeProcess, domain: int, cases: int, seed: int) -> Found:
    """Fuzz the node, give it back its parameters and ask it something; what was found.

    Raises:
        NodeTrouble: It ended, or does not answer any more.
    """
    fuzzer = NodeFuzzer(domain, seed, lambda: check_alive(process))
    try:
        names = fuzzer.parameter_names()
        before = fuzzer.call(GetParameters, "get_parameters", names=names).values
        found = fuzzer.run(cases)
        with NodeClient(TARGET, domain, lambda: check_alive(process)) as client:
            client.wait_for_services(PATIENCE_S)
            _make_unconfigured(client)
            for name, value in zip(names, before, strict=True):
                fuzzer.call(SetParameters, "set_parameters", parameters=[Parameter(name=name, value=value)])
            client.set_parameter("image_transport", "raw", PATIENCE_S)
            fuzzer.call(SetBool, "pause", data=False)
            _activate(client)
            client.wait_for_topics(PATIENCE_S)
            client.ask_for("key", PATIENCE_S)
            picture = np.full((48, 64, 3), 90, np.uint8)
            stamps = iter(range(1, 60))  # a frame may be lost: best effort
            while client.ask_about(_header(next(stamps)), picture, "key", 2.0) is None:
                pass
            values = client.fresh_values(PATIENCE_S)
    finally:
        fuzzer.close()
    found.callback_errors = int(values["callback_errors"])
    found.last_error = values["last_callback_error"]
    return found


def _header(second: int) -> Header:
    made = Header(frame_id="camera")
    made.stamp.sec = second
    return made


def _activate(client: NodeClient) -> None:
    client.change_state(Transition.TRANSITION_CONFIGURE, PATIENCE_S)
    client.change_state(Transition.TRANSITION_ACTIVATE, PATIENCE_S)


def _make_unconfigured(client: NodeClient) -> None:
    if client.state(PATIENCE_S) == "active":
        client.change_state(Transition.TRANSITION_DEACTIVATE, PATIENCE_S)
    if client.state(PATIENCE_S) == "inactive":
        client.change_state(Transition.TRANSITION_CLEANUP, PATIENCE_S)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz a node of its own; exit code 1 when it ended, or owes answers."""
    options = make_parser().parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as folder, private_domain() as domain:
            log = options.log or Path(folder) / "node.log"
            with running_node(domain, log, options.transport) as process:
                found = fuzz_node(process, domain, options.cases, options.seed)
    except AcsError as error:
        print_error("fuzz.node", error)
        return 1
    for name, count in sorted(found.sent.items()):
        unheard = f", {found.unheard[name]} without a subscriber" if found.unheard[name] else ""
        print(f"{name:50} {count:7} sent, {found.not_sent[name]} refused by rclpy{unheard}")
    print(f"exceptions out of callbacks: {found.callback_errors}, the last: {found.last_error!r}")
    for one in found.unanswered:
        print(f"no answer: {one}")
    return 1 if found.unanswered else 0


def make_parser() -> argparse.ArgumentParser:
    """What the command line may hold."""
    parser = StrictParser(prog="python -m fuzz.node", description=__doc__)
    add = parser.add_argument
    add("--cases", type=whole_option(1), default=5000, metavar="N", help="messages to send (5000)")
    add("--seed", type=whole_option(0), default=0, metavar="S", help="the same seed makes the same messages (0)")
    add("--log", type=Path, metavar="FILE", help="the node's output; default: a temporary file")
    add("--transport", default="raw", choices=("raw", "compressed"), help="of the images (raw)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
