"""Soak test: one node for hours under all loads and faults in turn, with a journal of all observations."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from acs_core.output import check_target
from acs_ros.bags.bags import DEMO_BAG, read_bag
from acs_ros.client.domains import own_domain
from acs_ros.client.node_process import NodeProcess
from acs_ros.dds import apply_profile
from acs_ros.errors import NodeTrouble
from acs_ros.stress.disturbances import LOAD_S
from acs_ros.stress.episode_context import SERVICE_S, EpisodeContext, EpisodeRecord
from acs_ros.stress.episodes import EPISODES, probe, run_episode
from acs_ros.stress.faulty_node import BOX_VARIABLE, FREEZE, FaultBox
from acs_ros.stress.process_usage import sample_process
from acs_ros.stress.robot import NODE, Robot
from acs_ros.stress.soak_journal import JOURNAL, SoakLog

APPEAR_S = 60.0
SAMPLE_S = 5.0
FREEZE_S = 10.0  # shorter than any timeout here
SILENCE_S = 20.0  # camera timeout; a running camera is never this late, even on a busy machine
MOST_NODES = 10  # number of nodes that may freeze before the soak fails
GONE_S = 30.0  # seconds after which DDS has noticed that a node is dead
REST_S = 2.0  # seconds after which the memory of a node without frames no longer changes
NODE_LOG, KILLED_LOG, FROZE_LOG = "node.log", "killed.log", "froze.log"
Say = Callable[[str], None]


@dataclass(frozen=True)
class SoakConfig:
    """Settings of a soak.

    Attributes:
        minutes: duration.
        out: folder of the journal and the logs.
        params: ROS parameter file.
        model: name or folder of the model.
        seed: seed of the random choices.
        episodes: names of :data:`EPISODES`.
    """

    minutes: float
    out: Path
    params: Path
    model: str | None = None
    seed: int = 0
    episodes: tuple[str, ...] = tuple(EPISODES)

    def ros_args(self) -> list[str]:
        """Return the node's arguments: short timeouts for a silent camera and for a frozen process."""
        given = [
            "--params-file",
            str(self.params),
            "-p",
            f"image_timeout:={SILENCE_S}",
            "-p",
            f"freeze_timeout:={FREEZE_S}",
        ]
        return [*given, "-p", f"model:={self.model}"] if self.model else given


def log_of(number: int) -> str:
    """Return the log file name of node ``number``, from 1; later nodes replaced one that froze."""
    return NODE_LOG if number == 1 else f"node-{number}.log"


def check_files(out: Path) -> None:
    """Check that a soak may write its journal and its logs into the folder ``out``.

    Raises:
        OutputError: one of the files exists, and acs did not write it.
    """
    for name in (JOURNAL, *map(log_of, range(1, MOST_NODES + 1)), KILLED_LOG, FROZE_LOG):
        check_target(out / name)


def soak(plan: SoakConfig, machine: dict[str, Any], say: Say) -> None:
    """Run ``plan``. All observations are in the journal in ``plan.out``, also after an error.

    Raises:
        NodeTrouble: the node does not come up, or its process ended by itself.
        OutputError: a file to write in ``plan.out`` exists, and acs did not write it.
        KeyboardInterrupt: the soak was stopped.
    """
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    apply_profile()
    frames = list(read_bag(DEMO_BAG))
    # Exported, because other subscribers are processes of their own.
    with (
        own_domain(export=True) as domain,
        tempfile.TemporaryDirectory() as faults,
        SoakLog(plan.out / JOURNAL) as journal,
    ):
        box = FaultBox(Path(faults))
        asked = {"seed": plan.seed, "wanted": plan.minutes, "params": plan.params.name, "model": plan.model or ""}
        journal.note("begin", machine=machine, **asked)
        running = _RunningNode()
        with Robot(domain, running.check) as robot:
            words = [phrase for frame in frames for phrase, _ in frame.truth]
            context = EpisodeContext(robot, box, [f.image for f in frames], words, random.Random(plan.seed))
            for number in itertools.count(1):
                with _node(plan, box, log_of(number)) as running.process, _watching(running.process.pid, journal):
                    if _asked(plan, context, running.process, journal, say, number):
                        os.kill(running.process.pid, signal.SIGKILL)
                        running.process.wait(SERVICE_S)
                        break
            with _node(plan, box, KILLED_LOG) as running.process:
                journal.note("course", **asdict(_respawned(context, "killed and respawned")))
                problem = _freeze(context, running.process)
            with _node(plan, box, FROZE_LOG) as running.process:
                record = _respawned(context, "froze and respawned")
                record.problems += problem
                journal.note("course", **asdict(record))
        journal.note("end", answers_checked=robot.checker.checked, frames_shown_again=robot.shown_again)


class _RunningNode:
    """The current node process under test."""

    process: NodeProcess

    def check(self) -> None:
        """Raise NodeTrouble if the process has ended."""
        if self.process.exit_code is not None:
            raise NodeTrouble(
                f"the node's process ended with exit code {self.process.exit_code}; see {self.process.log}"
            )


