"""Load: a node under one flood after the other, and whether it kept its word."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from acs_ros.dds import apply_profile
from acs_ros.files import shipped_file
from acs_ros.node_client import NodeTrouble, own_domain
from acs_ros.node_process import NodeProcess
from acs_ros.peer import SETTLE_S
from acs_stress.crowd import Flooder, crowd, finish, flood, floods
from acs_stress.judging import Check, Held, counters, difference
from acs_stress.memory_watch import MemoryWatch, cpu_seconds, machine_seconds
from acs_stress.robot import NODE, Robot

APPEAR_S, LOAD_S, SERVICE_S = 60.0, 300.0, 20.0
CONNECT_S = 90.0  # for a crowd that starts at once on few cores
GRACE_S = 120.0  # beyond the seconds of a flood, until all have told what they did
REST_S = 2.0  # after which a node without work holds what it holds for good
REST_PATIENCE_S = 60.0
PHRASE = "key"


@dataclass(frozen=True)
class Plan:
    """What is run. ``size``: (width, height) of the frames; ``subscribers``: of each kind. ``service_ms``, ``answer_s``
    and ``memory_mb`` are the bars."""

    cameras: int = 4
    hz: float = 30.0
    size: tuple[int, int] = (1920, 1080)
    seconds: float = 20.0
    query_rate: float = 1000.0
    goals: int = 100
    subscribers: int = 2
    instant: bool = False
    model: str | None = None
    params: Path | None = None
    service_ms: float = 100.0
    answer_s: float = 10.0
    memory_mb: float = 600.0
    log: Path | None = None

    @property
    def camera_names(self) -> list[str]:
        """Of the node's cameras."""
        return [f"cam_{k + 1}" for k in range(self.cameras)]

    def ros_args(self) -> list[str]:
        """The node's arguments."""
        args = ["-p", f"cameras:='{' '.join(self.camera_names)}'", "-p", "diagnostics_period:=0.5"]
        if not self.instant:
            args = ["--params-file", str(self.params or shipped_file("config/tiny_internvl.yaml")), *args]
        return [*args, "-p", f"model:={self.model}"] if self.model else args


@dataclass(frozen=True)
class Used:
    """Processor time during a flood, in seconds: of the flood itself, the node, and everybody on the machine."""

    seconds: float
    node: float
    machine: float


@dataclass
class Seen:
    """What a scenario saw. ``told``: what each flooder said at the end, in their order; ``delta``: what the node
    counted meanwhile; ``newest_s``: from sending the last frame of each camera to its answer, None: there was none."""

    told: list[dict[str, Any]]
    delta: dict[str, int]
    memory: Held
    newest_s: list[float | None]
    heard: int
    used: Used

    def of(self, flooders: Sequence[Flooder], role: str) -> list[dict[str, Any]]:
        """What those in ``role`` said."""
        return [told for flooder, told in zip(flooders, self.told, strict=True) if flooder.role == role]


