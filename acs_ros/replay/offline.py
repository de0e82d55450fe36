"""Every frame asked one after the other, without DDS: what the model can do, whatever the rate."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from acs_core.errors import AcsError, Cancelled, ImageError
from acs_core.types import ShouldStop
from acs_ros.asking import describe
from acs_ros.engine import ask, question_of
from acs_ros.grounder_source import GrounderLike, free_memory
from acs_ros.parameters import Settings
from acs_ros.replay.asked import Asked, Plan
from acs_ros.replay.journal import Journal, Kept, digest_of
from acs_ros.replay.replies import Fate, FrameReplies, Replies, picture, recorded
from acs_ros.replay.storage import Bag
from acs_ros.replay.topics import Topics


class OfflineAsker:
    """Asks ``grounder`` about frames, and writes down in ``journal`` what it says. ``should_stop`` is asked between
    frames and during them."""

    def __init__(self, grounder: GrounderLike, settings: Settings, journal: Journal, should_stop: ShouldStop) -> None:
        self._grounder, self._settings, self._journal = grounder, settings, journal
        self._should_stop = should_stop
        self.resumed = 0  # answers that were there already

    def run(self, bag: Bag, topics: Topics, plan: Plan, progress: Callable[[], None] = lambda: None) -> Replies:
        """Ask what ``plan`` says. ``progress`` is called for every frame."""
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

    def _frame(self, asked: Asked, data: bytes, topics: Topics) -> FrameReplies:
        frame, phrases = asked.frame, asked.phrases
        if not phrases:
            return FrameReplies(frame, Fate.NOT_ASKED)
        digest = digest_of(data)
        known = {phrase: self._journal.get(frame, digest, phrase) for phrase in phrases}
        self.resumed += sum(kept is not None for kept in known.values())
        missing = tuple(phrase for phrase, kept in known.items() if kept is None)
        if missing:
            try:
                image = picture(data, topics, self._settings.max_image_pixels)
            except ImageError as error:
                return FrameReplies(
                    frame, Fate.UNREADABLE, phrases, tuple(Kept(None, None, str(error)) for _ in phrases)
                )
            known |= self._ask(asked, digest, image, missing)
        kept = tuple(k for phrase in phrases if (k := known[phrase]) is not None)
        fate = Fate.FAILED if any(k.result is None for k in kept) else Fate.ANSWERED
        return FrameReplies(frame, fate, phrases, kept, kept[0].latency_ms)

    def _ask(self, asked: Asked, digest: str, image: np.ndarray, phrases: tuple[str, ...]) -> dict[str, Kept]:
        began = time.perf_counter()
        try:
            results = ask(self._grounder, image, question_of(self._settings, phrases), self._should_stop)
        except Cancelled:
            raise
        except Exception as error:  # as in the node: one frame's trouble is not the next one's. Not written down, so
            if not isinstance(error, AcsError):  # that it is tried again by the next run.
                free_memory()
            return {phrase: Kept(None, None, describe(error)) for phrase in phrases}
        latency = (time.perf_counter() - began) * 1000
        pairs = zip(phrases, results, strict=True)
        return {phrase: self._journal.add(asked.frame, digest, phrase, Kept(r, latency)) for phrase, r in pairs}
