"""The one line on /diagnostics that says how the node does and, when nothing comes out, why."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from acs_ros.ledger import Facts, Rates
from acs_ros.memory import Memory
from acs_ros.queries import show_queries

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@dataclass(frozen=True)
class Limits:
    """Where a level changes; the parameters of the same names (``hang_after``, ``warn_...``). 0 turns one off."""

    hang_after: float = 60.0
    input_rate: float = 0.0
    answer_rate: float = 0.0
    latency: float = 0.0
    unparseable: float = 1.0
    host_memory_gb: float = 0.0
    gpu_memory: float = 1.0


@dataclass(frozen=True)
class Input:
    """One camera's topic: how many publish there, when its last image came, and since when it is subscribed to."""

    topic: str
    publishers: int
    last_image: float | None = None
    since: float | None = None


@dataclass(frozen=True)
class Situation:
    """What the node knows about itself besides the counters."""

    state: str  # lifecycle state: unconfigured, configuring, inactive, active, ...
    queries: tuple[str, ...]
    inputs: tuple[Input, ...]
    query_topic: str
    image_timeout: float
    model: str
    selector: str
    device: str
    now: float
    active_since: float | None = None
    mode: str = "continuous"
    held: bool = False
    listening: bool = True  # whether a camera is subscribed to; on demand it mostly is not
    rates: Rates = field(default_factory=Rates)
    memory: Memory = field(default_factory=Memory)
    limits: Limits = field(default_factory=Limits)


def verdict(facts: Facts, at: Situation) -> tuple[bytes, str]:
    """Level and message of the status. The message is the first reason that keeps answers from coming out, then the
    first that makes them worse."""
    if at.state != "active":
        return _not_active(facts, at)
    if facts.working_since is not None and at.now - facts.working_since > at.limits.hang_after:
        busy = at.now - facts.working_since
        return ERROR, f"the model has been working on one frame for {busy:.0f} s: it hangs, or the machine is too slow"
    if at.held:
        return WARN, "paused: call ~/pause with data: false to go on"
    if at.listening:
        found = _no_images(facts, at)
        if found is not None:
            return found
    shown = show_queries(at.queries)
    if facts.last_query_problem:
        asked = f"still asking for {shown}" if at.queries else "nothing is asked"
        return WARN, f"the last query was rejected ({asked}): {facts.last_query_problem}"
    if not at.queries and facts.query_qos_problem:
        return ERROR, facts.query_qos_problem
    if facts.last_failure:
        return ERROR, f"the last frame could not be answered: {facts.last_failure}"
    if not at.queries and at.mode == "continuous":
        return WARN, f"no query: publish a phrase on {at.query_topic}"
    if facts.last_abstention:
        return WARN, f"no box for {facts.last_abstention}"
    return _quality(facts, at)


def _no_images(facts: Facts, at: Situation) -> tuple[bytes, str] | None:
    for camera in at.inputs:
        heard = max((t for t in (camera.last_image, camera.since, at.active_since) if t is not None), default=None)
        if heard is None or at.now - heard > at.image_timeout:
            if facts.image_qos_problem:
                return ERROR, facts.image_qos_problem
            who = "a publisher is there, but sends nothing" if camera.publishers else "nobody publishes there"
            return WARN, f"no images on {camera.topic} for {at.image_timeout:g} s: {who}"
    waiting = [camera.topic for camera in at.inputs if camera.last_image is None]
    if waiting:
        return OK, f"waiting for the first image on {', '.join(waiting)}"
    if facts.last_image_problem:
        return WARN, f"the last image could not be used: {facts.last_image_problem}"
    return None