@dataclass
class Outcome:
    """One scenario: what was wanted and reached and who used the processors, in words, and what was checked."""

    name: str
    load: str
    used: str
    checks: list[Check] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        """Whether every promise was kept."""
        return all(check.kept for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return {**asdict(self), "kept": self.kept}


@dataclass(frozen=True)
class Stage:
    """What every scenario works with."""

    plan: Plan
    robot: Robot
    pid: int

    def flooder(self, role: str, **options: Any) -> Flooder:
        """One more who loads the node."""
        return Flooder(role, options, self.robot.alive)

    def camera(self, name: str, hz: float) -> Flooder:
        """A camera of the plan's size and seconds."""
        topic = f"{NODE}/{name}/image"
        return self.flooder("camera", topic=topic, size=self.plan.size, hz=hz, seconds=self.plan.seconds)

    def caller(self, phrases: Sequence[str] = (PHRASE,)) -> Flooder:
        """Somebody who uses the services meanwhile."""
        return self.flooder("services", target=NODE, seconds=self.plan.seconds, phrases=list(phrases))

    def watch(
        self,
        flooders: Sequence[Flooder],
        meanwhile: Callable[[], None] = lambda: None,
        dying: Sequence[Flooder] = (),
    ) -> Seen:
        """Let them all flood the node, and look at what comes of it. ``meanwhile`` runs in the middle, and ends those
        who are ``dying``.

        Raises:
            NodeTrouble: the node or a flooder is gone, or the node does not come to rest.
        """
        robot, patience = self.robot, self.plan.seconds + GRACE_S
        robot.ask_for((PHRASE,), SERVICE_S)
        with MemoryWatch(self.pid) as memory:
            with crowd([*flooders, *dying], CONNECT_S):
                # Once all have met the node: callers do so by calls, which it counts.
                before, answered = self.at_rest(), len(robot.answered)
                began = _clocks(self.pid)
                flood([*flooders, *dying])
                meanwhile()
                floods(flooders, patience)
                used = _used_since(began, self.pid)
                told = finish(flooders, patience)
                newest = [self._answer_after(one["stamp"]) for one in told if "stamp" in one]
                after = self.at_rest()
            time.sleep(REST_S)
        return Seen(told, difference(after, before), memory.held, newest, len(robot.answered) - answered, used)

    def warm_up(self) -> None:
        """A first frame of each camera: what comes late, like imports, is no part of any flood.

        Raises:
            NodeTrouble: one was not answered.
        """
        self.robot.ask_for((PHRASE,), SERVICE_S)
        films = [
            self.flooder("camera", topic=f"{NODE}/{name}/image", size=self.plan.size, hz=1.0, seconds=0.1)
            for name in self.plan.camera_names
        ]
        with crowd(films, CONNECT_S):
            time.sleep(SETTLE_S)
            for film in films:
                (told,) = finish([film], GRACE_S)
                self.robot.wait_for_answer(told["stamp"], GRACE_S)

    def at_rest(self) -> dict[str, int]:
        """The node's counters once it has nothing left to do.

        Raises:
            NodeTrouble: it always has.
        """
        deadline = time.monotonic() + REST_PATIENCE_S
        last: dict[str, int] | None = None
        while time.monotonic() < deadline:
            self.robot.fresh_status(SERVICE_S)
            now = counters(self.robot.values)
            if now == last and not self.robot.values["busy_s"]:
                return now
            last = now
        raise NodeTrouble(f"the node did not come to rest within {REST_PATIENCE_S:g} s; it says: {self.robot.status}")

    def _answer_after(self, stamp: int) -> float | None:
        sent = time.monotonic() - (time.time_ns() - stamp) / 1e9
        try:
            return self.robot.wait_for_answer(stamp, self.plan.answer_s) - sent
        except NodeTrouble:
            self.robot.alive()
            return None


def _clocks(pid: int) -> Used:
    return Used(time.monotonic(), cpu_seconds(pid), machine_seconds())


def _used_since(began: Used, pid: int) -> Used:
    now = _clocks(pid)
    return Used(now.seconds - began.seconds, now.node - began.node, now.machine - began.machine)


@contextmanager
def loaded_node(plan: Plan) -> Iterator[Stage]:
    """A node that is active and has answered a frame of each camera, and those who watch it.

    Raises:
        NodeTrouble: it does not come up.
    """
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    apply_profile()
    domain = own_domain()
    os.environ["ROS_DOMAIN_ID"] = str(domain)  # for the flooders, which are processes of their own
    module = "acs_bench.instant_node" if plan.instant else "acs_ros.main"
    env = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    with tempfile.TemporaryDirectory() as folder:
        process = NodeProcess(plan.ros_args(), plan.log or Path(folder) / "node.log", env, module=module)

        def alive() -> None:
            if process.exit_code is not None:
                raise NodeTrouble(f"the node's process ended with exit code {process.exit_code}")

        with process:
            try:
                with Robot(domain, alive, plan.camera_names, strangers=True) as robot:
                    robot.meet(APPEAR_S)
                    found = robot.state(SERVICE_S)
                    if found != "unconfigured":
                        raise NodeTrouble(f"a node {NODE} that is {found} answers: another one runs on domain {domain}")
                    robot.change("configure", LOAD_S)
                    robot.change("activate", SERVICE_S)
                    stage = Stage(plan, robot, process.pid)
                    stage.warm_up()
                    yield stage
            except NodeTrouble as error:
                raise NodeTrouble(f"{error}\n{process.last_lines()}") from error
