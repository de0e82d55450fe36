"""Counters, rates and the last problem of each kind, written by every thread of the node."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from acs_core.types import ABSENT, GroundingResult, ScoreKind, is_shortage

WINDOW_S = 10.0  # rates are over the last seconds
LATENCIES = 200  # percentiles are over the last answers
RESPONSES = 200  # the share of unparseable responses is over the last responses
# Once the node is idle, every received image has been counted as exactly one of these.
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
class CameraProblems:
    """What is wrong with one camera. A text is empty when nothing is.

    Attributes:
        image: Why the last image could not be used; empty again after a good one.
        stamp: What is wrong with the last stamp.
        clocks_mixed: Whether ``stamp`` says that simulated and wall time are mixed.
        depth: Why the last boxes have no place in space.
        image_qos: Why images of a publisher cannot be received.
        depth_qos: Why depth images or camera infos of a publisher cannot be received.
    """

    image: str = ""
    stamp: str = ""
    clocks_mixed: bool = False
    depth: str = ""
    image_qos: str = ""
    depth_qos: str = ""


@dataclass(frozen=True)
class StatisticsSnapshot:
    """The statistics at one moment. Times are seconds of a steady clock; None: never."""

    images: int = 0  # received; the next seven are their FATES
    bad_images: int = 0
    images_without_query: int = 0
    images_unasked: int = 0  # arrived during a pause or deactivation, or on demand when none was due
    replaced: int = 0  # waited for the model, or for max_rate, until a newer frame came
    dropped: int = 0  # waited or was at work when the node was paused or deactivated, or the queries changed
    failed: int = 0
    frames_answered: int = 0
    restarted: int = 0  # begun again because the queries changed
    answered: int = 0  # results published, one per phrase and frame, abstentions and those of goals included
    abstained: int = 0
    responses: int = 0  # sampled responses of the model
    unparseable: int = 0  # of them, those that gave no box and did not say that the object is absent
    goals: int = 0  # each ends as one of the next three
    goals_succeeded: int = 0
    goals_failed: int = 0  # aborted; cancelled ones are not failures
    goals_cancelled: int = 0
    queries: int = 0  # taken, by topic or service
    rejected_queries: int = 0
    clock_jumps: int = 0
    callback_errors: int = 0  # exceptions out of callbacks, rclpy's own included
    last_image: float | None = None
    last_answer: float | None = None
    working_since: float | None = None
    loading_since: float | None = None
    last_latency_ms: float | None = None
    cameras: Mapping[str, CameraProblems] = field(default_factory=dict)  # by name; those that had a problem
    clock_problem: str = ""  # empty again after WINDOW_S
    last_query_problem: str = ""  # empty again after a good query
    last_failure: str = ""  # empty again after an answer
    last_abstention: str = ""  # why there rightly is no box; empty again after an answer with one
    answer_problem: str = ""  # why there is no box although there might be; empty again after another answer
    model_input: str = ""  # size of the last picture as the model saw it, and the number of its image tokens
    last_skipped: str = ""  # what was left out of the last answer for lack of time or memory
    query_qos_problem: str = ""
    output_qos_problem: str = ""
    load_problem: str = ""
    name_problem: str = ""  # empty again when no other node has this node's name
    setup_problem: str = ""  # parameters given at start that were not used
    last_callback_error: str = ""

    def camera(self, name: str) -> CameraProblems:
        """What is wrong with the camera ``name``."""
        return self.cameras.get(name, CameraProblems())

    @property
    def last_image_problem(self) -> str:
        """Why the last images could not be used, of all cameras."""
        return self._of_cameras("image")

    @property
    def stamp_problem(self) -> str:
        """What is wrong with the last stamps, of all cameras."""
        return self._of_cameras("stamp")

    @property
    def depth_problem(self) -> str:
        """Why the last boxes have no place in space, of all cameras."""
        return self._of_cameras("depth")

    @property
    def image_qos_problem(self) -> str:
        """Why images cannot be received, of all cameras."""
        return self._of_cameras("image_qos")

    @property
    def depth_qos_problem(self) -> str:
        """Why depth images or camera infos cannot be received, of all cameras."""
        return self._of_cameras("depth_qos")

    def _of_cameras(self, kind: str) -> str:
        told = {name: getattr(problems, kind) for name, problems in sorted(self.cameras.items())}
        return "; ".join(f"{name}: {text}" if name else text for name, text in told.items() if text)


@dataclass(frozen=True)
class Rates:
    """Rates of the last seconds and answers. None: no data."""

    input_hz: float = 0.0  # of the slowest camera
    answer_hz: float = 0.0  # frames answered
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    unparseable_share: float | None = None


class NodeStatistics:
    """The node's counters, safe to write from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._facts = StatisticsSnapshot()
        self._lock = threading.Lock()
        self._arrivals: dict[str, deque[float]] = {}
        self._last: dict[str, float] = {}
        self._answers: deque[float] = deque()
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self._unparseable: deque[bool] = deque(maxlen=RESPONSES)
        self._since = clock()

    def set(self, **changes: float | str | None) -> None:
        """Set fields of the snapshot by name."""
        with self._lock:
            self._facts = replace(self._facts, **changes)  # type: ignore[arg-type]

    def set_camera(self, camera: str, **changes: str | bool) -> None:
        """Set fields of the :class:`CameraProblems` of a camera by name."""
        with self._lock:
            self._set_camera(camera, **changes)

    def _set_camera(self, camera: str, **changes: str | bool) -> None:
        problems = replace(self._facts.camera(camera), **changes)  # type: ignore[arg-type]
        self._facts = replace(self._facts, cameras={**self._facts.cameras, camera: problems})

    def increment(self, *names: str, by: int = 1) -> None:
        """Add ``by`` to each named counter."""
        with self._lock:
            self._facts = replace(self._facts, **{n: getattr(self._facts, n) + by for n in names})

    def update(self, *names: str, **changes: float | str | None) -> None:
        """Add one to each named counter and set fields by name, in one step."""
        with self._lock:
            counted = {n: getattr(self._facts, n) + 1 for n in names}
            self._facts = replace(self._facts, **counted, **changes)  # type: ignore[arg-type]

    def image_begins(self, camera: str = "") -> None:
        """Note the arrival of a usable image before it is submitted; :meth:`image_came` counts it afterwards."""
        now = self.clock()
        with self._lock:
            self._last[camera] = now
            self._set_camera(camera, image="")
        self.set(last_image=now)

    def image_came(self, problem: str = "", camera: str = "") -> None:
        """Count an image. ``problem``: why it cannot be used; empty for a good one."""
        now = self.clock()
        with self._lock:
            _recent(self._arrivals.setdefault(camera, deque()), now).append(now)
            self._last[camera] = now
            self._set_camera(camera, image=problem)
        bad = ("bad_images",) if problem else ()
        self.update("images", *bad, last_image=now)

    def last_image_of(self, camera: str) -> float | None:
        """Time of the last image of this camera; None: none since the activation."""
        with self._lock:
            return self._last.get(camera)

    def work_began(self) -> None:
        """Note that the model was given a frame."""
        self.set(working_since=self.clock())

    def work_ended(self) -> None:
        """Note that the model is idle."""
        self.set(working_since=None)

    def results_sent(self, results: Sequence[GroundingResult], latency_ms: float) -> None:
        """Count the results published about a frame, ``latency_ms`` after the model was given it."""
        now = self.clock()
        silent = [r for r in results if not r.detections]
        responses = [response for r in results for response in r.responses]
        lost = [r.num_boxes == 0 and r.problem != ABSENT for r in responses]
        skipped = [sentence for r in results for sentence in getattr(r, "skipped", ()) if is_shortage(sentence)]
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
                last_abstention=_reasons([r for r in silent if not _is_doubtful(r)]),
                answer_problem=_reasons([r for r in silent if _is_doubtful(r)]),
                model_input=next(map(_input_text, results), before.model_input),
                last_skipped=" ".join(skipped),
            )

    def failure(self, problem: str) -> None:
        """Count a frame that could not be answered."""
        self.update("failed", last_failure=problem)

    def new_activation(self) -> None:
        """Reset rates, times and problems of an earlier activation; the counters go on."""
        with self._lock:
            self._arrivals.clear()
            self._last.clear()
            self._answers.clear()
            self._latencies.clear()
            self._unparseable.clear()
            self._since = self.clock()
            self._facts = replace(self._facts, cameras={})
        self.set(
            last_image=None,
            working_since=None,
            clock_problem="",
            last_failure="",
            last_abstention="",
            answer_problem="",
            last_skipped="",
        )

    def snapshot(self) -> StatisticsSnapshot:
        """A consistent copy."""
        with self._lock:
            return self._facts

    def rates(self, cameras: Sequence[str] = ("",)) -> Rates:
        """Rates of images, answers and latency; ``cameras``: names of the cameras in use."""
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


def _is_doubtful(result: GroundingResult) -> bool:
    """Whether a result without detections may miss an object: no response could be read, or no score was given."""
    unread = bool(result.responses) and all(r.num_boxes == 0 and r.problem != ABSENT for r in result.responses)
    return unread or (bool(result.candidates) and result.score_kind is ScoreKind.NONE)


def _input_text(result: GroundingResult) -> str:
    if result.input_size is None:
        return ""
    width, height = result.input_size
    return f"{width} x {height} pixels, {result.image_tokens} image tokens"


def _reasons(results: Sequence[GroundingResult]) -> str:
    return "; ".join(f"{r.phrase!r}: {r.reason or 'no box was good enough'}" for r in results)


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
