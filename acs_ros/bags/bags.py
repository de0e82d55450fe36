"""Writing and reading of bags of frames with ground truth, and their creation from a COCO folder.

A bag is a rosbag2 folder (mcap, chunks compressed with zstd) with the topics ``/camera/image`` (sensor_msgs/Image) and
``/ground_truth`` (vision_msgs/Detection2DArray; same stamp and frame_id as its image; ``class_id`` is the phrase for
the object). ``ros2 bag play`` plays it; here rosbags reads and writes it, because rosbag2 is not on pip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String
from vision_msgs.msg import Detection2DArray

from acs_core.artifacts.json_io import COCO, read_json
from acs_core.errors import ImageError
from acs_core.geometry import Box
from acs_core.image import read_image
from acs_core.pixels import MOST_BITS
from acs_core.plain_text import join_some
from acs_ros.bags.frames import FrameAt, due_times, odd_times, peek_header
from acs_ros.bags.reader import Bag
from acs_ros.bags.truth_pairing import Pairing, TruthAt, pair_truth
from acs_ros.conversions.detections import box_from_message, detection_to_message
from acs_ros.conversions.images import fill_image, header_of, image_to_rgb, stamp_ns
from acs_ros.errors import BagError
from acs_ros.files import interface_files

DEMO_BAG = Path(__file__).resolve().parents[1] / "assets" / "demo_bag"  # what `make demo` plays
IMAGE_TOPIC, TRUTH_TOPIC, QUERY_TOPIC = "/camera/image", "/ground_truth", "/grounding/query"
FRAME_ID = "camera_optical_frame"
PERIOD_NS = 100_000_000  # stamps of frames made from a COCO folder: ten a second
OWN_PACKAGES = ("vision_msgs", "acs_msgs")  # packages whose types rosbags does not include


@dataclass(frozen=True)
class BagFrame:
    """One frame. ``image`` is (H, W, 3) uint8 RGB; ``truth`` are pairs of a phrase and the true box of its object.
    ``due_ns`` says when it is due at the bag's own pace, in nanoseconds after the first frame; None: by its stamp.
    ``query`` is the phrase asked for, for QUERY_TOPIC; None: no message there."""

    stamp_ns: int
    image: np.ndarray
    truth: tuple[tuple[str, Box], ...]
    frame_id: str = FRAME_ID
    due_ns: int | None = None
    query: str | None = None

    @property
    def truth_message(self) -> Detection2DArray:
        """Message with the true boxes, for TRUTH_TOPIC."""
        found = [detection_to_message(self.header, phrase, box, 1.0) for phrase, box in self.truth]
        return Detection2DArray(header=self.header, detections=found)

    @property
    def image_message(self) -> Image:
        """Image message, for IMAGE_TOPIC."""
        return fill_image(Image(header=self.header), self.image)

    @property
    def header(self) -> Header:
        """Header of all messages about this frame."""
        return header_of(self.stamp_ns, self.frame_id)


class BagWriter:
    """Writer of ROS messages to a new bag folder; a context manager. ``storage`` is "mcap" (compressed) or "sqlite3".

    Raises:
        BagError: the folder exists already.
    """

    def __init__(self, folder: Path, storage: str = "mcap") -> None:
        if folder.exists():
            raise BagError(f"{folder} exists already: remove it or name another folder")
        self._types = get_typestore(Stores.ROS2_KILTED)
        for package in OWN_PACKAGES:
            for file in interface_files(package):
                found = get_types_from_msg(file.read_text(), f"{package}/msg/{file.stem}")
                self._types.register({k: v for k, v in found.items() if k not in self._types.fielddefs})
        self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin[storage.upper()])
        if storage == "mcap":
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> BagWriter:
        self._writer.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def write(self, topic: str, msg: Any, time_ns: int) -> None:
        """Append a message, received at ``time_ns``."""
        if topic not in self._connections:
            package = type(msg).__module__.partition(".")[0]
            msgtype = f"{package}/msg/{type(msg).__name__}"
            self._connections[topic] = self._writer.add_connection(topic, msgtype, typestore=self._types)
        self._writer.write(self._connections[topic], time_ns, serialize_message(msg))

    def write_frame(self, frame: BagFrame) -> None:
        """Append a frame: its query, if it has one, its true boxes in one message, and its image.

        Raises:
            ImageError: the image is not (H, W, 3) uint8.
        """
        if frame.query is not None:
            self.write(QUERY_TOPIC, String(data=frame.query), frame.stamp_ns)
        self.write(TRUTH_TOPIC, frame.truth_message, frame.stamp_ns)
        self.write(IMAGE_TOPIC, frame.image_message, frame.stamp_ns)


def write_bag(folder: Path, frames: Iterable[BagFrame]) -> int:
    """Write frames to a new bag folder; returns their number.

    Raises:
        BagError: the folder exists already.
        ImageError: an image is not (H, W, 3) uint8.
    """
    count = 0
    with BagWriter(folder) as bag:
        for frame in frames:
            bag.write_frame(frame)
            count += 1
    return count


def read_bag(
    folder: Path,
    image_topic: str = IMAGE_TOPIC,
    truth_topic: str = TRUTH_TOPIC,
    note: Callable[[str], None] = lambda text: None,
) -> Iterator[BagFrame]:
    """The frames of a bag in the order of their images. A bag without ground truth gives empty ``truth``.

    Headers and truths are read first, so only they are held in memory. Frames that repeat a stamp come with one of
    their own. ``note`` is called with sentences about odd stamps and times, and about truth that is left out.

    Raises:
        BagError: there is no bag, it is broken or has no ``image_topic``, or an image cannot be decoded.
    """
    try:
        bag = Bag(folder)
    except BagError as error:
        raise BagError(f"cannot read the bag {folder}: {error}") from error
    with bag:
        _check_whole(bag)
        if bag.topics.get(image_topic) != "sensor_msgs/msg/Image":
            has = join_some(f"{t} ({m})" for t, m in bag.topics.items()) or "nothing"
            raise BagError(f"{folder} has no sensor_msgs/Image on {image_topic}; it has {has}")
        try:
            pairing = _pair(bag, image_topic, truth_topic)
            _check_whole(bag)
            for text in (*bag.notes, *odd_times(pairing.frames), *pairing.notes):
                note(text)
            by_number = {frame.number: frame for frame in pairing.frames}
            due = dict(zip(by_number, due_times(pairing.frames, stamps_first=True), strict=True))
            for number, (_, _, raw) in enumerate(bag.messages((image_topic,))):
                msg = deserialize_message(raw, Image)
                at = stamp_ns(msg.header)
                if not 0 <= at // 1_000_000_000 < 2**31:
                    raise BagError(f"an image on {image_topic} of {folder} has a stamp that is no time: {at} ns")
                key = by_number[number].key
                yield BagFrame(key[0], image_to_rgb(msg), pairing.truth.get(key, ()), key[1], due[number])
            _check_whole(bag)
        except ImageError as error:
            raise BagError(f"an image on {image_topic} of {folder} cannot be used: {error}") from error
        except BagError:
            raise
        except Exception as error:  # for broken messages, rclpy raises any exception of its C++ side
            raise BagError(f"cannot read the bag {folder}: {type(error).__name__} {error}") from error


def _pair(bag: Bag, image_topic: str, truth_topic: str) -> Pairing:
    """The frames of a bag with their truth; images without a header are left out."""
    frames: list[FrameAt] = []
    truths: list[TruthAt] = []
    number = -1
    for topic, time_ns, raw in bag.messages((image_topic, truth_topic)):
        if topic == image_topic:
            number += 1
            with suppress(ValueError):  # decoding the image says what is wrong with it
                frames.append(FrameAt(number, time_ns, *peek_header(raw)))
        else:
            found = deserialize_message(raw, Detection2DArray)
            labels = tuple(_truth(found))
            truths.append(TruthAt(number + 1, time_ns, stamp_ns(found.header), found.header.frame_id, labels))
    return pair_truth(frames, truths)


def _check_whole(bag: Bag) -> None:
    if bag.incomplete:
        raise BagError(f"cannot read the bag {bag.path}: {'; '.join(bag.notes)}")


def _truth(msg: Detection2DArray) -> Iterator[tuple[str, Box]]:
    for detection in msg.detections:
        if detection.results:
            yield detection.results[0].hypothesis.class_id, box_from_message(detection.bbox)


def frames_from_coco(instances: Path, count: int, absent_every: int = 0) -> Iterator[BagFrame]:
    """Yield the first ``count`` images of a COCO file as frames with one question each: the smallest object whose
    category appears once in the image. Images without such an object are left out.

    With ``absent_every`` above 0, frames have a query, and every so many frames it asks for an object of the frame
    before that is not in the image, if there is one.

    Images are in ``images/`` beside the file, or directly beside it. The field "bits" of an image's entry is the number
    of bits that its 16-bit values use.

    Raises:
        BagError: the file or an image cannot be read.
    """
    try:
        content = read_json(instances, COCO, nan=True)
        names = {c["id"]: c["name"] for c in content["categories"]}
        boxes: dict[int, list[tuple[str, Box]]] = {}
        for a in content["annotations"]:
            x, y, w, h = a["bbox"]
            boxes.setdefault(a["image_id"], []).append((names[a["category_id"]], Box(x, y, x + w, y + h)))
        pictures = [(p["id"], p["file_name"], p.get("bits", MOST_BITS)) for p in content["images"]]
    except (ValueError, KeyError, TypeError) as error:
        raise BagError(f"{instances} is not a COCO instances file: {type(error).__name__}: {error}") from error
    made, before = 0, ""
    for key, name, bits in pictures:
        found = boxes.get(key, [])
        alone = [(n, b) for n, b in found if sum(n == other for other, _ in found) == 1]
        if not alone or made == count:
            continue
        file = next((f for f in (instances.parent / "images" / name, instances.parent / name) if f.is_file()), None)
        if file is None:
            raise BagError(f"cannot read the picture {name} of {instances}: it does not exist")
        try:
            picture = read_image(file, bits)
        except (ImageError, TypeError, ValueError) as error:
            raise BagError(f"cannot read the picture {name} of {instances}: {error}") from error
        made += 1
        smallest = min(alone, key=lambda pair: pair[1].area)
        query = None
        if absent_every:
            absent = made % absent_every == 0 and before and before not in {n for n, _ in found}
            query = before if absent else smallest[0]
        before = smallest[0]
        yield BagFrame(made * PERIOD_NS, picture, (smallest,), query=query)
