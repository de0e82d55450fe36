"""Topics and contents of a bag besides pixels: frame times, queries and labels, read in one pass."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rclpy.serialization import deserialize_message
from std_msgs.msg import String
from vision_msgs.msg import Detection2DArray

from acs_core.arguments import clean_phrase
from acs_core.errors import PhraseError
from acs_core.geometry import Box
from acs_core.plain_text import MAX_ITEM, join_some, one_line
from acs_ros.bags.frames import FrameAt, odd_times, peek_header, times_serve
from acs_ros.bags.reader import Bag
from acs_ros.bags.truth_pairing import Labels, TruthAt, pair_truth
from acs_ros.conversions.detections import box_from_message
from acs_ros.conversions.images import stamp_ns
from acs_ros.errors import BagError

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
DETECTIONS, STRING = "vision_msgs/msg/Detection2DArray", "std_msgs/msg/String"
MAX_FRAMES = 1_000_000  # nine hours at 30 a second
MAX_LABELS = 1_000_000
MAX_ASKED = 100_000  # queries
MAX_BYTES = 256 * 2**10  # of a message with labels or a query: the labels of a picture take a few kilobytes


@dataclass(frozen=True)
class Topics:
    """Names of the topics in use, None where a bag has none. ``compressed``: the images are CompressedImage."""

    image: str
    compressed: bool
    truth: str | None = None
    query: str | None = None

    @property
    def named(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(t for t in (self.image, self.truth, self.query) if t)


def choose_topics(
    topics: Mapping[str, str], image: str | None = None, truth: str | None = None, query: str | None = None
) -> Topics:
    """Choose among ``topics`` (name: type) by type, or by the names that the user gave.

    A std_msgs/String may hold anything, so without a name only a topic called ``query`` or ``.../query`` counts as
    queries. Empty text for ``truth`` or ``query``: none, whatever the bag has.

    Raises:
        BagError: one that was named is not there or of another type, or several could be meant; lists them.
    """
    if not topics:
        raise BagError("the bag has no topics")
    chosen = _pick(topics, (IMAGE, COMPRESSED), image, "--image-topic")
    if chosen is None:
        raise BagError(f"the bag has no images: no sensor_msgs/Image or CompressedImage; it has {_listed(topics)}")
    texts = {t: kind for t, kind in topics.items() if kind != STRING or t.rsplit("/", 1)[-1] == "query"}
    return Topics(
        chosen,
        topics[chosen] == COMPRESSED,
        None if truth == "" else _pick(topics, (DETECTIONS,), truth, "--truth"),
        None if query == "" else _pick(topics if query else texts, (STRING,), query, "--query-topic"),
    )


def _pick(topics: Mapping[str, str], kinds: Sequence[str], named: str | None, option: str) -> str | None:
    fitting = {t: kind for t, kind in topics.items() if kind in kinds}
    if named is None:
        if len(fitting) > 1:
            raise BagError(f"several topics could be meant, choose one with {option}: {_listed(fitting)}")
        return next(iter(fitting), None)
    if named in fitting:
        return named
    others = f"topics of a fitting type are {_listed(fitting)}" if fitting else f"the bag has {_listed(topics)}"
    if named in topics:
        raise BagError(f"{option} {named} is {_short(topics[named])}, not {' or '.join(map(_short, kinds))}; {others}")
    raise BagError(f"{option}: the bag has no topic {named}; {others}")


def _listed(topics: Mapping[str, str]) -> str:
    return join_some((f"{t} ({_short(kind)})" for t, kind in sorted(topics.items())), total=len(topics))


def _short(kind: str) -> str:
    return one_line(kind.replace("/msg/", "/"), MAX_ITEM)


@dataclass(frozen=True)
class Contents:
    """``queries`` are pairs of the time and the text, in order; ``truth`` has the labels of each stamp and frame_id.
    ``unreadable`` counts messages that could not be decoded, by topic. ``places`` are, where the times of recording do
    not serve, the number of images before each query. ``notes`` are sentences about what is odd; ``truth_messages``
    counts the messages with ground truth."""

    frames: tuple[FrameAt, ...]
    queries: tuple[tuple[int, str], ...]
    truth: Mapping[tuple[int, str], Labels]
    unreadable: Mapping[str, int]
    places: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    truth_messages: int = 0


def read_contents(bag: Bag, topics: Topics, progress: Callable[[], None] = lambda: None) -> Contents:
    """Read frames, queries and labels in one pass. ``progress`` is called for every frame.

    Raises:
        BagError: more frames, labels or queries than MAX_FRAMES, MAX_LABELS and MAX_ASKED.
    """
    frames: list[FrameAt] = []
    queries: list[tuple[int, str]] = []
    places: list[int] = []
    truths: list[TruthAt] = []
    labels = truth_messages = 0
    unreadable: Counter[str] = Counter()
    number = -1
    for topic, time_ns, data in bag.messages(topics.named):
        truth_messages += topic == topics.truth
        try:
            if topic == topics.image:
                number += 1
                stamp, frame_id = peek_header(data)
                frames.append(FrameAt(number, time_ns, stamp, frame_id))
                progress()
            elif len(data) > MAX_BYTES:
                unreadable[topic] += 1
            elif topic == topics.truth:
                found = deserialize_message(data, Detection2DArray)
                new = tuple(_labels(found))
                truths.append(TruthAt(number + 1, time_ns, stamp_ns(found.header), found.header.frame_id, new))
                labels += 1 + len(new)
            else:
                queries.append((time_ns, deserialize_message(data, String).data))
                places.append(number + 1)
        except Exception:  # rclpy raises whatever its C++ side threw
            unreadable[topic] += 1
        if len(frames) > MAX_FRAMES or labels > MAX_LABELS or len(queries) > MAX_ASKED:
            raise BagError(
                f"{bag.path} has more than {MAX_FRAMES:,} frames, {MAX_LABELS:,} labels or {MAX_ASKED:,} queries: "
                "split it into several bags"
            )
    pairing = pair_truth(frames, truths)
    return Contents(
        pairing.frames,
        tuple(queries),
        pairing.truth,
        dict(unreadable),
        () if times_serve(frames) else tuple(places),
        (*odd_times(pairing.frames), *pairing.notes),
        truth_messages,
    )


def _labels(found: Detection2DArray) -> Iterator[tuple[str, Box]]:
    for detection in found.detections:
        if detection.results:
            try:
                phrase = clean_phrase(detection.results[0].hypothesis.class_id)
            except PhraseError:
                continue  # a label without a name names nothing
            box = box_from_message(detection.bbox)
            if box.area > 0 and math.isfinite(box.area):
                yield phrase, box
