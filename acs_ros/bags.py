"""Bags of frames with known answers: written, read, and made from a COCO folder.

A bag is a rosbag2 folder (mcap, chunks compressed with zstd) with the topics ``/camera/image`` (sensor_msgs/Image) and
``/ground_truth`` (vision_msgs/Detection2DArray; same stamp and frame_id as its image, ``class_id`` the phrase that
names the object). ``ros2 bag play`` plays it; here rosbags reads and writes it, because rosbag2 is not on pip.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from acs_core.errors import ImageError
from acs_core.geometry import Box
from acs_ros.files import interface_files
from acs_ros.image_conversion import fill_image, image_to_rgb
from acs_ros.messages import box_from_message, detection_to_message

DEMO_BAG = Path(__file__).resolve().parent / "assets" / "demo_bag"  # what `make demo` plays
IMAGE_TOPIC, TRUTH_TOPIC = "/camera/image", "/ground_truth"
FRAME_ID = "camera_optical_frame"
PERIOD_NS = 100_000_000  # stamps of frames made from a COCO folder: ten a second
OWN_PACKAGES = ("vision_msgs", "acs_msgs")  # whose types rosbags does not bring


class BagError(Exception):
    """A bag cannot be read or written, or has no frames; the message says what to do."""


@dataclass(frozen=True)
class BagFrame:
    """One frame. ``image`` is (H, W, 3) uint8 RGB; ``truth`` are pairs of a phrase and the box of what it names."""

    stamp_ns: int
    image: np.ndarray
    truth: tuple[tuple[str, Box], ...]
    frame_id: str = FRAME_ID

    @property
    def truth_message(self) -> Detection2DArray:
        """The truth as it stands on TRUTH_TOPIC."""
        found = [detection_to_message(self.header, phrase, box, 1.0) for phrase, box in self.truth]
        return Detection2DArray(header=self.header, detections=found)

    @property
    def image_message(self) -> Image:
        """The picture as it stands on IMAGE_TOPIC."""
        return fill_image(Image(header=self.header), self.image)

    @property
    def header(self) -> Header:
        """The header that every message about this frame carries."""
        made = Header(frame_id=self.frame_id)
        made.stamp.sec, made.stamp.nanosec = divmod(self.stamp_ns, 1_000_000_000)
        return made


def stamp_ns(header: Header) -> int:
    """The stamp of a header in nanoseconds."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


class BagWriter:
    """Writes ROS messages to a new bag folder; a context manager.

    Raises:
        BagError: the folder exists already.
    """

    def __init__(self, folder: Path) -> None:
        if folder.exists():
            raise BagError(f"{folder} exists already: remove it or name another folder")
        self._types = get_typestore(Stores.ROS2_KILTED)
        for package in OWN_PACKAGES:
            for file in interface_files(package):
                found = get_types_from_msg(file.read_text(), f"{package}/msg/{file.stem}")
                self._types.register({k: v for k, v in found.items() if k not in self._types.fielddefs})
        self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
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
        """Append a frame: its truth, all in one message, and its picture.

        Raises:
            ImageError: the image is not (H, W, 3) uint8.
        """
        self.write(TRUTH_TOPIC, frame.truth_message, frame.stamp_ns)
        self.write(IMAGE_TOPIC, frame.image_message, frame.stamp_ns)


def write_bag(folder: Path, frames: Iterable[BagFrame]) -> int:
    """Write frames to a new bag folder; how many there were.

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


def read_bag(folder: Path, image_topic: str = IMAGE_TOPIC, truth_topic: str = TRUTH_TOPIC) -> Iterator[BagFrame]:
    """The frames of a bag in the order of their images. A bag without ground truth gives empty ``truth``.

    The truths are read first, so only they are held in memory.

    Raises:
        BagError: no bag, a broken one, or one without ``image_topic``; or an image that cannot be decoded.
    """
    try:
        with Reader(folder) as bag:
            topics = {c.topic: c.msgtype for c in bag.connections}
            if topics.get(image_topic) != "sensor_msgs/msg/Image":
                has = ", ".join(f"{t} ({m})" for t, m in topics.items()) or "nothing"
                raise BagError(f"{folder} has no sensor_msgs/Image on {image_topic}; it has {has}")
            truths: dict[int, tuple[tuple[str, Box], ...]] = {}
            known = [c for c in bag.connections if c.topic == truth_topic]
            for _, _, raw in bag.messages(known) if known else ():  # without connections, rosbags gives all messages
                found = deserialize_message(raw, Detection2DArray)
                truths[stamp_ns(found.header)] = tuple(_truth(found))
            for _, _, raw in bag.messages([c for c in bag.connections if c.topic == image_topic]):
                msg = deserialize_message(raw, Image)
                at = stamp_ns(msg.header)
                if not 0 <= at // 1_000_000_000 < 2**31:
                    raise BagError(f"an image on {image_topic} of {folder} has a stamp that is no time: {at} ns")
                yield BagFrame(at, image_to_rgb(msg), truths.get(at, ()), msg.header.frame_id)
    except ImageError as error:
        raise BagError(f"an image on {image_topic} of {folder} cannot be used: {error}") from error
    except BagError:
        raise
    except Exception as error:  # of a broken bag: rosbags, its decoders and those of the messages raise their own
        problem = f"{type(error).__name__} {error}".strip()[:500]
        raise BagError(f"cannot read the bag {folder}: {problem}") from error


def _truth(msg: Detection2DArray) -> Iterator[tuple[str, Box]]:
    for detection in msg.detections:
        if detection.results:
            yield detection.results[0].hypothesis.class_id, box_from_message(detection.bbox)


def frames_from_coco(instances: Path, count: int) -> Iterator[BagFrame]:
    """The first ``count`` pictures of a COCO file as frames, one question each: the smallest object whose category
    appears once in the picture. Pictures without such an object are left out.

    Pictures lie in ``images/`` beside the file, or beside it.

    Raises:
        BagError: the file or a picture cannot be read.
    """
    try:
        content = json.loads(instances.read_text())
        names = {c["id"]: c["name"] for c in content["categories"]}
        boxes: dict[int, list[tuple[str, Box]]] = {}
        for a in content["annotations"]:
            x, y, w, h = a["bbox"]
            boxes.setdefault(a["image_id"], []).append((names[a["category_id"]], Box(x, y, x + w, y + h)))
        pictures = [(p["id"], p["file_name"]) for p in content["images"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BagError(f"{instances} is not a COCO instances file: {type(error).__name__}: {error}") from error
    made = 0
    for key, name in pictures:
        found = boxes.get(key, [])
        alone = [(n, b) for n, b in found if sum(n == other for other, _ in found) == 1]
        if not alone or made == count:
            continue
        file = next((f for f in (instances.parent / "images" / name, instances.parent / name) if f.is_file()), None)
        picture = None if file is None else cv2.imread(str(file))
        if picture is None:
            raise BagError(f"cannot read the picture {name} of {instances}")
        made += 1
        smallest = min(alone, key=lambda pair: pair[1].area)
        yield BagFrame(made * PERIOD_NS, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), (smallest,))
