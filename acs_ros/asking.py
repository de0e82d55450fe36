"""What is asked about which frame: the query in force, the newest frame, the model's thread. No ROS node in here.

A query stays until it is replaced or emptied; one that is rejected changes nothing. When the phrase changes while the
model works, the frame is begun again with the new phrase, so no answer leaves for a phrase that was already replaced;
every answer names its phrase.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from acs_msgs.msg import CandidateArray
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from acs_core.errors import AcsError, Cancelled
from acs_core.phrase import clean_phrase
from acs_core.types import GroundingResult, ShouldStop
from acs_ros.diagnostics import Ledger
from acs_ros.grounder_source import GrounderLike, free_memory
from acs_ros.image_conversion import check_image, fill_image, image_to_rgb
from acs_ros.messages import candidates_to_message, detections_to_message
from acs_ros.parameters import Settings
from acs_ros.worker import NewestJobWorker


@dataclass(frozen=True)
class Answer:
    """A result as the messages that carry it; ``debug`` only where somebody looks."""

    result: GroundingResult
    detections: Detection2DArray
    candidates: CandidateArray
    debug: Image | None
    began: float


@dataclass(frozen=True)
class Outlet:
    """Where answers and complaints go. ``publish`` runs on the model's thread and must be short."""

    publish: Callable[[Answer], None]
    complain: Callable[[str], None]
    debug_wanted: Callable[[], bool]


class Asker:
    """Asks one grounder about the newest frame. Every method but :meth:`release` and :meth:`close` returns at once.

    ``settings`` is called for every frame, so that changed parameters count from the next one.
    """

    def __init__(self, settings: Callable[[], Settings], ledger: Ledger, outlet: Outlet) -> None:
        self._settings, self._ledger, self._outlet = settings, ledger, outlet
        self._lock = threading.RLock()  # keeps a frame from slipping in after pause(), and a model after close()
        self._listening = False
        self._closed = False
        self._heard = False  # whether a query ever came: then initial_query is history
        self._worker: NewestJobWorker[Image, Answer] | None = None
        self.grounder: GrounderLike | None = None
        self.query = ""

    def adopt(self, grounder: GrounderLike) -> bool:
        """Take a loaded model; its thread starts, nothing is asked before :meth:`listen`. False after :meth:`close`:
        the model came too late and is not taken."""
        with self._lock:
            if self._closed:
                return False
            self.grounder = grounder
            self._worker = NewestJobWorker(self._answer, self._deliver, self._could_not_answer, self._interval)
            return True

    def start_with(self, phrase: str) -> None:
        """Ask for ``phrase`` from the start, unless a query came before; empty: nothing.

        Raises:
            PhraseError: the phrase cannot be asked.
        """
        if phrase.strip() and not self._heard:
            self.query = clean_phrase(phrase, self._settings().max_phrase_chars)

    def listen(self) -> None:
        """Take frames from now on."""
        with self._lock:
            self._listening = True

    def pause(self) -> None:
        """Take no more frames and ask the model to stop; nothing is published once this has returned."""
        with self._lock:
            self._listening = False
            if self._worker is not None:
                self._worker.drop()

    def release(self, timeout: float) -> bool:
        """Let go of the model. False: a call still ran after ``timeout`` seconds; the model is freed when it ends."""
        with self._lock:
            self.pause()
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

    def take_frame(self, msg: Image) -> None:
        """Hand in a frame: it is asked about as soon as the model is free and ``max_rate`` allows, unless a newer one
        comes.

        Raises:
            ImageError: the frame cannot be used; a frame that waits keeps its place.
        """
        check_image(msg, self._settings().max_image_pixels)
        with self._lock:
            if not self._listening or self._worker is None:
                return
            if not self.query:
                self._ledger.count("images_without_query")
            elif self._worker.submit(msg):
                self._ledger.count("replaced")

    def take_query(self, text: str) -> bool:
        """Ask for ``text`` from now on; blank text empties the query. True when that changed anything.

        Raises:
            PhraseError: the text cannot be asked; the query in force stays.
        """
        phrase = clean_phrase(text, self._settings().max_phrase_chars) if text.strip() else ""
        with self._lock:
            self._heard = True
            if phrase == self.query:
                return False
            self.query = phrase
            self._ledger.note(last_failure="", last_abstention="")
            if self._worker is None:
                return True
            if not phrase:
                self._worker.drop()
            elif self._worker.restart():
                self._ledger.count("restarted")
            return True

    def _interval(self) -> float:
        rate = self._settings().max_rate
        return 1 / rate if rate > 0 else 0.0

    def _answer(self, msg: Image, should_stop: ShouldStop) -> Answer:
        grounder, phrase, settings, began = self.grounder, self.query, self._settings(), time.monotonic()
        if grounder is None or not phrase:
            raise Cancelled("nothing is asked any more")
        self._ledger.work_began()
        try:
            image = image_to_rgb(msg, settings.max_image_pixels)
            result = grounder.ground(
                image,
                phrase,
                sampling=settings.sampling,
                multiple=settings.multiple,
                min_score=settings.min_score,
                should_stop=should_stop,
            )
            debug = None
            if self._outlet.debug_wanted():
                from acs_core.overlay import draw_result  # late: most nodes never draw

                debug = fill_image(Image(header=msg.header), draw_result(image, result))
            detections = detections_to_message(msg.header, result)
            return Answer(result, detections, candidates_to_message(msg.header, result), debug, began)
        finally:
            self._ledger.work_ended()

    def _deliver(self, msg: Image, answer: Answer) -> None:
        self._ledger.result_sent(answer.result, (time.monotonic() - answer.began) * 1000)
        self._outlet.publish(answer)

    def _could_not_answer(self, msg: Image, error: Exception) -> None:
        problem = describe(error)
        self._ledger.failure(problem)
        stamp = msg.header.stamp
        self._outlet.complain(f"no answer for the frame of {stamp.sec}.{stamp.nanosec:09d}: {problem}")


def describe(error: Exception) -> str:
    """One line for a person: our own errors speak for themselves, others need their type."""
    return str(error) if isinstance(error, AcsError) else f"{type(error).__name__}: {error}"
