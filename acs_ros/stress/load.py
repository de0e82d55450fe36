"""Load tests: start a node, run load clients against it, and record its behaviour."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from acs_ros.client.background_node import SETTLE_S
from acs_ros.client.domains import own_domain
from acs_ros.client.node_process import NodeProcess
from acs_ros.dds import apply_profile
from acs_ros.errors import NodeTrouble
from acs_ros.files import shipped_file
from acs_ros.stress.client_processes import (
    ClientProcess,
    connected_clients,
    finish_floods,
    start_flood,
    wait_for_floods,
)
from acs_ros.stress.load_checks import Check, MemoryUsage, counters, difference
from acs_ros.stress.process_usage import MemoryWatch, cpu_seconds, machine_seconds
from acs_ros.stress.robot import NODE, Robot

APPEAR_S, LOAD_S, SERVICE_S = 60.0, 300.0, 20.0
CONNECT_S = 90.0  # many clients start at once on few cores
GRACE_S = 120.0  # beyond the duration of a flood, until all clients have reported
REST_S = 2.0  # seconds after which the memory of an idle node no longer changes
REST_PATIENCE_S = 60.0
PHRASE = "key"


@dataclass(frozen=True)
class LoadConfig:
    """Settings of a load test.

    Attributes:
        cameras: number of cameras.
        hz: frames per second of each camera.
        size: (width, height) of the frames in pixels.
        seconds: duration of a flood.
        query_rate: queries per second.
        goals: number of simultaneous goals.
        subscribers: number of subscribers of each kind.
        instant: whether to use the model that answers at once.
        model: name or folder of the model.
        params: ROS parameter file.
        service_ms: limit on the time of service calls in milliseconds.
        answer_s: limit on the time to the answer about the newest frame in seconds.
        memory_mb: limit on the growth of memory in MB.
        log: log file of the node.
    """

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
        """Names of the node's cameras."""
        return [f"cam_{k + 1}" for k in range(self.cameras)]

    def ros_args(self) -> list[str]:
        """Return the node's arguments."""
        args = ["-p", f"cameras:='{' '.join(self.camera_names)}'", "-p", "diagnostics_period:=0.5"]
        if not self.instant:
            args = ["--params-file", str(self.params or shipped_file("config/tiny_qwen2_5_vl.yaml")), *args]
        return [*args, "-p", f"model:={self.model}"] if self.model else args


@dataclass(frozen=True)
class CpuTime:
    """Times during a flood in seconds: wall time, and processor time of the node and of the whole machine."""

    seconds: float
    node: float
    machine: float


@dataclass
class ScenarioObservation:
    """Measurements of a scenario.

    Attributes:
        client_counts: total counts of each client, in order.
        delta: change of the node's counters.
        memory: memory of the node.
        newest_s: seconds from the last frame of each camera to its answer; None without an answer.
        heard: number of answers received.
        used: processor time.
    """

    client_counts: list[dict[str, Any]]
    delta: dict[str, int]
    memory: MemoryUsage
    newest_s: list[float | None]
    heard: int
    used: CpuTime

    def of(self, clients: Sequence[ClientProcess], role: str) -> list[dict[str, Any]]:
        """Total counts of the clients in ``role``."""
        return [counts for client, counts in zip(clients, self.client_counts, strict=True) if client.role == role]


