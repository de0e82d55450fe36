"""Scenarios of ``acs-load``: many cameras, queries and goals, and subscribers that do not keep up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from std_msgs.msg import String

from acs_ros.errors import NodeTrouble
from acs_ros.stress.client_processes import ClientProcess
from acs_ros.stress.clients import UNUSABLE
from acs_ros.stress.load import SERVICE_S, ScenarioContext, ScenarioObservation, ScenarioResult
from acs_ros.stress.load_checks import (
    Check,
    check_answers,
    check_frames,
    check_goals,
    check_memory,
    check_newest,
    check_queries,
    check_services,
    counters,
    latencies,
)
from acs_ros.stress.robot import NODE

QUERY_HZ, GOAL_HZ = 10.0, 5.0  # rate of the single camera that runs beside queries and goals
UNUSABLE_EVERY = 10
LAST_PHRASE = "the last key"
GOAL_PATIENCE_S = 120.0
REJECTION_PATIENCE_S = 60.0
SLOW_HZ = 1.0


def cameras(context: ScenarioContext) -> ScenarioResult:
    """Run all cameras at their full rate."""
    plan = context.plan
    clients = [*(context.camera(name, plan.hz) for name in plan.camera_names), context.caller()]
    observed = context.watch(clients)
    width, height = plan.size
    load = f"{plan.cameras} cameras of {width}x{height} at {plan.hz:g} Hz: {_rates(observed, clients)} reached"
    return _outcome(context, "cameras", load, clients, observed)


def queries(context: ScenarioContext) -> ScenarioResult:
    """Change the queries all the time."""
    plan = context.plan
    publisher = context.client(
        "queries",
        topic=f"{NODE}/query",
        rate=plan.query_rate,
        seconds=plan.seconds,
        unusable_every=UNUSABLE_EVERY,
        last_phrase=LAST_PHRASE,
    )
    clients = [publisher, context.camera(plan.camera_names[0], QUERY_HZ), context.caller()]
    more = 0

    def publish_until_rejected() -> None:
        nonlocal more
        more = _until_rejected(context)

    observed = context.watch(clients, publish_until_rejected)
    in_force = context.robot.list_queries(SERVICE_S)
    (counts,), (called,) = observed.of(clients, "queries"), observed.of(clients, "services")
    load = f"{plan.query_rate:g} queries a second: {counts['sent'] / plan.seconds:.0f} reached, beside a camera"
    outcome = _outcome(context, "queries", load, clients, observed)
    calls = len(called["ms"]["set_queries"])
    sent, bad = counts["sent"] + more, counts["bad"] + more
    outcome.checks += check_queries(sent, bad, calls, observed.delta, (LAST_PHRASE,), in_force)
    return outcome


def _until_rejected(context: ScenarioContext) -> int:
    """Publish invalid queries until the node has rejected one; returns the number published. The node keeps only the
    newest query, so during a flood an invalid one may be replaced before it is read.

    Raises:
        NodeTrouble: none was rejected.
    """
    robot, sent = context.robot, 0
    before = counters(robot.values)["rejected_queries"]
    deadline = time.monotonic() + context.plan.seconds + REJECTION_PATIENCE_S
    while counters(robot.values)["rejected_queries"] == before:
        if time.monotonic() > deadline:
            raise NodeTrouble(f"none of {sent} unusable queries was rejected; the node says: {robot.status}")
        robot.query_topic.publish(String(data=UNUSABLE))
        sent += 1
        robot.fresh_status(SERVICE_S)
    return sent


def goals(context: ScenarioContext) -> ScenarioResult:
    """Send many goals at once, half of them with their own image."""
    plan = context.plan
    goal_sender = context.client("goals", target=NODE, count=plan.goals, size=plan.size, patience=GOAL_PATIENCE_S)
    clients = [goal_sender, context.camera(plan.camera_names[0], GOAL_HZ), context.caller()]
    observed = context.watch(clients)
    (counts,) = observed.of(clients, "goals")
    load = f"{plan.goals} goals at once, half of them with a picture, beside a camera at {GOAL_HZ:g} Hz"
    outcome = _outcome(context, "goals", load, clients, observed, answers_of_goals=True)
    outcome.checks += check_goals(counts, observed.delta)
    return outcome


def subscribers(context: ScenarioContext) -> ScenarioResult:
    """Run subscribers that never read, that read one message per second, and that are killed."""
    plan = context.plan
    prefix = f"{NODE}/{plan.camera_names[0]}"

    def readers(rate: float) -> list[ClientProcess]:
        options: dict[str, Any] = {"prefixes": [prefix], "rate": rate, "seconds": plan.seconds}
        return [context.client("subscriber", **options) for _ in range(plan.subscribers)]

    dying = readers(1000.0)
    slow = [*readers(0.0), *readers(SLOW_HZ)]
    clients = [context.camera(plan.camera_names[0], plan.hz), *slow, context.caller()]

    def kill() -> None:
        pause = plan.seconds / (len(dying) + 1)
        for client in dying:
            time.sleep(pause)
            client.kill()

    observed = context.watch(clients, kill, dying)
    load = (
        f"{plan.subscribers} subscribers that never read, {plan.subscribers} that read {SLOW_HZ:g} message a second, "
        f"{plan.subscribers} killed; a camera at {plan.hz:g} Hz: {_rates(observed, clients)} reached"
    )
    return _outcome(context, "subscribers", load, clients, observed)


def _rates(observed: ScenarioObservation, clients: Sequence[ClientProcess]) -> str:
    """Describe the frame rates that the cameras reached."""
    counts = observed.of(clients, "camera")
    return ", ".join(f"{(one['sent'] - 1) / one['seconds']:.1f}" for one in counts)


def _shares(observed: ScenarioObservation) -> str:
    """Describe the processor time of the node, the load clients and all other processes."""
    used = observed.used
    load = sum(counts["cpu_s"] for counts in observed.client_counts)
    others = max(0.0, used.machine - used.node - load)
    return (
        f"processor time in {used.seconds:.1f} s: the node {used.node:.1f} s, the load clients {load:.1f} s, "
        f"others {others:.1f} s"
    )


def _outcome(
    context: ScenarioContext,
    name: str,
    load: str,
    clients: Sequence[ClientProcess],
    observed: ScenarioObservation,
    answers_of_goals: bool = False,
) -> ScenarioResult:
    """Return the result of a scenario with the checks that apply to every load."""
    plan = context.plan
    (called,) = observed.of(clients, "services")
    sent = sum(counts["sent"] for counts in observed.of(clients, "camera"))
    checks: list[Check] = [
        check_memory(observed.memory, plan.memory_mb),
        check_newest(observed.newest_s, plan.answer_s),
        *check_services(called["ms"], called["unanswered"], plan.service_ms),
        *check_frames(sent, observed.delta),
    ]
    if not answers_of_goals:  # answers to goals about a camera's frame are published on the topics, too
        checks.append(check_answers(observed.heard, observed.delta))
    numbers = {
        "counted": observed.delta,
        "services_ms": {service: latencies(ms) for service, ms in called["ms"].items()},
        "memory_mb": vars(observed.memory),
        "newest_s": observed.newest_s,
        "cpu_s": vars(observed.used),
        "clients": [
            {"role": client.role, **{key: value for key, value in counts.items() if key != "ms"}}
            for client, counts in zip(clients, observed.client_counts, strict=True)
        ],
    }
    return ScenarioResult(name, load, _shares(observed), checks, numbers)


SCENARIOS: dict[str, Callable[[ScenarioContext], ScenarioResult]] = {
    scenario.__name__: scenario for scenario in (cameras, queries, goals, subscribers)
}
