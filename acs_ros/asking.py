"""What is asked about which frame: the standing queries, goals, the newest frames, the model's thread. No ROS node.

Queries stay until they are replaced or emptied; one that is rejected changes nothing. When they change while the model
works, the frame is begun again with the new ones, so no answer leaves for a query that was already replaced; every
answer names its phrase. Goals are asked once, before any waiting frame, and never interrupt the frame at work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from acs_core.errors import AcsError, Cancelled
from acs_core.types import ShouldStop
from acs_ros.engine import OnStage, Question, ask, question_of
from acs_ros.frames import Frame
from acs_ros.grounder_source import GrounderLike, free_memory
from acs_ros.ledger import Ledger
from acs_ros.outlet import Answer, Goal, Outlet
from acs_ros.parameter_table import ON_DEMAND
from acs_ros.parameters import Settings
from acs_ros.queries import clean_queries, split_text
from acs_ros.worker import NewestJobWorker

MAX_DESCRIPTION = 2000  # characters


class Asker:
    """Asks one grounder. Every method but :meth:`release` and :meth:`close` returns at once.

    ``settings`` is called for every frame, so that changed parameters count from the next one.
    """

    def __init__(self, settings: Callable[[], Settings], ledger: Ledger, outlet: Outlet) -> None:
        self._settings, self._ledger, self._outlet = settings, ledger, outlet
        self._lock = threading.RLock()  # keeps a frame from slipping in after pause(), and a model after close()
        self._listening = False
        self._closed = False
        self._heard = False  # whether a query ever came: then initial_query is history
        self._due: set[str] = set()  # on demand: cameras whose next frame is to be asked about
        self._hungry: list[Goal] = []  # goals that wait for a frame
        self._worker: NewestJobWorker[Frame, Answer] | None = None
        self.grounder: GrounderLike | None = None
        self._queries: tuple[str, ...] = ()
        self.held = False  # by ~/pause

    @property
    def queries(self) -> tuple[str, ...]:
        """The phrases in force. Who reads new ones gets no more answers for the old ones."""
        with self._lock:  # set_queries has stopped the model by the time that it lets go
            return self._queries

    def adopt(self, grounder: GrounderLike) -> bool:
        """Take a loaded model; its thread starts, nothing is asked before :meth:`listen`. False after :meth:`close`:
        the model came too late and is not taken."""
        with self._lock:
            if self._closed:
                return False
            self.grounder = grounder
            self._worker = NewestJobWorker(
                self._answer,
                self._deliver,
                self._could_not_answer,
                self._interval,
                lambda frame: self._ledger.count("dropped"),
                lambda frame, answer: self.show(answer),
            )
            return True

    def start_with(self, text: str) -> None:
        """Ask for the phrases of ``text`` from the start, unless a query came before; empty: nothing.

        Raises:
            PhraseError: a phrase cannot be asked.
        """
        if text.strip() and not self._heard:
            self._queries = clean_queries(split_text(text), self._settings())

    def listen(self) -> None:
        """Take frames and goals from now on."""
        with self._lock:
            self._listening = True
            self._due = set(self._settings().camera_names) if self._queries else set()
        self._outlet.demand_changed()

    def pause(self, reason: str) -> None:
        """Take no more frames and goals and ask the model to stop; nothing is published once this has returned."""
        with self._lock:
            self._listening = False
            self._stop(reason)

    def hold(self, on: bool) -> None:
        """:meth:`pause` by the operator's wish (``~/pause``) until called with False; lifecycle states come and go."""
        with self._lock:
            self.held = on
            if on:
                self._stop("the node is paused")
            elif self._queries:
                self._due = set(self._settings().camera_names)
        self._outlet.demand_changed()

    def _stop(self, reason: str) -> None:
        hungry, self._hungry = self._hungry, []
        if self._worker is not None:
            self._worker.drop()
            self._worker.drop_tasks(reason)
        for goal in hungry:
            goal.abandon(reason)

    def release(self, timeout: float) -> bool:
        """Let go of the model. False: a call still ran after ``timeout`` seconds; the model is freed when it ends."""
        with self._lock:
            self.pause("the model is freed")
            worker, self._worker = self._worker, None
        if worker is None:
            return True
        stopped = worker.close(timeout)
        self.grounder = None
        free_memory()
        return stopped

    def close(self, timeout: float) -> bool:
        """:meth:`release`, and take no model ever again."""
        with self._lock:
            self._closed = True
        return self.release(timeout)

    # --- what is asked -----------------------------------------------------------------------------------------------

    def set_queries(self, phrases: list[str]) -> bool:
        """Ask for ``phrases`` from now on; none: for nothing. True when that changed anything.

        Raises:
            PhraseError: a phrase cannot be asked; the queries in force stay.
        """
        cleaned = clean_queries(phrases, self._settings())
        with self._lock:
            self._heard = True
            self._due = set(self._settings().camera_names) if cleaned else set()
            changed, self._queries = cleaned != self._queries, cleaned
            if changed:
                self._ledger.note(last_failure="", last_abstention="")
                if self._worker is not None and not cleaned:
                    self._worker.drop()
                elif self._worker is not None and self._worker.restart():
                    self._ledger.count("restarted")
        self._outlet.demand_changed()
        return changed

    def take_goal(self, goal: Goal, has_picture: bool) -> str:
        """Take a single question; why not, or an empty string. The goal itself tells what becomes of it."""
        with self._lock:
            if self._worker is None or not self._listening:
                return "the node is not active: configure and activate it first"
            if self.held:
                return "the node is paused: call ~/pause with data: false"
            if has_picture:
                self._worker.enqueue(goal)
            else:
                self._hungry.append(goal)
                goal.waits()  # with the lock held: who hears it may send the frame, and it is fed after it was told
        if not has_picture:
            self._outlet.demand_changed()
        return ""

    def withdraw(self, goal: Goal, stop: bool = True) -> bool:
        """Take back a goal: True when it will never be begun; with ``stop``, one that runs is asked to stop."""
        with self._lock:
            if goal in self._hungry:
                self._hungry.remove(goal)
                waited = True
            else:
                waited = self._worker is not None and self._worker.withdraw(goal, stop)
        self._outlet.demand_changed()
        return waited

    # --- frames ------------------------------------------------------------------------------------------------------

    def wants_frames(self, camera: str) -> bool:
        """Whether a frame of this camera would be used; on demand nobody listens to a camera that is not wanted."""
        with self._lock:
            if not self._listening or self.held:
                return False
            return (
                self._settings().mode != ON_DEMAND
                or camera in self._due
                or any(goal.camera == camera for goal in self._hungry)
            )

    def take_frame(self, frame: Frame) -> None:
        """Hand in a frame. Goals that wait for one of this camera get it; else it is asked about as soon as the model
        is free and ``max_rate`` allows, unless a newer one comes.

        Raises:
            ImageError: the frame cannot be used; a frame that waits keeps its place.
        """
        settings = self._settings()
        frame.check(settings.max_image_pixels)
        self._ledger.image_begins(frame.camera)  # before its answer: no status waits for a frame that was answered
        with self._lock:
            if not self._listening or self._worker is None or self.held:
                self._ledger.count("images_unasked")
                return
            fed = [goal for goal in self._hungry if goal.camera == frame.camera]
            for goal in fed:
                self._hungry.remove(goal)
                goal.take_frame(frame)
                self._worker.enqueue(goal)
            due = settings.mode != ON_DEMAND or frame.camera in self._due
            self._due.discard(frame.camera)
            if not self._queries:
                self._ledger.count("images_without_query")
            elif not due:
                self._ledger.count("images_unasked")
            elif self._worker.submit(frame, frame.camera):
                self._ledger.count("replaced")
        if settings.mode == ON_DEMAND:
            self._outlet.demand_changed()

    def _interval(self) -> float:
        rate = self._settings().max_rate
        return 1 / rate if rate > 0 else 0.0

    def work(
        self, frame: Frame, question: Question, should_stop: ShouldStop, on_stage: OnStage | None = None
    ) -> Answer:
        """Ask the model now; only on its thread. Raises what the engine raises."""
        grounder, began = self.grounder, time.monotonic()
        if grounder is None:
            raise Cancelled("the model is gone")
        self._ledger.work_began()
        try:
            frame = self._outlet.complete(frame)
            settings = self._settings()
            image = frame.rgb(settings.max_image_pixels, settings.accept_tiff)
            results = ask(grounder, image, question, should_stop, on_stage)
            if frame.depth is None:
                frame = self._outlet.complete(frame)  # the depth image may have come after its picture
            return Answer(frame, image, results, self._outlet.compose(frame, image, results), began)
        except Exception as error:
            if not isinstance(error, AcsError):
                free_memory()  # out of memory, first of all: the next frame gets what can be had
            raise
        finally:
            self._ledger.work_ended()

    def _answer(self, frame: Frame, should_stop: ShouldStop) -> Answer:
        phrases = self.queries
        if not phrases:
            raise Cancelled("nothing is asked any more")
        attention = self._outlet.attention_wanted(frame.camera)
        return self.work(frame, question_of(self._settings(), phrases, attention), should_stop)

    def _deliver(self, frame: Frame, answer: Answer) -> None:
        self.send(answer)
        self._ledger.count("frames_answered")

    def send(self, answer: Answer) -> None:
        """Publish an answer, and count it."""
        self._ledger.results_sent(answer.results, (time.monotonic() - answer.began) * 1000)
        self._outlet.publish(answer)

    def show(self, answer: Answer) -> None:
        """Send the pictures of an answer that was sent."""
        try:
            self._outlet.show(answer)
        except Exception as error:  # the answer is out, and the next frame gets its chance
            self._outlet.complain(f"the pictures of an answer could not be sent: {describe(error)}")

    def _could_not_answer(self, frame: Frame, error: Exception) -> None:
        problem = describe(error)
        self._ledger.failure(problem)
        stamp = frame.header.stamp
        self._outlet.complain(f"no answer for the frame of {stamp.sec}.{stamp.nanosec:09d}: {problem}")


def describe(error: BaseException) -> str:
    """One line for a person: our own errors speak for themselves, others need their type."""
    text = str(error) if isinstance(error, AcsError) else f"{type(error).__name__}: {error}"
    # Neither logs nor messages take a lone surrogate, which a file name may hold; nor should they take a megabyte.
    return text[:MAX_DESCRIPTION].encode("utf-8", "backslashreplace").decode()
