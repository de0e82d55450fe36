"""Query schedule (phrases asked about each frame) and ground truth (labelled boxes of each frame)."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from acs_core.arguments import clean_phrase, split_text
from acs_core.errors import PhraseError
from acs_core.geometry import Box
from acs_ros.bags.frames import FrameAt
from acs_ros.bags.truth_pairing import Labels
from acs_ros.errors import BagError
from acs_ros.replay.contents import Contents


@dataclass(frozen=True)
class FrameQuery:
    """A frame with the phrases to ask about it, in order; empty where no query was in force."""

    frame: FrameAt
    phrases: tuple[str, ...]


@dataclass(frozen=True)
class QuerySchedule:
    """Queries of all frames. ``source`` says where the phrases come from, ``notes`` are warnings. ``recorded``: the
    phrases change as they did when the bag was recorded."""

    asked: tuple[FrameQuery, ...]
    source: str
    notes: tuple[str, ...] = ()
    recorded: bool = True


class GroundTruth:
    """True boxes by frame and phrase. ``labels`` are those of each stamp and frame_id; frames without an entry are
    unlabelled."""

    def __init__(self, labels: Mapping[tuple[int, str], Labels]) -> None:
        self._labels = labels
        self._names = {phrase for found in labels.values() for phrase, _ in found}

    def __len__(self) -> int:
        return len(self._labels)

    def phrases(self, frame: FrameAt) -> tuple[str, ...]:
        """Distinct phrases of the labels of a frame."""
        return tuple(dict.fromkeys(phrase for phrase, _ in self._labels.get(frame.key, ())))

    def boxes(self, frame: FrameAt, phrase: str) -> tuple[Box, ...] | None:
        """True boxes of ``phrase``: empty where the frame does not show the object, None where that is unknown because
        the frame has no labels or no label of the bag names the phrase."""
        if frame.key not in self._labels or phrase not in self._names:
            return None
        return tuple(box for name, box in self._labels[frame.key] if name == phrase)

    def labels(self, frame: FrameAt) -> Labels:
        """All labels of a frame."""
        return self._labels.get(frame.key, ())

    def without(self, keys: Collection[tuple[int, str]]) -> GroundTruth:
        """The same without the labels of these stamps and frame_ids."""
        return GroundTruth({key: found for key, found in self._labels.items() if key not in keys})

    def knows(self, frame: FrameAt) -> bool:
        """Whether the frame has labels."""
        return frame.key in self._labels


def make_schedule(contents: Contents, truth: GroundTruth, query: str | None, query_topic: str | None) -> QuerySchedule:
    """Schedule ``query`` for every frame; without it the query in force on ``query_topic`` when the frame was recorded;
    without that the phrases of the frame's labels.

    Raises:
        BagError: there is nothing of all that.
        PhraseError: a phrase of ``query`` cannot be asked.
    """
    if query is not None:
        phrases = _phrases(query)
        return QuerySchedule(tuple(FrameQuery(f, phrases) for f in contents.frames), "--query")
    if query_topic is not None:
        return _in_force(contents, query_topic)
    if not len(truth):
        raise BagError(
            "nothing can be asked: the bag has neither a query topic nor ground truth; name what to look for with "
            "--query 'key', or a std_msgs/String topic with --query-topic"
        )
    return QuerySchedule(
        tuple(FrameQuery(f, truth.phrases(f)) for f in contents.frames), "what the labels of each frame name", (), False
    )


def _in_force(contents: Contents, topic: str) -> QuerySchedule:
    now: tuple[str, ...] = ()
    asked: list[FrameQuery] = []
    waiting = deque(contents.queries)
    rejected: list[str] = []
    places = deque(contents.places)
    for frame in contents.frames:
        while waiting and (places[0] <= frame.number if places else waiting[0][0] <= frame.time_ns):
            if places:
                places.popleft()
            text = waiting.popleft()[1]
            try:
                now = _phrases(text)
            except PhraseError as error:  # as in the node: what is in force stays
                rejected.append(str(error))
        asked.append(FrameQuery(frame, now))
    notes = [f"{len(rejected)} queries on {topic} cannot be asked: {rejected[0]}"] if rejected else []
    early = sum(not a.phrases for a in asked)
    if early:
        notes.append(f"nothing was asked of {early} frames: no query on {topic} was in force")
    return QuerySchedule(tuple(asked), f"queries on {topic}", tuple(notes))


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(clean_phrase(phrase) for phrase in split_text(text)))


def unmatched(truth: Mapping[tuple[int, str], Labels], frames: Sequence[FrameAt], only_first: int | None = None) -> str:
    """Sentence about frames without labels and labels without a frame; "" where all match or there are no labels.
    Where ``only_first`` frames of the bag are used, labels of the others are no mistake, and only the case that no
    frame has labels is told.

    Raises:
        BagError: no frame at all has labels; shows stamps and frame_ids of both.
    """
    if not truth:
        return ""
    keys = {f.key for f in frames}
    lost = [key for key in truth if key not in keys]
    bare = [f for f in frames if f.key not in truth]
    if only_first is not None:
        return f"none of the first {len(frames)} frames has ground truth" if len(bare) == len(frames) else ""
    if frames and len(bare) == len(frames):
        at, name = lost[0]
        here = frames[0]
        raise BagError(
            f"no frame has ground truth: the first label is of stamp {at / 1e9:.9f} in {name!r}, the first frame of "
            f"{here.stamp} in {here.frame_id!r}; stamp and frame_id of a label must be its image's own"
        )
    said = [f"{len(bare)} of {len(frames)} frames have no ground truth"] if bare else []
    said += [f"{len(lost)} ground truth messages match no frame by stamp and frame_id"] if lost else []
    return "; ".join(said)
