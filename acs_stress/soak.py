"""A soak: one node for hours, under every load and fault in turn, with a journal of all that is seen."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from acs_ros.bags import DEMO_BAG, read_bag
from acs_ros.dds import apply_profile
from acs_ros.node_client import NodeTrouble, own_domain
from acs_ros.node_process import NodeProcess
from acs_stress.disturbances import LOAD_S
from acs_stress.episodes import EPISODES, probe, run_episode
from acs_stress.faulty import BOX_VARIABLE, FREEZE, FaultBox
from acs_stress.journal import JOURNAL, Journal
from acs_stress.robot import NODE, Robot
from acs_stress.stage import SERVICE_S, Course, Stage
from acs_stress.watch import look_at

APPEAR_S = 60.0
SAMPLE_S = 5.0
FREEZE_S = 10.0  # shorter than anybody waits for the node
MOST_NODES = 10  # that may freeze before something else must be wrong
GONE_S = 30.0  # after which DDS has noticed that a node is dead
REST_S = 2.0  # after which a node without frames holds what it holds for good
NODE_LOG = "node.log"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is run. ``episodes``: names of :data:`EPISODES`; ``params``: a ROS parameter file."""

    minutes: float
    out: Path
    params: Path
    model: str | None = None
    seed: int = 0
    episodes: tuple[str, ...] = tuple(EPISODES)

    def ros_args(self) -> list[str]:
        """The node's arguments: it notices soon that its camera is silent, and that nothing runs in it."""
        given = ["--params-file", str(self.params), "-p", "image_timeout:=3.0", "-p", f"freeze_timeout:={FREEZE_S}"]
        return [*given, "-p", f"model:={self.model}"] if self.model else given


def soak(plan: Plan, machine: dict[str, Any], say: Say) -> None:
    """Run ``plan`` into the journal of ``plan.out``; everything that was seen is there, however it ends.

    Raises:
        NodeTrouble: the node does not come up, or its process ended by itself.
        KeyboardInterrupt: somebody stopped it.
    """
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    apply_profile()
    domain, frames = own_domain(), list(read_bag(DEMO_BAG))
    os.environ["ROS_DOMAIN_ID"] = str(domain)  # for the listeners, which are processes of their own
    with Journal(plan.out / JOURNAL) as journal:
        asked = {"seed": plan.seed, "wanted": plan.minutes, "params": plan.params.name, "model": plan.model or ""}
        journal.note("begin", machine=machine, **asked)
        box = FaultBox(plan.out)
        running = _Running()
        with Robot(domain, running.check) as robot:
            words = [phrase for frame in frames for phrase, _ in frame.truth]
            stage = Stage(robot, box, [f.image for f in frames], words, random.Random(plan.seed))
            for number in itertools.count(1):
                log = NODE_LOG if number == 1 else f"node-{number}.log"
                with _node(plan, log) as running.process, _watching(running.process.pid, journal):
                    if _asked(plan, stage, running.process, journal, say, number):
                        os.kill(running.process.pid, signal.SIGKILL)
                        running.process.wait(SERVICE_S)
                        break
            with _node(plan, "killed.log") as running.process:
                journal.note("course", **asdict(_respawned(stage, "killed and respawned")))
                problem = _freeze(stage, running.process)
            with _node(plan, "froze.log") as running.process:
                course = _respawned(stage, "froze and respawned")
                course.problems += problem
                journal.note("course", **asdict(course))
        journal.note("end", answers_checked=robot.promises.checked)


class _Running:
    """The node that is asked at present."""

    process: NodeProcess

    def check(self) -> None:
        """Raises NodeTrouble when it is gone."""
        if self.process.exit_code is not None:
            raise NodeTrouble(
                f"the node's process ended with exit code {self.process.exit_code}; see {self.process.log}"
            )