@dataclass
class ScenarioResult:
    """Result of a scenario.

    Attributes:
        name: name of the scenario.
        load: description of the requested and the reached load.
        used: description of the used processor time.
        checks: the checks.
        numbers: further measurements.
    """

    name: str
    load: str
    used: str
    checks: list[Check] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        """Whether every check passed."""
        return all(check.kept for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {**asdict(self), "kept": self.kept}


@dataclass(frozen=True)
class ScenarioContext:
    """Running node of a scenario, and factories of load clients."""

    plan: LoadConfig
    robot: Robot
    pid: int

    def client(self, role: str, **options: Any) -> ClientProcess:
        """Return a load client in ``role``, see :data:`acs_ros.stress.client_main.ROLES`; not started yet."""
        return ClientProcess(role, options, self.robot.alive)

    def camera(self, name: str, hz: float) -> ClientProcess:
        """Return a camera with the size and duration of the plan."""
        topic = f"{NODE}/{name}/image"
        return self.client("camera", topic=topic, size=self.plan.size, hz=hz, seconds=self.plan.seconds)

    def caller(self, phrases: Sequence[str] = (PHRASE,)) -> ClientProcess:
        """Return a client that calls the services during the flood."""
        return self.client("services", target=NODE, seconds=self.plan.seconds, phrases=list(phrases))

    def watch(
        self,
        clients: Sequence[ClientProcess],
        meanwhile: Callable[[], None] = lambda: None,
        dying: Sequence[ClientProcess] = (),
    ) -> ScenarioObservation:
        """Run the floods of all clients and measure the node. ``meanwhile`` is called during the floods; it kills the
        clients in ``dying``.

        Raises:
            NodeTrouble: the node or a client ended, or the node does not become idle.
        """
        robot, patience = self.robot, self.plan.seconds + GRACE_S
        robot.ask_for((PHRASE,), SERVICE_S)
        with MemoryWatch(self.pid) as memory:
            with connected_clients([*clients, *dying], CONNECT_S):
                # After all have connected: service callers connect by calls, which the node counts.
                before, answered = self.at_rest(), len(robot.answered)
                began = _clocks(self.pid)
                start_flood([*clients, *dying])
                meanwhile()
                wait_for_floods(clients, patience)
                used = _used_since(began, self.pid)
                counts = finish_floods(clients, patience)
                newest = [self._answer_after(one["stamp"]) for one in counts if "stamp" in one]
                after = self.at_rest()
            time.sleep(REST_S)
        return ScenarioObservation(
            counts, difference(after, before), memory.held, newest, len(robot.answered) - answered, used
        )

    def warm_up(self) -> None:
        """Send a first frame of each camera, so that late imports and allocations are not part of any flood.

        Raises:
            NodeTrouble: a frame was not answered.
        """
        self.robot.ask_for((PHRASE,), SERVICE_S)
        films = [
            self.client("camera", topic=f"{NODE}/{name}/image", size=self.plan.size, hz=1.0, seconds=0.1)
            for name in self.plan.camera_names
        ]
        with connected_clients(films, CONNECT_S):
            time.sleep(SETTLE_S)
            for film in films:
                (counts,) = finish_floods([film], GRACE_S)
                self.robot.wait_for_answer(counts["stamp"], GRACE_S)

    def at_rest(self) -> dict[str, int]:
        """Wait until the node is idle; returns its counters.

        Raises:
            NodeTrouble: it did not become idle within REST_PATIENCE_S.
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


def _clocks(pid: int) -> CpuTime:
    return CpuTime(time.monotonic(), cpu_seconds(pid), machine_seconds())


def _used_since(began: CpuTime, pid: int) -> CpuTime:
    now = _clocks(pid)
    return CpuTime(now.seconds - began.seconds, now.node - began.node, now.machine - began.machine)


@contextmanager
def loaded_node(plan: LoadConfig) -> Iterator[ScenarioContext]:
    """Start a node, activate it, and warm it up with a frame of each camera.

    Raises:
        NodeTrouble: the node does not come up.
    """
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    apply_profile()
    module = "acs_ros.stress.instant_node" if plan.instant else "acs_ros.main"
    env = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    # Exported, because the clients are processes of their own.
    with own_domain(export=True) as domain, tempfile.TemporaryDirectory() as folder:
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
                    context = ScenarioContext(plan, robot, process.pid)
                    context.warm_up()
                    yield context
            except NodeTrouble as error:
                raise NodeTrouble(f"{error}\n{process.last_lines()}") from error