def _quality(facts: Facts, at: Situation) -> tuple[bytes, str]:
    """Answers come; what is not as it should be?"""
    limits, rates, memory = at.limits, at.rates, at.memory
    latency = (rates.latency_p95_ms or 0.0) / 1000
    found = [
        (facts.clock_problem, facts.clock_problem),
        (facts.stamp_problem, facts.stamp_problem),
        (facts.output_qos_problem, facts.output_qos_problem),
        (facts.depth_problem, f"no place in space: {facts.depth_problem}"),
        (
            rates.unparseable_share is not None and rates.unparseable_share > limits.unparseable,
            f"{rates.unparseable_share or 0:.0%} of the last responses gave no box (warn_unparseable)",
        ),
        (
            at.listening and 0 < rates.input_hz < limits.input_rate,
            f"only {rates.input_hz:.1f} images per second, less than warn_input_rate = {limits.input_rate:g}",
        ),
        (
            facts.last_answer is not None and at.mode == "continuous" and rates.answer_hz < limits.answer_rate,
            f"only {rates.answer_hz:.2f} answers per second, less than warn_answer_rate = {limits.answer_rate:g}",
        ),
        (
            0 < limits.latency < latency,
            f"latency p95 is {latency:.2f} s, above warn_latency = {limits.latency:g}",
        ),
        (
            0 < limits.host_memory_gb < memory.host_gb,
            f"{memory.host_gb:.1f} GB of host memory, above warn_host_memory = {limits.host_memory_gb:g}",
        ),
        (
            memory.gpu_share is not None and 0 < limits.gpu_memory < memory.gpu_share,
            f"{memory.gpu_share or 0:.0%} of the GPU's memory is in use (warn_gpu_memory)",
        ),
        (facts.last_skipped, f"answers are cut short: {facts.last_skipped}"),
    ]
    for holds, problem in found:
        if holds:
            return WARN, problem
    if facts.working_since is not None:
        return OK, f"the model has been working on a frame for {at.now - facts.working_since:.1f} s"
    if at.mode != "continuous":
        return OK, "ready: waiting to be asked"
    if facts.last_answer is None:
        return OK, "waiting for the next image"
    return OK, f"answering {show_queries(at.queries)}"


def _not_active(facts: Facts, at: Situation) -> tuple[bytes, str]:
    if facts.load_problem:
        return ERROR, f"no model: {facts.load_problem}"
    if at.state == "configuring":
        since = "" if facts.loading_since is None else f" for {at.now - facts.loading_since:.0f} s"
        return OK, f"loading the model {at.model}{since}, {at.memory.host_gb:.1f} GB of host memory so far"
    if at.state == "unconfigured":
        return WARN, "no model is loaded: configure the node (ros2 lifecycle set ... configure)"
    if at.state == "inactive":
        return WARN, "the model is loaded, but the node is not active (ros2 lifecycle set ... activate)"
    return WARN, f"the node is {at.state}"


def make_status(node_name: str, facts: Facts, at: Situation) -> DiagnosticStatus:
    """The DiagnosticStatus of the node: verdict, counters, rates, and what it is running."""
    level, message = verdict(facts, at)
    values = {
        "state": at.state,
        "mode": at.mode,
        "paused": str(at.held).lower(),
        "query": "; ".join(at.queries),
        "model": at.model,
        "selector": at.selector,
        "device": at.device,
    }
    values |= {name: _text(getattr(at.rates, name)) for name in (f.name for f in fields(Rates))}
    values |= {
        "host_memory_gb": f"{at.memory.host_gb:.2f}",
        "gpu_memory_gb": "" if at.memory.gpu_gb is None else f"{at.memory.gpu_gb:.2f}",
        "gpu_memory_share": "" if at.memory.gpu_share is None else f"{at.memory.gpu_share:.3f}",
    }
    hidden = ("last_image", "last_answer", "working_since", "loading_since")
    values |= {f.name: _text(getattr(facts, f.name)) for f in fields(Facts) if f.name not in hidden}
    values["busy_s"] = _age(facts.working_since, at.now)
    values["last_image_age_s"] = _age(facts.last_image, at.now)
    values["last_answer_age_s"] = _age(facts.last_answer, at.now)
    pairs = [KeyValue(key=k, value=v) for k, v in values.items()]
    return DiagnosticStatus(
        level=level, name=f"{node_name}: grounding", message=message, hardware_id=at.device, values=pairs
    )


def _age(then: float | None, now: float) -> str:
    return "" if then is None else f"{max(0.0, now - then):.2f}"


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)
