"""Episodes that break into the node's work: transitions, pauses, faults, and a world that goes away and comes back."""

from __future__ import annotations

import subprocess
import time

import cv2

from acs_ros.child import start_child
from acs_stress.faulty import FAULTS, SLOW_S
from acs_stress.stage import ANSWER_S, SERVICE_S, Course, Stage, last_answered

LOAD_S = 300.0
HOUR_NS = 3600 * 1_000_000_000


def deactivation(stage: Stage, course: Course) -> None:
    """Deactivated and activated in the middle of work, at any moment of it."""
    robot = stage.robot
    robot.ask_for(stage.phrases(1), SERVICE_S)
    with stage.filming(20):
        for _ in range(5):
            time.sleep(stage.chance.uniform(0.0, 0.5))
            robot.change("deactivate", SERVICE_S)
            time.sleep(stage.chance.uniform(0.0, 0.2))
            robot.change("activate", SERVICE_S)
            course.count("deactivations")
    robot.connected(SERVICE_S)
    last_answered(stage)


def reload(stage: Stage, course: Course) -> None:
    """The model is freed and loaded again while frames come."""
    robot = stage.robot
    with stage.filming(10):
        robot.change("deactivate", SERVICE_S)
        robot.change("cleanup", SERVICE_S)
        robot.change("configure", LOAD_S)
        robot.change("activate", SERVICE_S)
    course.count("models loaded")
    robot.ask_for(stage.phrases(1), SERVICE_S)
    robot.connected(SERVICE_S)
    last_answered(stage)


def pausing(stage: Stage, course: Course) -> None:
    """Held by ~/pause in the middle of work, and let go."""
    robot = stage.robot
    robot.ask_for(stage.phrases(1), SERVICE_S)
    with stage.filming(10):
        for _ in range(3):
            time.sleep(stage.chance.uniform(0.0, 0.5))
            robot.pause(True, SERVICE_S)
            time.sleep(0.2)
            robot.pause(False, SERVICE_S)
            course.count("pauses")
    robot.connected(SERVICE_S)
    last_answered(stage)


def faults(stage: Stage, course: Course) -> None:
    """Each fault of the model once, in a call; the frame after it is answered."""
    robot = stage.robot
    for fault in stage.chance.sample(sorted(FAULTS), len(FAULTS)):
        robot.ask_for(stage.phrases(1), SERVICE_S)
        robot.wait_for_answer(robot.show(stage.picture()), ANSWER_S)  # no earlier frame is left to take the fault
        stage.box.put(fault)
        broken = robot.show(stage.picture())
        robot.wait(lambda: not stage.box.waits, ANSWER_S, "the node to take the frame that fails")
        stamp = robot.show(stage.picture())
        robot.wait_for_answer(stamp, ANSWER_S + SLOW_S)
        course.count(f"{fault}: {'answered' if broken in robot.answered else 'told'}")


def silence(stage: Stage, course: Course) -> None:
    """The camera stops until the node says so, and returns with pictures of another size."""
    robot = stage.robot
    robot.ask_for(stage.phrases(1), SERVICE_S)
    robot.show(stage.picture())
    robot.wait(lambda: "no images" in robot.status, ANSWER_S, "the node to miss its camera")
    robot.wait_for_answer(robot.show(cv2.resize(stage.picture(), (640, 480))), ANSWER_S)
    robot.wait(lambda: "no images" not in robot.status, SERVICE_S, "the node to see its camera again")
    course.count("silences")


def jump(stage: Stage, course: Course) -> None:
    """The camera's clock jumps back by an hour, and forth again: answers carry the stamps of their frames."""
    stage.robot.ask_for(stage.phrases(1), SERVICE_S)
    for offset in (-HOUR_NS, 0, HOUR_NS, 0):
        stamp = stage.robot.show(stage.picture(), time.time_ns() + offset)
        stage.robot.wait_for_answer(stamp, ANSWER_S)
        course.count("jumps")


def peers(stage: Stage, course: Course) -> None:
    """Somebody else hears the answers and dies without a word, in the middle of them."""
    stage.robot.ask_for(stage.phrases(1), SERVICE_S)
    with stage.filming(5):
        for _ in range(2):
            other = start_child("acs_stress.listener", stdout=subprocess.PIPE)
            try:
                if other.stdout is not None:
                    other.stdout.readline()  # it hears
                time.sleep(stage.chance.uniform(0.5, 1.5))
            finally:
                other.kill()
                other.wait()
            course.count("peers killed")
    last_answered(stage)
