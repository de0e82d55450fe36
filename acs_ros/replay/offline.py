"""Offline runs: the model answers every frame in turn, without DDS."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from acs_core.errors import AcsError, Cancelled, ImageError
from acs_core.types import ShouldStop
from acs_ros.bags.reader import Bag
from acs_ros.errors import describe
from acs_ros.node.inference_worker import ask, inference_options
from acs_ros.node.model_loader import GrounderLike, free_memory
from acs_ros.node.parameters import Settings
from acs_ros.replay.contents import Topics
from acs_ros.replay.journal import AnswerJournal, Kept, digest_of
from acs_ros.replay.replies import Fate, FrameReplies, Replies, picture, recorded
from acs_ros.replay.schedule import FrameQuery, QuerySchedule


class OfflineRun:
    """Runs ``grounder`` on frames and writes the answers to ``journal``. ``should_stop`` is polled between frames and
    during them."""

    def __init__(
        self, grounder: GrounderLike, settings: Settings, journal: AnswerJournal, should_stop: ShouldStop
    ) -> None:
        self._grounder, self._settings, self._journal = grounder, settings, journal
        self._should_stop = should_stop
        self.resumed = 0  # answers that were there already

    def run(
        self, bag: Bag, topics: Topics, plan: QuerySchedule, progress: Callable[[], None] = lambda: None
    ) -> Replies:
        """Answer all queries of ``plan``. ``progress`` is called for every frame."""
        by_number = {asked.frame.number: asked for asked in plan.asked}
        done: dict[int, FrameReplies] = {}
        stopped = False
        for frame, data in recorded(bag, topics, [asked.frame for asked in plan.asked]):
            if self._should_stop():
                stopped = True
                break
            try:
                done[frame.number] = self._frame(by_number[frame.number], data, topics)
            except Cancelled:
                stopped = True
                break
            progress()
        missing = [
            done.get(asked.frame.number) or FrameReplies(asked.frame, Fate.NOT_REACHED, asked.phrases)
            for asked in plan.asked
        ]
        return Replies(tuple(missing), stopped)

    def _frame(self, asked: FrameQuery, data: bytes, topics: Topics) -> FrameReplies:
        frame, phrases = asked.frame, asked.phrases
        if not phrases:
            return FrameReplies(frame, Fate.NOT_ASKED)
        digest = digest_of(data)
        known = {phrase: self._journal.get(frame, digest, phrase) for phrase in phrases}
        self.resumed += sum(kept is not None for kept in known.values())
        missing = tuple(phrase for phrase, kept in known.items() if kept is None)
        if missing:
            try:
                now = self._settings
                image = picture(data, topics, now.max_image_pixels, now.accept_tiff, now.image_bits, now.accept_16uc1)
            except ImageError as error:
                return FrameReplies(
                    frame, Fate.UNREADABLE, phrases, tuple(Kept(None, None, str(error)) for _ in phrases)
                )
            known |= self._ask(asked, digest, image, missing)
        kept = tuple(k for phrase in phrases if (k := known[phrase]) is not None)
        fate = Fate.FAILED if any(k.result is None for k in kept) else Fate.ANSWERED
        return FrameReplies(frame, fate, phrases, kept, kept[0].latency_ms)

    def _ask(self, asked: FrameQuery, digest: str, image: np.ndarray, phrases: tuple[str, ...]) -> dict[str, Kept]:
        began = time.perf_counter()
        try:
            results = ask(self._grounder, image, inference_options(self._settings, phrases), self._should_stop)
        except Cancelled:
            raise
        except Exception as error:  # as in the node: one frame's trouble is not the next one's. Not written down, so
            if not isinstance(error, AcsError):  # that it is tried again by the next run.
                free_memory()
            return {phrase: Kept(None, None, describe(error)) for phrase in phrases}
        latency = (time.perf_counter() - began) * 1000
        pairs = zip(phrases, results, strict=True)
        return {phrase: self._journal.add(asked.frame, digest, phrase, Kept(r, latency)) for phrase, r in pairs}
