"""What the node did: counters, rates and the last problem of each kind, written by every thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from acs_core.types import GroundingResult

WINDOW_S = 10.0  # rates are over the last seconds
LATENCIES = 200  # percentiles are over the last answers
RESPONSES = 200  # the share of unparseable responses is over the last responses
# What becomes of an image: once the node is at rest, each has been counted as one of these, and only one.
FATES = (
    "bad_images",
    "images_without_query",
    "images_unasked",
    "replaced",
    "dropped",
    "failed",
    "frames_answered",
)


@dataclass(frozen=True)
class Facts:
    """Everything a status is made from. Times are seconds of a steady clock; None: never."""

    images: int = 0  # received; the next seven are their FATES
    bad_images: int = 0
    images_without_query: int = 0
    images_unasked: int = 0  # came in the middle of a pause or deactivation, or on demand when none was due
    replaced: int = 0  # waited for the model, or for max_rate, until a newer frame came
    dropped: int = 0  # waited or was at work when the node was paused or deactivated, or the queries changed
    failed: int = 0
    frames_answered: int = 0
    restarted: int = 0  # begun again because the queries changed
    answered: int = 0  # results published, one per phrase and frame, abstentions and those of goals included
    abstained: int = 0
    responses: int = 0  # sampled answers of the model
    unparseable: int = 0  # of them, those that gave no box and did not say that the object is absent
    goals: int = 0  # each ends as one of the next three
    goals_succeeded: int = 0
    goals_failed: int = 0  # aborted; cancelled ones are not failures
    goals_cancelled: int = 0
    queries: int = 0  # taken, by topic or service
    rejected_queries: int = 0
    clock_jumps: int = 0
    last_image: float | None = None
    last_answer: float | None = None
    working_since: float | None = None
    loading_since: float | None = None
    last_latency_ms: float | None = None
    last_image_problem: str = ""  # empty again after a good image
    stamp_problem: str = ""  # empty again after an image with a good stamp
    clock_problem: str = ""  # empty again after WINDOW_S
    depth_problem: str = ""  # empty again after a box with depth
    last_query_problem: str = ""  # empty again after a good query
    last_failure: str = ""  # empty again after an answer
    last_abstention: str = ""  # empty again after an answer with a box
    last_skipped: str = ""  # what was left out of the last answer
    image_qos_problem: str = ""
    query_qos_problem: str = ""
    output_qos_problem: str = ""
    load_problem: str = ""


@dataclass(frozen=True)
class Rates:
    """Over the last seconds and answers. None: nothing to measure from."""

    input_hz: float = 0.0  # of the slowest camera
    answer_hz: float = 0.0  # frames answered
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    unparseable_share: float | None = None


class Ledger:
    """The node's counters, safe to write from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._facts = Facts()
        self._lock = threading.Lock()
        self._arrivals: dict[str, deque[float]] = {}
        self._last: dict[str, float] = {}
        self._answers: deque[float] = deque()
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self._unparseable: deque[bool] = deque(maxlen=RESPONSES)
        self._since = clock()

    def note(self, **changes: float | str | None) -> None:
        """Set facts by name."""
        with self._lock:
            self._facts = replace(self._facts, **changes)  # type: ignore[arg-type]

    def count(self, *names: str, by: int = 1) -> None:
        """Add ``by`` to each named counter."""
        with self._lock:
            self._facts = replace(self._facts, **{n: getattr(self._facts, n) + by for n in names})

    def record(self, *names: str, **changes: float | str | None) -> None:
        """Add one to each named counter and set facts by name, in one step: who sees the count sees the facts."""
        with self._lock:
            counted = {n: getattr(self._facts, n) + 1 for n in names}
            self._facts = replace(self._facts, **counted, **changes)  # type: ignore[arg-type]

    def image_begins(self, camera: str = "") -> None:
        """An image that can be used is about to be handed in; :meth:`image_came` counts it once it has its fate."""
        now = self.clock()
        with self._lock:
            self._last[camera] = now
        self.note(last_image=now, last_image_problem="")

    def image_came(self, problem: str = "", camera: str = "") -> None:
        """An image arrived; ``problem`` says why it cannot be used."""
        now = self.clock()
        with self._lock:
            _recent(self._arrivals.setdefault(camera, deque()), now).append(now)
            self._last[camera] = now
        bad = ("bad_images",) if problem else ()
        self.record("images", *bad, last_image=now, last_image_problem=problem)

    def last_image_of(self, camera: str) -> float | None:
        """When this camera's last image came; None: none since the activation."""
        with self._lock:
            return self._last.get(camera)

    def work_began(self) -> None:
        """The model was given a frame."""
        self.note(working_since=self.clock())

    def work_ended(self) -> None:
        """The model is idle."""
        self.note(working_since=None)

    def results_sent(self, results: Sequence[GroundingResult], latency_ms: float) -> None:
        """The results about a frame were published, ``latency_ms`` after the model was given it."""
        from acs_core.candidates import ABSENT  # late: it brings torch, which is there by now

        now = self.clock()
        silent = [r for r in results if not r.detections]
        responses = [response for r in results for response in r.responses]
        lost = [r.num_boxes == 0 and r.problem != ABSENT for r in responses]
        reasons = [f"{r.phrase!r}: {r.reason or 'no box was good enough'}" for r in silent]
        skipped = [sentence for r in results for sentence in getattr(r, "skipped", ())]
        with self._lock:
            _recent(self._answers, now).append(now)
            self._latencies.append(latency_ms)
            self._unparseable.extend(lost)
            before = self._facts
            self._facts = replace(
                before,
                answered=before.answered + len(results),
                abstained=before.abstained + len(silent),
                responses=before.responses + len(lost),
                unparseable=before.unparseable + sum(lost),
                last_answer=now,
                last_latency_ms=latency_ms,
                last_failure="",
                last_abstention="; ".join(reasons),
                last_skipped=" ".join(skipped),
            )

    def failure(self, problem: str) -> None:
        """A frame could not be answered."""
        self.record("failed", last_failure=problem)

    def new_activation(self) -> None:
        """Forget what belonged to an earlier activation; the counters go on."""
        with self._lock:
            self._arrivals.clear()
            self._last.clear()
            self._answers.clear()
            self._latencies.clear()
            self._unparseable.clear()
            self._since = self.clock()
        self.note(
            last_image=None,
            working_since=None,
            last_image_problem="",
            stamp_problem="",
            clock_problem="",
            depth_problem="",
            last_failure="",
            last_abstention="",
            last_skipped="",
            image_qos_problem="",
        )

    def facts(self) -> Facts:
        """A consistent copy."""
        with self._lock:
            return self._facts

    def rates(self, cameras: Sequence[str] = ("",)) -> Rates:
        """What came and went lately; ``cameras``: those that are listened to."""
        now = self.clock()
        with self._lock:
            span = max(1.0, min(WINDOW_S, now - self._since))
            inputs = [len(_recent(self._arrivals.get(c, deque()), now)) / span for c in cameras]
            ordered = sorted(self._latencies)
            share = sum(self._unparseable) / len(self._unparseable) if self._unparseable else None
            return Rates(
                input_hz=min(inputs, default=0.0),
                answer_hz=len(_recent(self._answers, now)) / span,
                latency_p50_ms=percentile(ordered, 0.50),
                latency_p95_ms=percentile(ordered, 0.95),
                unparseable_share=share,
            )


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least ``share`` of the ascending values do not exceed; None without values."""
    if not ordered:
        return None
    return ordered[max(0, -(-round(share * 1000) * len(ordered) // 1000) - 1)]


def _recent(times: deque[float], now: float) -> deque[float]:
    """``times`` less those older than WINDOW_S."""
    while times and now - times[0] > WINDOW_S:
        times.popleft()
    return times
