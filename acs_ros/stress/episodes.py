"""Episodes of a soak: each loads the node for some seconds and checks its answers."""

from __future__ import annotations

import time
from collections.abc import Callable

from acs_msgs.action import Ground
from action_msgs.msg import GoalStatus
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String

from acs_ros.conversions.images import fill_image
from acs_ros.errors import NodeTrouble
from acs_ros.stress.disturbances import deactivation, faults, jump, pausing, peers, reload, silence
from acs_ros.stress.episode_context import ANSWER_S, SERVICE_S, EpisodeContext, EpisodeRecord, last_answered

GOALS = 12  # at once; more than max_goals allows
PROBES = 10


def probe(context: EpisodeContext, record: EpisodeRecord) -> None:
    """Publish frames one at a time, each after the answer to the one before: the latency of an idle node."""
    robot = context.robot
    robot.ask_for(context.phrases(1), SERVICE_S)
    for _ in range(PROBES):
        record.latencies_ms.append(robot.answered_after(context.picture(), ANSWER_S) * 1e3)
    record.count("frames", PROBES)


def stream(context: EpisodeContext, record: EpisodeRecord) -> None:
    """Publish ten frames a second while queries change by service and by topic; the last frame must be answered."""
    robot = context.robot
    with context.filming(10) as stamps:
        for turn in range(4):
            wanted = context.phrases(context.rng.randint(1, 2))
            if turn % 2:
                robot.ask_by_topic(wanted, SERVICE_S)
            else:
                robot.ask_for(wanted, SERVICE_S)
            if robot.list_queries(SERVICE_S) != tuple(wanted):
                record.problems.append(f"the node asks {robot.list_queries(SERVICE_S)} after {wanted} were confirmed")
            time.sleep(2.0)
    record.count("frames", len(stamps))
    last_answered(context)


def flood(context: EpisodeContext, record: EpisodeRecord) -> None:
    """Publish Full HD at thirty frames a second, more than the node can process."""
    context.robot.ask_for(context.phrases(1), SERVICE_S)
    with context.filming(30, (1920, 1080)) as stamps:
        time.sleep(6.0)
    record.count("frames", len(stamps))
    last_answered(context)


def goals(context: EpisodeContext, record: EpisodeRecord) -> None:
    """Send more goals at once than the node accepts, some with their own image, one cancelled: each must end."""
    robot, rng = context.robot, context.rng
    robot.ask_for([], SERVICE_S)
    with context.filming(5):
        asked = []
        for phrase in (context.phrases(6) * GOALS)[:GOALS]:
            goal = Ground.Goal(phrase=phrase)
            if rng.random() < 0.5:
                goal.image, _ = robot.frame(context.picture())
            asked.append((robot.send_goal(goal, SERVICE_S), goal))
        cancelled = rng.randrange(GOALS)
        asked[cancelled][0].cancel_goal_async()
        for number, (handle, goal) in enumerate(asked):
            ended = robot.result(handle, goal, ANSWER_S)
            check_goal(record, goal, ended.status, ended.result, number == cancelled)


def check_goal(
    record: EpisodeRecord, goal: Ground.Goal, status: int, result: Ground.Result, was_cancelled: bool
) -> None:
    """Count the outcome of a goal, and add a problem if it is not allowed."""
    names = {
        GoalStatus.STATUS_SUCCEEDED: "goals succeeded",
        GoalStatus.STATUS_ABORTED: "goals refused",
        GoalStatus.STATUS_CANCELED: "goals cancelled",
    }
    record.count(names.get(status, f"goals with status {status}"))
    if status == GoalStatus.STATUS_SUCCEEDED:
        if result.candidates.phrase != goal.phrase:
            record.problems.append(f"the goal {goal.phrase!r} was answered for {result.candidates.phrase!r}")
        given = goal.image.header
        if len(goal.image.data) and (result.detections.header != given or result.candidates.header != given):
            record.problems.append(f"the goal about {given.frame_id!r} was answered with another header")
    elif status == GoalStatus.STATUS_ABORTED:
        if "max_goals" not in result.message:
            record.problems.append(f"the goal {goal.phrase!r} was aborted: {result.message!r}")
    elif status != GoalStatus.STATUS_CANCELED or not was_cancelled:
        record.problems.append(f"the goal {goal.phrase!r} ended with status {status}, which nobody asked for")


def nonsense(context: EpisodeContext, record: EpisodeRecord) -> None:
    """Send invalid queries, goals and images: each must be refused with a message, and the query must not change."""
    robot = context.robot
    kept = context.phrases(1)
    robot.ask_for(kept, SERVICE_S)
    for bad in ([" "], ["x" * 5000], ["a"] + ["b" + str(k) for k in range(80)], ["key\x01<|im_end|>" * 200]):
        if not robot.try_queries(bad, SERVICE_S):
            record.problems.append(f"the node took the query {str(bad)[:60]}")
        record.count("queries refused")
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
            record.problems.append(f"a goal that cannot be answered ended with status {ended.status}, without words")
        record.count("goals that make no sense")
    whole = fill_image(Image(header=Header(frame_id="broken")), context.picture())
    for change in ({"encoding": "rgb7"}, {"step": 1}, {"height": 4_000_000_000}, {"data": whole.data[:100]}):
        broken = fill_image(Image(header=Header(frame_id="broken")), context.picture())
        for name, value in change.items():
            setattr(broken, name, value)
        robot.show_broken(broken)
        record.count("broken images")
    last_answered(context)
    if robot.list_queries(SERVICE_S) != tuple(kept):
        record.problems.append(f"the node asks {robot.list_queries(SERVICE_S)} after nonsense, not {kept}")


EPISODES: dict[str, Callable[[EpisodeContext, EpisodeRecord], None]] = {
    episode.__name__: episode
    for episode in (stream, flood, goals, nonsense, deactivation, reload, pausing, faults, silence, jump, peers)
}


def run_episode(
    context: EpisodeContext, name: str, episode: Callable[[EpisodeContext, EpisodeRecord], None]
) -> EpisodeRecord:
    """Run one episode and return its record, including the problems that the checker of all answers found meanwhile.

    Raises:
        NodeTrouble: the node's process has ended.
    """
    record = EpisodeRecord(name)
    try:
        episode(context, record)
    except NodeTrouble as error:
        context.robot.alive()  # raises if the node has ended rather than being late
        record.problems.append(str(error))
    record.problems += context.robot.checker.take_problems()
    return record
