"""Which topics of a bag are meant: found by their type where only one can be, named by the user where several can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from acs_ros.bags import BagError

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
DETECTIONS, STRING = "vision_msgs/msg/Detection2DArray", "std_msgs/msg/String"


@dataclass(frozen=True)
class Topics:
    """The topics in use; None where a bag has none of the sort. ``compressed``: the images are CompressedImage."""

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
    """The topics that are meant among ``topics`` (name: type). Those that the user named must be there.

    Texts may be anything, so without a name only a topic called ``query`` or ``.../query`` counts as one. Empty text
    for ``truth`` or ``query``: none, whatever the bag has.

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
    return ", ".join(f"{t} ({_short(kind)})" for t, kind in sorted(topics.items()))


def _short(kind: str) -> str:
    return kind.replace("/msg/", "/")
