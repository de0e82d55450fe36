"""What is asked: the standing queries, the goals that wait for a frame, and which cameras are needed for them.

Queries stay until they are replaced or cleared; a rejected text changes nothing. When they change while the model
works, its frame is started again with the new ones, so that no answer is published for a query that was already
replaced; every answer names its phrase. A goal is answered once, before any waiting frame, and never interrupts a
running frame.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from acs_core.arguments import clean_phrase, split_text
from acs_core.errors import Cancelled, PhraseError
from acs_core.types import ShouldStop
from acs_ros.conversions.images import Frame
from acs_ros.node.ground_goal import GroundGoal
from acs_ros.node.inference_worker import FrameGrounder, InferenceWorker
from acs_ros.node.model_loader import GrounderLike, free_memory
from acs_ros.node.parameter_table import ON_DEMAND
from acs_ros.node.parameters import Settings
from acs_ros.node.publishers import FrameAnswer

GIVEN_PER_QUERY = 10  # phrases accepted per query that max_queries allows, as some may be repeated


def clean_queries(phrases: Iterable[str], settings: Settings) -> tuple[str, ...]:
    """The phrases as they are asked, each once, in their order.

    Raises:
        PhraseError: one cannot be asked, or there are more than ``max_queries``; says which.
    """
    given = list(phrases)
    if len(given) > GIVEN_PER_QUERY * settings.max_queries:  # before the work of cleaning each
        raise PhraseError(f"{len(given)} phrases are more than max_queries, which is {settings.max_queries}")
    cleaned: list[str] = []
    for number, phrase in enumerate(given, start=1):
        try:
            cleaned.append(clean_phrase(phrase, settings.max_phrase_chars))
        except PhraseError as error:
            which = f"phrase {number} of {len(given)}: " if len(given) > 1 else ""
            raise PhraseError(f"{which}{error}") from error
    distinct = tuple(dict.fromkeys(cleaned))
    if len(distinct) > settings.max_queries:
        raise PhraseError(f"{len(distinct)} phrases are more than max_queries, which is {settings.max_queries}")
    return distinct


class QueryManager:
    """The standing queries and waiting goals of one node. Only :meth:`release` and :meth:`close` wait for the model.

    Args:
        frame_grounder: Grounds a frame on the model's thread; its parameters and statistics are used here too.
        demand_changed: Called when :meth:`wants_frames` or :attr:`is_answering` may have changed; on any thread, and it
            must not wait.
    """

    def __init__(self, frame_grounder: FrameGrounder, demand_changed: Callable[[], None]) -> None:
        self._frame_grounder, self._demand_changed = frame_grounder, demand_changed
        self._parameters, self._statistics = frame_grounder.parameters, frame_grounder.statistics
        self._lock = threading.RLock()  # keeps a frame from slipping in after pause(), and a model after close()
        self._listening = False
        self._closed = False
        self._heard = False  # whether a query ever came: then initial_query no longer counts
        self._due: set[str] = set()  # on demand: cameras whose next frame will be answered
        self._waiting: list[GroundGoal] = []  # goals that wait for a frame
        self._worker: InferenceWorker[Frame, FrameAnswer] | None = None
        self._queries: tuple[str, ...] = ()
        self.held = False  # by ~/pause

    @property
    def queries(self) -> tuple[str, ...]:
        """The phrases in force. Once new ones are returned, no more answers to the old ones are published."""
        with self._lock:  # set_queries holds it until the model is asked to stop
            return self._queries

    def adopt(self, grounder: GrounderLike) -> bool:
        """Use a loaded model and start its thread; nothing is asked before :meth:`listen`. Returns False after
        :meth:`close`: the model came too late and is not used."""
        with self._lock:
            if self._closed:
                return False
            self._frame_grounder.grounder = grounder
            self._worker = InferenceWorker(
                self._answer,
                self._deliver,
                self._frame_grounder.report_failure,
                self._interval,
                lambda frame: self._statistics.increment("dropped"),
                lambda frame, answer: self._frame_grounder.show(answer),
                self._demand_changed,
            )
            return True

    def start_with(self, text: str) -> None:
        """Make the phrases of ``text`` the standing queries, unless a query came before or the text is blank.

        Raises:
            PhraseError: a phrase cannot be asked.
        """
        if text.strip() and not self._heard:
            self._queries = clean_queries(split_text(text), self._parameters.current)

    def listen(self) -> None:
        """Accept frames and goals from now on."""
        with self._lock:
            self._listening = True
            self._due = set(self._parameters.current.camera_names) if self._queries else set()
        self._demand_changed()

    def pause(self, reason: str) -> None:
        """Accept no more frames and goals and ask the model to stop; nothing is published after this has returned."""
        with self._lock:
            self._listening = False
            self._stop(reason)

    def hold(self, on: bool) -> None:
        """Pause (``~/pause``) until called with False; stays in force when the lifecycle state changes."""
        with self._lock:
            self.held = on
            if on:
                self._stop("the node is paused")
            elif self._queries:
                self._due = set(self._parameters.current.camera_names)
        self._demand_changed()

    def _stop(self, reason: str) -> None:
        waiting, self._waiting = self._waiting, []
        if self._worker is not None:
            self._worker.drop()
            self._worker.drop_tasks(reason)
        for goal in waiting:
            goal.task.abandon(reason)

    def release(self, timeout: float) -> bool:
        """Free the model. Returns False when a call still ran after ``timeout`` seconds; then it is freed when the call
        ends."""
        with self._lock:
            self.pause("the model is freed")
            worker, self._worker = self._worker, None
        if worker is None:
            return True
        stopped = worker.close(timeout)
        self._frame_grounder.grounder = None
        free_memory()
        return stopped

    def close(self, timeout: float) -> bool:
        """Free the model as :meth:`release` does, and accept no other."""
        with self._lock:
            self._closed = True
        return self.release(timeout)

    # --- queries and goals -------------------------------------------------------------------------------------------

    def set_queries(self, phrases: list[str]) -> bool:
        """Replace the standing queries by ``phrases``, which may be none. Returns True when they changed.

        Raises:
            PhraseError: a phrase cannot be asked; the queries in force stay.
        """
        cleaned = clean_queries(phrases, self._parameters.current)
        with self._lock:
            self._heard = True
            self._due = set(self._parameters.current.camera_names) if cleaned else set()
            changed, self._queries = cleaned != self._queries, cleaned
            if changed:
                self._statistics.set(last_failure="", last_abstention="", answer_problem="")
                if self._worker is not None and not cleaned:
                    self._worker.drop()
                elif self._worker is not None and self._worker.restart():
                    self._statistics.increment("restarted")
        self._demand_changed()
        return changed

    def take_goal(self, goal: GroundGoal, has_picture: bool) -> str:
        """Accept a goal, which reports its own result. Returns why it cannot be accepted, or an empty string."""
        with self._lock:
            if self._worker is None or not self._listening:
                return "the node is not active: configure and activate it first"
            if self.held:
                return "the node is paused: call ~/pause with data: false"
            if has_picture:
                self._worker.enqueue(goal.task)
            else:
                self._waiting.append(goal)
                # With the lock held: a client that gets this feedback may send the frame, which must find the goal.
                goal.wait_for_frame()
        if not has_picture:
            self._demand_changed()
        return ""

    def withdraw(self, goal: GroundGoal, stop: bool = True) -> bool:
        """Withdraw a goal. Returns True when it will never start; with ``stop``, a running one is asked to stop."""
        with self._lock:
            if goal in self._waiting:
                self._waiting.remove(goal)
                waited = True
            else:
                waited = self._worker is not None and self._worker.withdraw(goal.task, stop)
        self._demand_changed()
        return waited

    # --- frames ------------------------------------------------------------------------------------------------------

    def wants_frames(self, camera: str) -> bool:
        """Whether a frame of this camera would be used. On demand, cameras are subscribed to only while it is."""
        with self._lock:
            if not self._listening or self.held:
                return False
            return (
                self._parameters.current.mode != ON_DEMAND
                or camera in self._due
                or any(goal.camera == camera for goal in self._waiting)
            )

    @property
    def is_answering(self) -> bool:
        """Whether a frame was taken and is not answered yet; then what belongs to it is still wanted."""
        worker = self._worker
        return worker is not None and worker.has_work

    def take_frame(self, frame: Frame) -> None:
        """Give the frame to the goals that wait for one of its camera, and submit it for the standing queries: it is
        answered as soon as the model is free and ``max_rate`` allows, unless a newer one comes.

        Raises:
            ImageError: the frame cannot be used; a waiting frame is not replaced.
        """
        settings = self._parameters.current
        frame.check(settings.max_image_pixels, settings.accept_16uc1)
        self._statistics.image_begins(frame.camera)  # before its answer, or a status might still wait for the frame
        with self._lock:
            if not self._listening or self._worker is None or self.held:
                self._statistics.increment("images_unasked")
                return
            for goal in [g for g in self._waiting if g.camera == frame.camera]:
                self._waiting.remove(goal)
                goal.take_frame(frame)
                self._worker.enqueue(goal.task)
            due = settings.mode != ON_DEMAND or frame.camera in self._due
            self._due.discard(frame.camera)
            if not self._queries:
                self._statistics.increment("images_without_query")
            elif not due:
                self._statistics.increment("images_unasked")
            elif self._worker.submit(frame, frame.camera):
                self._statistics.increment("replaced")
        if settings.mode == ON_DEMAND:
            self._demand_changed()

    def _interval(self) -> float:
        rate = self._parameters.current.max_rate
        return 1 / rate if rate > 0 else 0.0

    def _answer(self, frame: Frame, should_stop: ShouldStop) -> FrameAnswer:
        phrases = self.queries
        if not phrases:
            raise Cancelled("nothing is asked any more")
        options = self._frame_grounder.options(phrases, frame.camera)
        return self._frame_grounder.ground(frame, options, should_stop)

    def _deliver(self, frame: Frame, answer: FrameAnswer) -> None:
        self._frame_grounder.publish(answer)
        self._statistics.increment("frames_answered")
