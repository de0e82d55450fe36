"""Episodes of a soak that disturb the node: transitions, pauses, faults, camera failures, clock jumps, dying peers."""

from __future__ import annotations

import time

import cv2

from acs_ros.errors import NodeTrouble
from acs_ros.stress.client_main import GO
from acs_ros.stress.client_processes import ClientProcess
from acs_ros.stress.episode_context import ANSWER_S, SERVICE_S, EpisodeContext, EpisodeRecord, last_answered
from acs_ros.stress.faulty_node import FAULTS, SLOW_S
from acs_ros.stress.robot import NODE, RESEND_S

LOAD_S = 300.0
HOUR_NS = 3600 * 1_000_000_000
PEER_HZ, PEER_S = 1000.0, 60.0  # fast enough to read everything, until it is killed
PEER_OUTPUTS = ["detections", "candidates", "debug_image", "attention_image"]


def deactivation(context: EpisodeContext, record: EpisodeRecord) -> None:
    """Deactivate and activate the node at random moments during its work."""
    robot = context.robot
    robot.ask_for(context.phrases(1), SERVICE_S)
    with context.filming(20):
        for _ in range(5):
            time.sleep(context.rng.uniform(0.0, 0.5))
            robot.change("deactivate", SERVICE_S)
            time.sleep(context.rng.uniform(0.0, 0.2))
            robot.change("activate", SERVICE_S)
            record.count("deactivations")
    robot.connected(SERVICE_S)
    last_answered(context)


def reload(context: EpisodeContext, record: EpisodeRecord) -> None:
    """Free the model and load it again while frames arrive."""
    robot = context.robot
    with context.filming(10):
        robot.change("deactivate", SERVICE_S)
        robot.change("cleanup", SERVICE_S)
        robot.change("configure", LOAD_S)
        robot.change("activate", SERVICE_S)
    record.count("models loaded")
    robot.ask_for(context.phrases(1), SERVICE_S)
    robot.connected(SERVICE_S)
    last_answered(context)


def pausing(context: EpisodeContext, record: EpisodeRecord) -> None:
    """Pause the node by ~/pause during its work, and resume it."""
    robot = context.robot
    robot.ask_for(context.phrases(1), SERVICE_S)
    with context.filming(10):
        for _ in range(3):
            time.sleep(context.rng.uniform(0.0, 0.5))
            robot.pause(True, SERVICE_S)
            time.sleep(0.2)
            robot.pause(False, SERVICE_S)
            record.count("pauses")
    robot.connected(SERVICE_S)
    last_answered(context)


def faults(context: EpisodeContext, record: EpisodeRecord) -> None:
    """Inject each fault of the model into one call; the next frame must be answered."""
    robot = context.robot
    for fault in context.rng.sample(sorted(FAULTS), len(FAULTS)):
        robot.ask_for(context.phrases(1), SERVICE_S)
        robot.answered_after(context.picture(), ANSWER_S)  # so that no earlier frame is pending and takes the fault
        context.box.put(fault)
        broken = _taken(context)
        robot.answered_after(context.picture(), ANSWER_S + SLOW_S)
        record.count(f"{fault}: {'answered' if broken <= robot.answered.keys() else 'told'}")


def _taken(context: EpisodeContext) -> set[int]:
    """Publish frames until one call has taken the pending fault; returns their stamps. A frame may be lost on DDS.

    Raises:
        NodeTrouble: no call took the fault within ANSWER_S.
    """
    robot, shown = context.robot, set[int]()
    deadline = time.monotonic() + ANSWER_S
    while True:
        shown.add(robot.show(context.picture()))
        try:
            robot.wait(lambda: not context.box.waits, RESEND_S, "the node to take the frame that fails")
        except NodeTrouble:
            robot.alive()
            if time.monotonic() > deadline:
                raise
            continue
        return shown


def silence(context: EpisodeContext, record: EpisodeRecord) -> None:
    """Stop the camera until the node reports it, then publish frames of another size."""
    robot = context.robot
    robot.ask_for(context.phrases(1), SERVICE_S)
    robot.answered_after(context.picture(), ANSWER_S)
    robot.wait(lambda: "no images" in robot.status, ANSWER_S, "the node to miss its camera")
    robot.answered_after(cv2.resize(context.picture(), (640, 480)), ANSWER_S)
    robot.wait(lambda: "no images" not in robot.status, SERVICE_S, "the node to see its camera again")
    record.count("silences")


def jump(context: EpisodeContext, record: EpisodeRecord) -> None:
    """Move the camera's clock back by an hour and forward again: answers must carry the stamps of their frames."""
    context.robot.ask_for(context.phrases(1), SERVICE_S)
    for offset in (-HOUR_NS, 0, HOUR_NS, 0):
        context.robot.answered_after(context.picture(), ANSWER_S, offset)
        record.count("jumps")


def peers(context: EpisodeContext, record: EpisodeRecord) -> None:
    """Kill another subscriber of all answers while they are published."""
    context.robot.ask_for(context.phrases(1), SERVICE_S)
    with context.filming(5):
        for _ in range(2):
            options = {"prefixes": [NODE], "rate": PEER_HZ, "seconds": PEER_S, "outputs": PEER_OUTPUTS}
            with ClientProcess("subscriber", options, context.robot.alive) as other:
                other.receive(SERVICE_S)  # connected
                other.send(GO)
                time.sleep(context.rng.uniform(0.5, 1.5))
                other.kill()
            record.count("peers killed")
    last_answered(context)
