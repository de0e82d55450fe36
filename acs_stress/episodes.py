"""What happens to the node in a soak: each episode loads or breaks it for some seconds, and holds it to its word."""

from __future__ import annotations

import time
from collections.abc import Callable

from acs_msgs.action import Ground
from action_msgs.msg import GoalStatus
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String

from acs_ros.image_conversion import fill_image
from acs_ros.node_client import NodeTrouble
from acs_stress.disturbances import deactivation, faults, jump, pausing, peers, reload, silence
from acs_stress.stage import ANSWER_S, SERVICE_S, Course, Stage, last_answered

GOALS = 12  # at once; more than max_goals takes
PROBES = 10


def probe(stage: Stage, course: Course) -> None:
    """One frame after the other, each when the one before is answered: the latency of an idle node."""
    robot = stage.robot
    robot.ask_for(stage.phrases(1), SERVICE_S)
    for _ in range(PROBES):
        began = time.monotonic()
        stamp = robot.show(stage.picture())
        course.latencies_ms.append((robot.wait_for_answer(stamp, ANSWER_S) - began) * 1e3)
    course.count("frames", PROBES)


def stream(stage: Stage, course: Course) -> None:
    """Ten frames a second while the queries change, by service and by topic; the last frame must be answered."""
    robot = stage.robot
    with stage.filming(10) as stamps:
        for turn in range(4):
            wanted = stage.phrases(stage.chance.randint(1, 2))
            if turn % 2:
                robot.ask_by_topic(wanted, SERVICE_S)
            else:
                robot.ask_for(wanted, SERVICE_S)
            if robot.list_queries(SERVICE_S) != tuple(wanted):
                course.problems.append(f"the node asks {robot.list_queries(SERVICE_S)} after {wanted} were confirmed")
            time.sleep(2.0)
    course.count("frames", len(stamps))
    last_answered(stage)


def flood(stage: Stage, course: Course) -> None:
    """Full HD at thirty frames a second, which is more than the node can look at."""
    stage.robot.ask_for(stage.phrases(1), SERVICE_S)
    with stage.filming(30, (1920, 1080)) as stamps:
        time.sleep(6.0)
    course.count("frames", len(stamps))
    last_answered(stage)


def goals(stage: Stage, course: Course) -> None:
    """More goals at once than the node takes, some with a picture of their own, some cancelled: each ends, in words."""
    robot, chance = stage.robot, stage.chance
    robot.ask_for([], SERVICE_S)
    with stage.filming(5):
        asked = []
        for phrase in (stage.phrases(6) * GOALS)[:GOALS]:
            goal = Ground.Goal(phrase=phrase)
            if chance.random() < 0.5:
                goal.image, _ = robot.frame(stage.picture())
            asked.append((robot.send_goal(goal, SERVICE_S), goal))
        cancelled = chance.randrange(GOALS)
        asked[cancelled][0].cancel_goal_async()
        for number, (handle, goal) in enumerate(asked):
            ended = robot.result(handle, goal, ANSWER_S)
            judge_goal(course, goal, ended.status, ended.result, number == cancelled)


def judge_goal(course: Course, goal: Ground.Goal, status: int, result: Ground.Result, was_cancelled: bool) -> None:
    """Count how a goal ended, and tell what no goal may end like."""
    names = {
        GoalStatus.STATUS_SUCCEEDED: "goals succeeded",
        GoalStatus.STATUS_ABORTED: "goals refused",
        GoalStatus.STATUS_CANCELED: "goals cancelled",
    }
    course.count(names.get(status, f"goals with status {status}"))
    if status == GoalStatus.STATUS_SUCCEEDED:
        if result.candidates.phrase != goal.phrase:
            course.problems.append(f"the goal {goal.phrase!r} was answered for {result.candidates.phrase!r}")
        given = goal.image.header
        if len(goal.image.data) and (result.detections.header != given or result.candidates.header != given):
            course.problems.append(f"the goal about {given.frame_id!r} was answered with another header")
    elif status == GoalStatus.STATUS_ABORTED:
        if "max_goals" not in result.message:
            course.problems.append(f"the goal {goal.phrase!r} was aborted: {result.message!r}")
    elif status != GoalStatus.STATUS_CANCELED or not was_cancelled:
        course.problems.append(f"the goal {goal.phrase!r} ended with status {status}, which nobody asked for")


def nonsense(stage: Stage, course: Course) -> None:
    """Queries, goals and images that cannot be used: refused in words, and what was in force stays."""
    robot = stage.robot
    kept = stage.phrases(1)
    robot.ask_for(kept, SERVICE_S)
    for bad in ([" "], ["x" * 5000], ["a"] + ["b" + str(k) for k in range(80)], ["key\x01<|im_end|>" * 200]):
        if not robot.try_queries(bad, SERVICE_S):
            course.problems.append(f"the node took the query {str(bad)[:60]}")
        course.count("queries refused")
    for _ in range(50):
        robot.query_topic.publish(String(data="y" * 2000))
    for goal in (
        Ground.Goal(phrase=""),
        Ground.Goal(phrase="key", camera="none"),
        Ground.Goal(phrase="key", samples=999),
    ):
        handle = robot.send_goal(goal, SERVICE_S)
        ended = robot.result(handle, goal, ANSWER_S)
        if ended.status != GoalStatus.STATUS_ABORTED or not ended.result.message:
            course.problems.append(f"a goal that cannot be answered ended with status {ended.status}, without words")
        course.count("goals that make no sense")
    whole = fill_image(Image(header=Header(frame_id="broken")), stage.picture())
    for change in ({"encoding": "rgb7"}, {"step": 1}, {"height": 4_000_000_000}, {"data": whole.data[:100]}):
        broken = fill_image(Image(header=Header(frame_id="broken")), stage.picture())
        for name, value in change.items():
            setattr(broken, name, value)
        robot.show_broken(broken)
        course.count("broken images")
    last_answered(stage)
    if robot.list_queries(SERVICE_S) != tuple(kept):
        course.problems.append(f"the node asks {robot.list_queries(SERVICE_S)} after nonsense, not {kept}")


EPISODES: dict[str, Callable[[Stage, Course], None]] = {
    episode.__name__: episode
    for episode in (stream, flood, goals, nonsense, deactivation, reload, pausing, faults, silence, jump, peers)
}


def run_episode(stage: Stage, name: str, episode: Callable[[Stage, Course], None]) -> Course:
    """The episode, and what the witness of all answers has to say.

    Raises:
        NodeTrouble: the node's process is gone.
    """
    course = Course(name)
    try:
        episode(stage, course)
    except NodeTrouble as error:
        stage.robot.alive()  # gone is not the same as late
        course.problems.append(str(error))
    course.problems += stage.robot.promises.take_problems()
    return course
