"""The status on /diagnostics: level, a message with the worst problem, and all values.

Names and levels follow diagnostic_updater: ``NODE: grounding`` with the node's name, or with its full name where the
parameter ``diagnostic_updater.use_fqn`` is true; ERROR where the node cannot do what it is asked, or its input has
stopped or carries unusable stamps (as FrequencyStatus and TimeStampStatus have it), WARN where it goes on with a
limitation or waits for its operator, OK else. STALE is left to the aggregator, which sets it when no status comes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from acs_core.plain_text import one_line
from acs_ros.diagnostics.memory import Memory
from acs_ros.diagnostics.statistics import Rates, StatisticsSnapshot

CAMERA_PROBLEMS = (
    "last_image_problem",
    "stamp_problem",
    "depth_problem",
    "image_qos_problem",
    "depth_qos_problem",
)
MAX_VALUE = 8000  # characters: of all queries together
NO_CLOCK = "use_sim_time is true, but nothing is published on /clock: start the simulator, or play the bag with --clock"
TASK = "grounding"  # of diagnostic_updater: what the status is about
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@dataclass(frozen=True)
class StatusLimits:
    """Thresholds of the level: the parameters ``hang_after`` and ``warn_...``. 0 switches one off."""

    hang_after: float = 60.0
    input_rate: float = 0.0
    answer_rate: float = 0.0
    latency: float = 0.0
    unparseable: float = 1.0
    host_memory_gb: float = 0.0
    gpu_memory: float = 1.0


@dataclass(frozen=True)
class Input:
    """The topic of one camera: count of publishers, time of the last image, since when it is subscribed to, the name of
    the camera, whether it is subscribed to, the type it is published with, if that is not the one that is read, and
    what to do if another image transport is published."""

    topic: str
    publishers: int
    last_image: float | None = None
    since: float | None = None
    name: str = ""
    listening: bool = True
    other_type: str = ""
    other_transport: str = ""


@dataclass(frozen=True)
class Situation:
    """State of the node besides the counters."""

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
    no_clock: bool = False  # whether the time is to come from /clock and did not yet
    rates: Rates = field(default_factory=Rates)
    memory: Memory = field(default_factory=Memory)
    limits: StatusLimits = field(default_factory=StatusLimits)


def verdict(facts: StatisticsSnapshot, at: Situation) -> tuple[bytes, str]:
    """Level and message of the status: the message is the worst problem (:func:`findings`), else what the node does;
    the level is that of all problems."""
    found = findings(facts, at)
    return max(level for level, _ in found), found[0][1]


def findings(facts: StatisticsSnapshot, at: Situation) -> list[tuple[bytes, str]]:
    """Level and text of everything that there is to say, the worst first.

    Mixed clocks come before all else, since they make every stamp wrong; then errors, warnings and at last what the
    node does, in each the cause before what follows from it.
    """
    if at.state != "active":
        return sorted([_not_active(facts, at), *_set_up(facts)], key=lambda finding: -finding[0][0])
    clocks = _mixed_clocks(facts, at)
    found = [*_stopped(facts, at), *_inputs(facts, at), *_queries(facts, at), *_quality(facts, at), *_set_up(facts)]
    found.append(_doing(facts, at))
    return clocks + sorted(found, key=lambda finding: -finding[0][0])


def _set_up(facts: StatisticsSnapshot) -> list[tuple[bytes, str]]:
    return [(WARN, problem) for problem in (facts.name_problem, facts.setup_problem) if problem]


def _mixed_clocks(facts: StatisticsSnapshot, at: Situation) -> list[tuple[bytes, str]]:
    if at.no_clock:
        return [(ERROR, NO_CLOCK)]
    told = (facts.camera(camera.name) for camera in at.inputs)
    return [(ERROR, problems.stamp) for problems in told if problems.clocks_mixed]


def _stopped(facts: StatisticsSnapshot, at: Situation) -> list[tuple[bytes, str]]:
    found = []
    if facts.working_since is not None and at.now - facts.working_since > at.limits.hang_after:
        busy = at.now - facts.working_since
        problem = f"the model has been working on one frame for {busy:.0f} s: it hangs, or the machine is too slow"
        found.append((ERROR, problem))
    if at.held:
        found.append((WARN, "paused: call ~/pause with data: false to go on"))
    return found


def _inputs(facts: StatisticsSnapshot, at: Situation) -> list[tuple[bytes, str]]:
    found = []
    for camera in at.inputs:
        silence, problem = silence_of(camera, facts, at), facts.camera(camera.name).image
        if silence is not None:
            found.append(silence)
        elif problem:
            found.append((WARN, f"the last image on {camera.topic} could not be used: {problem}"))
    return found


def silence_of(camera: Input, facts: StatisticsSnapshot, at: Situation) -> tuple[bytes, str] | None:
    """Level and reason when no image of a camera that is subscribed to came for ``image_timeout``; else None."""
    if not (at.state == "active" and at.listening and camera.listening) or at.held:
        return None
    heard = max((t for t in (camera.last_image, camera.since, at.active_since) if t is not None), default=None)
    if heard is not None and at.now - heard <= at.image_timeout:
        return None
    problem = facts.camera(camera.name).image_qos
    if problem and camera.publishers:
        return ERROR, f"no images on {camera.topic} for {at.image_timeout:g} s: {problem}"
    who = "a publisher is there, but sends nothing" if camera.publishers else "nobody publishes there"
    if camera.other_transport and not camera.publishers:
        who += f"; {camera.other_transport}"
    if camera.other_type:
        who = f"it is published as {camera.other_type}, not as image_transport says"
    return ERROR, f"no images on {camera.topic} for {at.image_timeout:g} s: {who}"


def _queries(facts: StatisticsSnapshot, at: Situation) -> list[tuple[bytes, str]]:
    found = []
    if facts.last_query_problem:
        asked = f"still asking for {show_queries(at.queries)}" if at.queries else "nothing is asked"
        found.append((WARN, f"the last query was rejected ({asked}): {facts.last_query_problem}"))
    if not at.queries and facts.query_qos_problem:
        found.append((ERROR, facts.query_qos_problem))
    if facts.last_failure:
        found.append((ERROR, f"the last frame could not be answered: {facts.last_failure}"))
    if not at.queries and at.mode == "continuous" and not facts.last_query_problem:
        found.append((WARN, f"no query: publish a phrase on {at.query_topic}"))
    return found


def _quality(facts: StatisticsSnapshot, at: Situation) -> list[tuple[bytes, str]]:
    """The problems with the answers that are published."""
    limits, rates, memory = at.limits, at.rates, at.memory
    latency = (rates.latency_p95_ms or 0.0) / 1000
    found = [
        (facts.clock_problem, facts.clock_problem),
        *((p.stamp and not p.clocks_mixed, p.stamp) for p in (facts.camera(c.name) for c in at.inputs)),
        (facts.output_qos_problem, facts.output_qos_problem),
        *(_without_place(camera, facts) for camera in at.inputs),
        (facts.answer_problem, f"no answer for {facts.answer_problem}"),
        (
            rates.unparseable_share is not None and rates.unparseable_share > limits.unparseable,
            f"{rates.unparseable_share or 0:.0%} of the last responses gave no box, nor said that there is none "
            "(warn_unparseable)",
        ),
        (
            at.listening and 0 < rates.input_hz < limits.input_rate,
            f"only {rates.input_hz:.1f} images per second, less than warn_input_rate = {limits.input_rate:g} "
            "(of the slowest camera)",
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
    stamps = {p.stamp for p in (facts.camera(c.name) for c in at.inputs)}
    return [(ERROR if problem in stamps else WARN, problem) for holds, problem in found if holds]


def _without_place(camera: Input, facts: StatisticsSnapshot) -> tuple[str, str]:
    problems = facts.camera(camera.name)
    why = problems.depth and (problems.depth_qos or problems.depth)
    return why, f"{camera.name}: no place in space: {why}" if camera.name else f"no place in space: {why}"


def _doing(facts: StatisticsSnapshot, at: Situation) -> tuple[bytes, str]:
    """What the node does; an abstention is an answer."""
    waiting = [c.topic for c in at.inputs if c.last_image is None and c.listening and at.listening]
    if waiting:
        return OK, f"waiting for the first image on {', '.join(waiting)}"
    if facts.last_abstention:
        return OK, f"no box for {facts.last_abstention}"
    if facts.working_since is not None:
        return OK, f"the model has been working on a frame for {at.now - facts.working_since:.1f} s"
    if at.mode != "continuous":
        return OK, "ready: waiting to be asked"
    if facts.last_answer is None:
        return OK, "waiting for the next image"
    return OK, f"answering {show_queries(at.queries)}"


def _not_active(facts: StatisticsSnapshot, at: Situation) -> tuple[bytes, str]:
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


def make_status(node_name: str, facts: StatisticsSnapshot, at: Situation, use_fqn: bool = False) -> DiagnosticStatus:
    """The DiagnosticStatus of the node: verdict, counters, rates, and what it is running.

    Args:
        node_name: Full name of the node, which is also the value ``node``.
        facts: The counters.
        at: The rest of the node's state.
        use_fqn: Whether the name of the status begins with the full name.
    """
    level, message = verdict(facts, at)
    # With an abstention, which is no problem, but would otherwise be hidden by one.
    told = (WARN, ERROR) if not facts.last_abstention else (OK, WARN, ERROR)
    others = [text for other, text in findings(facts, at)[1:] if other in told]
    values = {
        "node": node_name,
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
    hidden = ("last_image", "last_answer", "working_since", "loading_since", "cameras")
    values |= {f.name: _text(getattr(facts, f.name)) for f in fields(StatisticsSnapshot) if f.name not in hidden}
    values |= {name: str(getattr(facts, name)) for name in CAMERA_PROBLEMS}
    values["other_problems"] = "; ".join(others)
    values["busy_s"] = _age(facts.working_since, at.now)
    values["last_image_age_s"] = _age(facts.last_image, at.now)
    values["last_answer_age_s"] = _age(facts.last_answer, at.now)
    pairs = [KeyValue(key=k, value=one_line(v, MAX_VALUE)) for k, v in values.items()]
    return DiagnosticStatus(
        level=level,
        name=f"{node_name if use_fqn else node_name.rpartition('/')[2]}: {TASK}",
        message=one_line(message),
        hardware_id=one_line(at.device),
        values=pairs,
    )


def _age(then: float | None, now: float) -> str:
    return "" if then is None else f"{max(0.0, now - then):.2f}"


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def show_queries(phrases: tuple[str, ...]) -> str:
    """Phrases as text: ``'key', 'red mug'``."""
    return ", ".join(map(repr, phrases))
