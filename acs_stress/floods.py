"""The scenarios of ``acs-load``: cameras, queries, goals, and subscribers that do not keep up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from acs_stress.crowd import Flooder
from acs_stress.judging import (
    Check,
    judge_answers,
    judge_frames,
    judge_goals,
    judge_memory,
    judge_newest,
    judge_queries,
    judge_services,
    latencies,
)
from acs_stress.load import SERVICE_S, Outcome, Seen, Stage
from acs_stress.robot import NODE

QUERY_HZ, GOAL_HZ = 10.0, 5.0  # of the one camera that films meanwhile
UNUSABLE_EVERY = 10
LAST_PHRASE = "the last key"
GOAL_PATIENCE_S = 120.0
SLOW_HZ = 1.0


def cameras(stage: Stage) -> Outcome:
    """Every camera at its full rate."""
    plan = stage.plan
    flooders = [*(stage.camera(name, plan.hz) for name in plan.camera_names), stage.caller()]
    seen = stage.watch(flooders)
    width, height = plan.size
    load = f"{plan.cameras} cameras of {width}x{height} at {plan.hz:g} Hz: {_rates(seen, flooders)} reached"
    return _outcome(stage, "cameras", load, flooders, seen)


def queries(stage: Stage) -> Outcome:
    """Somebody who changes the query all the time."""
    plan = stage.plan
    talker = stage.flooder(
        "queries",
        topic=f"{NODE}/query",
        rate=plan.query_rate,
        seconds=plan.seconds,
        unusable_every=UNUSABLE_EVERY,
        last_phrase=LAST_PHRASE,
    )
    flooders = [talker, stage.camera(plan.camera_names[0], QUERY_HZ), stage.caller()]
    seen = stage.watch(flooders)
    in_force = stage.robot.list_queries(SERVICE_S)
    (told,), (called,) = seen.of(flooders, "queries"), seen.of(flooders, "services")
    load = f"{plan.query_rate:g} queries a second: {told['sent'] / plan.seconds:.0f} reached, beside a camera"
    outcome = _outcome(stage, "queries", load, flooders, seen)
    calls = len(called["ms"]["set_queries"])
    outcome.checks += judge_queries(told["sent"], told["bad"], calls, seen.delta, (LAST_PHRASE,), in_force)
    return outcome


def goals(stage: Stage) -> Outcome:
    """Many goals at once, half of them with a picture of their own."""
    plan = stage.plan
    asker = stage.flooder("goals", target=NODE, count=plan.goals, size=plan.size, patience=GOAL_PATIENCE_S)
    flooders = [asker, stage.camera(plan.camera_names[0], GOAL_HZ), stage.caller()]
    seen = stage.watch(flooders)
    (told,) = seen.of(flooders, "goals")
    load = f"{plan.goals} goals at once, half of them with a picture, beside a camera at {GOAL_HZ:g} Hz"
    outcome = _outcome(stage, "goals", load, flooders, seen, answers_of_goals=True)
    outcome.checks += judge_goals(told, seen.delta)
    return outcome


def subscribers(stage: Stage) -> Outcome:
    """Some who never read, some who read one message a second, and some who die in the middle."""
    plan = stage.plan
    prefix = f"{NODE}/{plan.camera_names[0]}"

    def hearers(rate: float) -> list[Flooder]:
        options: dict[str, Any] = {"prefixes": [prefix], "rate": rate, "seconds": plan.seconds}
        return [stage.flooder("hearer", **options) for _ in range(plan.subscribers)]

    dying = hearers(1000.0)
    slow = [*hearers(0.0), *hearers(SLOW_HZ)]
    flooders = [stage.camera(plan.camera_names[0], plan.hz), *slow, stage.caller()]

    def kill() -> None:
        pause = plan.seconds / (len(dying) + 1)
        for flooder in dying:
            time.sleep(pause)
            flooder.kill()

    seen = stage.watch(flooders, kill, dying)
    load = (
        f"{plan.subscribers} subscribers that never read, {plan.subscribers} that read {SLOW_HZ:g} message a second, "
        f"{plan.subscribers} killed; a camera at {plan.hz:g} Hz: {_rates(seen, flooders)} reached"
    )
    return _outcome(stage, "subscribers", load, flooders, seen)


def _rates(seen: Seen, flooders: Sequence[Flooder]) -> str:
    """Frames a second that each camera reached."""
    told = seen.of(flooders, "camera")
    return ", ".join(f"{(one['sent'] - 1) / one['seconds']:.1f}" for one in told)


def _shares(seen: Seen) -> str:
    """Who used the processors."""
    used = seen.used
    crowd = sum(told["cpu_s"] for told in seen.told)
    others = max(0.0, used.machine - used.node - crowd)
    return (
        f"processor time in {used.seconds:.1f} s: the node {used.node:.1f} s, those who load it {crowd:.1f} s, "
        f"others {others:.1f} s"
    )


def _outcome(
    stage: Stage,
    name: str,
    load: str,
    flooders: Sequence[Flooder],
    seen: Seen,
    answers_of_goals: bool = False,
) -> Outcome:
    """What is promised under every load."""
    plan = stage.plan
    (called,) = seen.of(flooders, "services")
    sent = sum(told["sent"] for told in seen.of(flooders, "camera"))
    checks: list[Check] = [
        judge_memory(seen.memory, plan.memory_mb),
        judge_newest(seen.newest_s, plan.answer_s),
        *judge_services(called["ms"], called["unanswered"], plan.service_ms),
        *judge_frames(sent, seen.delta),
    ]
    if not answers_of_goals:  # those about a camera's frame go to the topics too, beside the standing query's
        checks.append(judge_answers(seen.heard, seen.delta))
    numbers = {
        "counted": seen.delta,
        "services_ms": {service: latencies(ms) for service, ms in called["ms"].items()},
        "memory_mb": vars(seen.memory),
        "newest_s": seen.newest_s,
        "cpu_s": vars(seen.used),
        "flooders": [
            {"role": flooder.role, **{key: value for key, value in told.items() if key != "ms"}}
            for flooder, told in zip(flooders, seen.told, strict=True)
        ],
    }
    return Outcome(name, load, _shares(seen), checks, numbers)


SCENARIOS: dict[str, Callable[[Stage], Outcome]] = {
    scenario.__name__: scenario for scenario in (cameras, queries, goals, subscribers)
}