def _asked(
    plan: SoakConfig, context: EpisodeContext, process: NodeProcess, journal: SoakLog, say: Say, number: int
) -> bool:
    """Run all episodes on one node until the planned end. Nodes from the second ``number`` on replace one that froze.

    Returns False if this node froze too, which the middleware can cause at any time (:mod:`acs_ros.rclpy_fixes`).

    Raises:
        NodeTrouble: the node did not come up, ended otherwise, or is the last of MOST_NODES that froze.
    """
    try:
        if number > 1:
            journal.note("course", **asdict(_respawned(context, "froze and respawned")))
        else:
            _bring_up(context.robot)
        _cycles(plan, context, process.pid, journal, say)
    except (NodeTrouble, psutil.Error) as error:
        if not process.froze or number == MOST_NODES:
            journal.note("died", problem=str(error), last_lines=process.last_lines())
            raise NodeTrouble(str(error)) from error
        journal.note("froze", last_lines=process.last_lines(100))
        say(f"{journal.minutes:6.1f} min  the node stood still and ended itself: another one is started")
        return False
    return True


def _freeze(context: EpisodeContext, process: NodeProcess) -> list[str]:
    """Freeze the node and wait until its watch ends it; returns problems."""
    context.box.put(FREEZE)
    context.robot.show(context.picture())
    with suppress(subprocess.TimeoutExpired):
        process.wait(FREEZE_S + SERVICE_S)
    return [] if process.froze else [f"a node that stood still did not end itself; see {process.log}"]


def _cycles(plan: SoakConfig, context: EpisodeContext, pid: int, journal: SoakLog, say: Say) -> None:
    cycle = 0
    while journal.minutes < plan.minutes or not cycle:
        cycle += 1
        order: Sequence[str] = context.rng.sample(plan.episodes, len(plan.episodes))
        for name, episode in [("probe", probe), *((n, EPISODES[n]) for n in order)]:
            _alone(context.robot)
            used = sample_process(pid).cpu_s
            record = run_episode(context, name, episode)
            used = sample_process(pid).cpu_s - used
            if record.problems:
                _recover(context.robot)
            if name == "probe":
                time.sleep(REST_S)
                journal.note("rest", **sample_process(pid).to_dict())
            journal.note("course", cycle=cycle, cpu_s=round(used, 3), **asdict(record))
            done = ", ".join(f"{count} {what}" for what, count in record.counts.items())
            say(f"{journal.minutes:6.1f} min  {sample_process(pid).rss_mb:5.0f} MB  {name}: {done}")
            for problem in record.problems:
                say(f"            PROBLEM: {problem}")
            if journal.minutes > plan.minutes and cycle > 1:
                return


def _alone(robot: Robot) -> None:
    """Raise NodeTrouble if another node of the same name stays on the domain: its answers could not be told from
    ours."""
    deadline = time.monotonic() + GONE_S
    while strangers := robot.strangers():
        if time.monotonic() > deadline:
            raise NodeTrouble(
                f"{strangers} more nodes named {NODE} on DDS domain {os.environ['ROS_DOMAIN_ID']}: what they answer "
                "cannot be told from what ours does. Set ROS_DOMAIN_ID to a domain where nobody else is (up to 232)"
            )
        robot.alive()
        time.sleep(0.5)


def _respawned(context: EpisodeContext, name: str) -> EpisodeRecord:
    """Bring up a restarted node and check that existing clients get answers."""
    record = EpisodeRecord(name)
    try:
        context.robot.meet_again(APPEAR_S)
        _bring_up(context.robot)
        probe(context, record)
    except NodeTrouble as error:
        record.problems.append(str(error))
    record.problems += context.robot.checker.take_problems()
    return record


def _bring_up(robot: Robot) -> None:
    robot.meet(APPEAR_S)
    robot.change("configure", LOAD_S)
    robot.change("activate", SERVICE_S)
    robot.connected(SERVICE_S)


def _recover(robot: Robot) -> None:
    """Bring the node back to the initial state of episodes after a problem, if possible."""
    try:
        robot.pause(False, SERVICE_S)
        if robot.state(SERVICE_S) == "unconfigured":
            robot.change("configure", LOAD_S)
        if robot.state(SERVICE_S) == "inactive":
            robot.change("activate", SERVICE_S)
        robot.connected(SERVICE_S)
    except NodeTrouble:
        robot.alive()


def _node(plan: SoakConfig, box: FaultBox, log: str) -> NodeProcess:
    env = {BOX_VARIABLE: str(box.folder), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    return NodeProcess(plan.ros_args(), plan.out / log, env, module="acs_ros.stress.faulty_node")


@contextmanager
def _watching(pid: int, journal: SoakLog) -> Iterator[None]:
    """Record the resources of the process every SAMPLE_S seconds inside the block."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE_S):
            try:
                journal.note("sample", **sample_process(pid).to_dict())
            except psutil.Error:
                return

    thread = threading.Thread(target=watch, name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