def _asked(plan: Plan, stage: Stage, process: NodeProcess, journal: Journal, say: Say, number: int) -> bool:
    """All that is to be asked of a node until the planned end; from the second ``number`` on it takes the place of one
    that froze. False: it froze too and is gone, as the middleware may at any time (:mod:`acs_ros.freeze_watch`).

    Raises:
        NodeTrouble: it did not come up, ended otherwise, or is the last of MOST_NODES that froze.
    """
    try:
        if number > 1:
            journal.note("course", **asdict(_respawned(stage, "froze and respawned")))
        else:
            _bring_up(stage.robot)
        _cycles(plan, stage, process.pid, journal, say)
    except (NodeTrouble, psutil.Error) as error:
        if not process.froze or number == MOST_NODES:
            journal.note("died", problem=str(error), last_lines=process.last_lines())
            raise NodeTrouble(str(error)) from error
        journal.note("froze", last_lines=process.last_lines(100))
        say(f"{journal.minutes:6.1f} min  the node stood still and ended itself: another one is started")
        return False
    return True


def _freeze(stage: Stage, process: NodeProcess) -> list[str]:
    """Make the node stand still and wait for its end; what was wrong with it."""
    stage.box.put(FREEZE)
    stage.robot.show(stage.picture())
    with suppress(subprocess.TimeoutExpired):
        process.wait(FREEZE_S + SERVICE_S)
    return [] if process.froze else [f"a node that stood still did not end itself; see {process.log}"]


def _cycles(plan: Plan, stage: Stage, pid: int, journal: Journal, say: Say) -> None:
    cycle = 0
    while journal.minutes < plan.minutes or not cycle:
        cycle += 1
        order: Sequence[str] = stage.chance.sample(plan.episodes, len(plan.episodes))
        for name, episode in [("probe", probe), *((n, EPISODES[n]) for n in order)]:
            _alone(stage.robot)
            used = look_at(pid).cpu_s
            course = run_episode(stage, name, episode)
            used = look_at(pid).cpu_s - used
            if course.problems:
                _recover(stage.robot)
            if name == "probe":
                time.sleep(REST_S)
                journal.note("rest", **look_at(pid).to_dict())
            journal.note("course", cycle=cycle, cpu_s=round(used, 3), **asdict(course))
            told = ", ".join(f"{count} {what}" for what, count in course.counts.items())
            say(f"{journal.minutes:6.1f} min  {look_at(pid).rss_mb:5.0f} MB  {name}: {told}")
            for problem in course.problems:
                say(f"            PROBLEM: {problem}")
            if journal.minutes > plan.minutes and cycle > 1:
                return


def _alone(robot: Robot) -> None:
    """Raises NodeTrouble where another node of the name stays on the domain: its answers look like ours."""
    deadline = time.monotonic() + GONE_S
    while strangers := robot.strangers():
        if time.monotonic() > deadline:
            raise NodeTrouble(
                f"{strangers} more nodes named {NODE} on DDS domain {os.environ['ROS_DOMAIN_ID']}: what they answer "
                "cannot be told from what ours does. Set ROS_DOMAIN_ID to a domain where nobody else is (up to 232)"
            )
        robot.alive()
        time.sleep(0.5)


def _respawned(stage: Stage, name: str) -> Course:
    """The node is gone and was started again: those who were there before it get their answers."""
    course = Course(name)
    try:
        stage.robot.meet_again(APPEAR_S)
        _bring_up(stage.robot)
        probe(stage, course)
    except NodeTrouble as error:
        course.problems.append(str(error))
    course.problems += stage.robot.promises.take_problems()
    return course


def _bring_up(robot: Robot) -> None:
    robot.meet(APPEAR_S)
    robot.change("configure", LOAD_S)
    robot.change("activate", SERVICE_S)
    robot.connected(SERVICE_S)


def _recover(robot: Robot) -> None:
    """After a broken promise: back to where the next episode begins, if the node lets us."""
    try:
        robot.pause(False, SERVICE_S)
        if robot.state(SERVICE_S) == "unconfigured":
            robot.change("configure", LOAD_S)
        if robot.state(SERVICE_S) == "inactive":
            robot.change("activate", SERVICE_S)
        robot.connected(SERVICE_S)
    except NodeTrouble:
        robot.alive()


def _node(plan: Plan, log: str) -> NodeProcess:
    env = {BOX_VARIABLE: str(plan.out), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    return NodeProcess(plan.ros_args(), plan.out / log, env, module="acs_stress.faulty_node")


@contextmanager
def _watching(pid: int, journal: Journal) -> Iterator[None]:
    """Looks at the process every few seconds."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE_S):
            try:
                journal.note("sample", **look_at(pid).to_dict())
            except psutil.Error:
                return

    thread = threading.Thread(target=watch, name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
