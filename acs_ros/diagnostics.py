"""What the node did and, when nothing comes out, why: counters, and the one line on /diagnostics that says it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from acs_core.types import GroundingResult

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@dataclass(frozen=True)
class Facts:
    """Everything a status is made from. Times are seconds of a steady clock; None: never."""

    images: int = 0  # received while active
    bad_images: int = 0
    images_without_query: int = 0
    replaced: int = 0  # waited for the model, or for max_rate, until a newer frame came
    restarted: int = 0  # begun again because the query changed
    answered: int = 0  # results published, abstentions included
    abstained: int = 0
    failed: int = 0
    rejected_queries: int = 0
    last_image: float | None = None
    last_answer: float | None = None
    working_since: float | None = None
    last_latency_ms: float | None = None
    last_image_problem: str = ""  # empty again after a good image
    last_query_problem: str = ""  # empty again after a good query
    last_failure: str = ""  # empty again after an answer
    last_abstention: str = ""  # empty again after an answer with a box
    image_qos_problem: str = ""
    query_qos_problem: str = ""
    output_qos_problem: str = ""
    load_problem: str = ""


@dataclass
class Ledger:
    """The node's counters, safe to write from any thread."""

    clock: Callable[[], float] = time.monotonic
    _facts: Facts = field(default_factory=Facts)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, **changes: float | str | None) -> None:
        """Set facts by name."""
        with self._lock:
            self._facts = replace(self._facts, **changes)  # type: ignore[arg-type]

    def count(self, *names: str) -> None:
        """Add one to each named counter."""
        with self._lock:
            self._facts = replace(self._facts, **{n: getattr(self._facts, n) + 1 for n in names})

    def image_came(self, problem: str = "") -> None:
        """An image arrived; ``problem`` says why it cannot be used."""
        self.count("images", *(("bad_images",) if problem else ()))
        self.note(last_image=self.clock(), last_image_problem=problem)

    def work_began(self) -> None:
        """The model was given a frame."""
        self.note(working_since=self.clock())

    def work_ended(self) -> None:
        """The model is idle."""
        self.note(working_since=None)

    def result_sent(self, result: GroundingResult, latency_ms: float) -> None:
        """A result was published, ``latency_ms`` after the model was given its frame."""
        abstained = not result.detections
        self.count("answered", *(("abstained",) if abstained else ()))
        reason = (result.reason or "no box was good enough") if abstained else ""
        self.note(last_answer=self.clock(), last_latency_ms=latency_ms, last_failure="", last_abstention=reason)

    def failure(self, problem: str) -> None:
        """A frame could not be answered."""
        self.count("failed")
        self.note(last_failure=problem)

    def new_activation(self) -> None:
        """Forget what belonged to an earlier activation; the counters go on."""
        self.note(
            last_image=None,
            working_since=None,
            last_image_problem="",
            last_failure="",
            last_abstention="",
            image_qos_problem="",
        )

    def facts(self) -> Facts:
        """A consistent copy."""
        with self._lock:
            return self._facts


@dataclass(frozen=True)
class Situation:
    """What the node knows about itself besides the counters."""

    state: str  # lifecycle state: unconfigured, configuring, inactive, active, ...
    query: str
    image_topic: str
    query_topic: str
    image_publishers: int
    image_timeout: float
    model: str
    selector: str
    device: str
    now: float
    active_since: float | None = None


def verdict(facts: Facts, at: Situation) -> tuple[bytes, str]:
    """Level and message of the status. The message is the first reason that keeps answers from coming out."""
    if at.state != "active":
        return _not_active(facts, at)
    heard = facts.last_image if facts.last_image is not None else at.active_since
    if heard is None or at.now - heard > at.image_timeout:
        if facts.image_qos_problem:
            return ERROR, facts.image_qos_problem
        who = "a publisher is there, but sends nothing" if at.image_publishers else "nobody publishes there"
        return WARN, f"no images on {at.image_topic} for {at.image_timeout:g} s: {who}"
    if facts.last_image is None:
        return OK, f"waiting for the first image on {at.image_topic}"
    if facts.last_image_problem:
        return WARN, f"the last image could not be used: {facts.last_image_problem}"
    if facts.last_query_problem:
        asked = f"still asking for {at.query!r}" if at.query else "nothing is asked"
        return WARN, f"the last query was rejected ({asked}): {facts.last_query_problem}"
    if not at.query and facts.query_qos_problem:
        return ERROR, facts.query_qos_problem
    if not at.query:
        return WARN, f"no query: publish a phrase on {at.query_topic}"
    if facts.last_failure:
        return ERROR, f"the last frame could not be answered: {facts.last_failure}"
    if facts.last_abstention:
        return WARN, f"no box for {at.query!r}: {facts.last_abstention}"
    if facts.output_qos_problem:
        return WARN, facts.output_qos_problem
    if facts.working_since is not None:
        return OK, f"the model has been working on a frame for {at.now - facts.working_since:.1f} s"
    if facts.last_answer is None:
        return OK, "waiting for the next image"
    return OK, f"answering {at.query!r}"


def _not_active(facts: Facts, at: Situation) -> tuple[bytes, str]:
    if facts.load_problem:
        return ERROR, f"no model: {facts.load_problem}"
    if at.state == "configuring":
        return OK, f"loading the model {at.model}"
    if at.state == "unconfigured":
        return WARN, "no model is loaded: configure the node (ros2 lifecycle set ... configure)"
    if at.state == "inactive":
        return WARN, "the model is loaded, but the node is not active (ros2 lifecycle set ... activate)"
    return WARN, f"the node is {at.state}"


def make_status(node_name: str, facts: Facts, at: Situation) -> DiagnosticStatus:
    """The DiagnosticStatus of the node: verdict, counters, and what it is running."""
    level, message = verdict(facts, at)
    values = {"state": at.state, "query": at.query, "model": at.model, "selector": at.selector, "device": at.device}
    hidden = ("last_image", "last_answer", "working_since")
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
    return f"{value:.1f}" if isinstance(value, float) else str(value)
