"""What is asked of which frame, and what is true of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from acs_core.errors import PhraseError
from acs_core.geometry import Box
from acs_core.phrase import clean_phrase
from acs_ros.bags import BagError
from acs_ros.queries import split_text
from acs_ros.replay.contents import Contents, FrameAt, Labels


@dataclass(frozen=True)
class Asked:
    """A frame with the phrases to ask of it, in their order; none where no query was in force."""

    frame: FrameAt
    phrases: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """``source`` says where the phrases come from, for the report; ``notes`` what is odd about them. ``recorded``: they
    changed when the bag was recorded, as they do here."""

    asked: tuple[Asked, ...]
    source: str
    notes: tuple[str, ...] = ()
    recorded: bool = True


class Truth:
    """True boxes by frame and phrase. ``labels`` are those of each stamp and frame_id; frames without an entry are
    unlabelled."""

    def __init__(self, labels: Mapping[tuple[int, str], Labels]) -> None:
        self._labels = labels
        self._names = {phrase for found in labels.values() for phrase, _ in found}

    def __len__(self) -> int:
        return len(self._labels)

    def phrases(self, frame: FrameAt) -> tuple[str, ...]:
        """What the labels of a frame name, each once."""
        return tuple(dict.fromkeys(phrase for phrase, _ in self._labels.get(frame.key, ())))

    def boxes(self, frame: FrameAt, phrase: str) -> tuple[Box, ...] | None:
        """The true boxes of ``phrase``: none where the frame does not show it, None where that is not known, because
        the frame has no labels, or none of any frame ever names the phrase."""
        if frame.key not in self._labels or phrase not in self._names:
            return None
        return tuple(box for name, box in self._labels[frame.key] if name == phrase)

    def labels(self, frame: FrameAt) -> Labels:
        """All labels of a frame."""
        return self._labels.get(frame.key, ())

    def without(self, keys: Collection[tuple[int, str]]) -> Truth:
        """The same without the labels of these stamps and frame_ids."""
        return Truth({key: found for key, found in self._labels.items() if key not in keys})

    def knows(self, frame: FrameAt) -> bool:
        """Whether the frame has labels."""
        return frame.key in self._labels


def make_plan(contents: Contents, truth: Truth, query: str | None, query_topic: str | None) -> Plan:
    """What to ask: ``query`` of every frame; else what was in force on ``query_topic`` when the frame was recorded;
    else what the frame's labels name.

    Raises:
        BagError: there is nothing of all that.
        PhraseError: a phrase of ``query`` cannot be asked.
    """
    if query is not None:
        phrases = _phrases(query)
        return Plan(tuple(Asked(f, phrases) for f in contents.frames), "--query")
    if query_topic is not None:
        return _in_force(contents, query_topic)
    if not len(truth):
        raise BagError(
            "nothing can be asked: the bag has neither a query topic nor ground truth; name what to look for with "
            "--query 'key', or a std_msgs/String topic with --query-topic"
        )
    return Plan(
        tuple(Asked(f, truth.phrases(f)) for f in contents.frames), "what the labels of each frame name", (), False
    )


def _in_force(contents: Contents, topic: str) -> Plan:
    now: tuple[str, ...] = ()
    asked: list[Asked] = []
    waiting = deque(contents.queries)
    rejected: list[str] = []
    for frame in contents.frames:
        while waiting and waiting[0][0] <= frame.time_ns:
            text = waiting.popleft()[1]
            try:
                now = _phrases(text)
            except PhraseError as error:  # as in the node: what is in force stays
                rejected.append(str(error))
        asked.append(Asked(frame, now))
    notes = [f"{len(rejected)} queries on {topic} cannot be asked: {rejected[0]}"] if rejected else []
    early = sum(not a.phrases for a in asked)
    if early:
        notes.append(f"nothing was asked of {early} frames: no query on {topic} was in force")
    return Plan(tuple(asked), f"queries on {topic}", tuple(notes))


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(clean_phrase(phrase) for phrase in split_text(text)))


def unmatched(truth: Mapping[tuple[int, str], Labels], frames: Sequence[FrameAt]) -> str:
    """Which labels and frames do not belong together, as a sentence; "" where
    nothing is odd, or there is no truth.

    Raises:
        BagError: no frame at all has labels; shows stamps and frame_ids of both.
    """
    if not truth:
        return ""
    keys = {f.key for f in frames}
    lost = [key for key in truth if key not in keys]
    bare = [f for f in frames if f.key not in truth]
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
