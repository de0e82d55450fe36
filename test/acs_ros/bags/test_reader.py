from __future__ import annotations

import shutil
import struct

import hostile_bags as hostile
import pytest
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.errors import ReaderError
from rosbags.typesys import Stores, get_typestore

from acs_ros.bags.bags import BagWriter, read_bag
from acs_ros.bags.frames import peek_header
from acs_ros.bags.reader import Bag, read_listing, storage_files
from acs_ros.bags.recovery import ZSTD_MAGIC, IndexedMcap
from acs_ros.errors import BagError

FILE = {"mcap": "bag.mcap", "sqlite3": "bag.db3"}


@pytest.fixture(params=["mcap", "sqlite3"])
def storage(request) -> str:
    return request.param


def read(path) -> tuple[list[int], list[str]]:
    with Bag(path) as bag:
        times = [m.time_ns for m in bag.messages(("/camera/image",))]
        return times, bag.notes


def test_a_bag_is_read_by_its_folder_its_file_or_its_metadata(make_bag, storage):
    folder = make_bag(storage=storage)
    expected = [250_000_000, 500_000_000, 750_000_000, 1_000_000_000]
    for path in (folder, folder / FILE[storage], folder / "metadata.yaml"):
        assert read(path) == (expected, [])
    with Bag(folder) as bag:
        assert bag.storage == storage
        assert bag.topics == {
            "/camera/image": "sensor_msgs/msg/Image",
            "/ground_truth": "vision_msgs/msg/Detection2DArray",
        }


@pytest.mark.parametrize("damage", ["lost", "cut"])
def test_without_metadata_the_files_are_read_and_that_is_said(make_bag, storage, damage):
    folder = make_bag(storage=storage)
    metadata = folder / "metadata.yaml"
    if damage == "lost":
        metadata.unlink()
    else:
        metadata.write_text(metadata.read_text()[:60])
    times, notes = read(folder)
    assert len(times) == 4
    assert len(notes) == 1 and "metadata.yaml" in notes[0] and "one by one" in notes[0]


def test_a_truncated_bag_is_read_up_to_where_it_breaks(make_bag, frames, storage):
    folder = make_bag(frames=frames(8, noise=True), storage=storage)
    file = folder / FILE[storage]
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 3 // 4])
    times, notes = read(folder)
    assert times == [250_000_000 * (i + 1) for i in range(len(times))] and 3 <= len(times) < 8
    assert len(notes) == 1 and "the bag is damaged: it breaks after the message of" in notes[0]


def test_a_damaged_place_in_the_middle_ends_the_bag(make_bag, frames):
    file = make_bag(frames=frames(8, noise=True)) / "bag.mcap"
    content = bytearray(file.read_bytes())
    content[content.rfind(ZSTD_MAGIC)] ^= 0xFF  # the beginning of the last chunk
    file.write_bytes(content)
    times, notes = read(file)
    assert 0 < len(times) < 8
    assert "the bag is damaged" in notes[0]


def split(make_bag, frames) -> list:
    """A recording in three files without metadata, as a killed recorder leaves it."""
    folder = make_bag("rec", frames=frames(1))
    shutil.rmtree(folder)
    folder.mkdir()
    files = []
    for number, frame in enumerate(frames(3, noise=True)):
        files.append(folder / f"rec_{[2, 10, 1][number]}.mcap")
        shutil.copy(make_bag(f"part{number}", frames=[frame]) / f"part{number}.mcap", files[-1])
    return files


def test_split_files_are_read_in_the_order_of_their_numbers(make_bag, frames):
    files = split(make_bag, frames)
    assert [f.name for f in storage_files(files[0].parent)] == ["rec_1.mcap", "rec_2.mcap", "rec_10.mcap"]
    assert read(files[0].parent)[0] == [750_000_000, 250_000_000, 500_000_000]


def test_nothing_is_read_behind_a_file_that_breaks(make_bag, frames):
    files = split(make_bag, frames)
    files[0].write_bytes(b"")  # rec_2, the second one
    times, notes = read(files[0].parent)
    assert times == [750_000_000]
    assert any("rec_2.mcap is empty (0 bytes)" in note and "the files before it are used" in note for note in notes)


@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
@pytest.mark.parametrize("with_metadata", [True, False])
def test_compressed_bags(tmp_path, frames, mode, with_metadata):
    writer = Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.SQLITE3)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        topic = writer.add_connection(
            "/camera/image", "sensor_msgs/msg/Image", typestore=get_typestore(Stores.ROS2_KILTED)
        )
        written = [bytes(serialize_message(frame.image_message)) for frame in frames(3)]
        for number, data in enumerate(written):
            writer.write(topic, number, data)
    if not with_metadata:
        (tmp_path / "bag" / "metadata.yaml").unlink()
    if mode is CompressionMode.FILE and not with_metadata:
        with pytest.raises(BagError, match="zstd -d"):
            read(tmp_path / "bag")
        return
    with Bag(tmp_path / "bag") as bag:
        found = list(bag.messages(("/camera/image",)))
    assert [m.data for m in found] == written


def test_a_file_that_is_listed_several_times_counts_once(make_bag):
    folder = make_bag()
    text = (folder / "metadata.yaml").read_text()
    assert text.count("- bag.mcap") == 1
    (folder / "metadata.yaml").write_text(text.replace("- bag.mcap", "- bag.mcap\n  - bag.mcap\n  - bag.mcap"))
    assert read_listing(folder).files == (folder / "bag.mcap",)
    assert read(folder) == ([250_000_000, 500_000_000, 750_000_000, 1_000_000_000], [])


@pytest.mark.parametrize("indexed", [True, False])
def test_files_that_are_listed_and_missing_are_named(make_bag, indexed):
    folder = make_bag()
    text = (folder / "metadata.yaml").read_text()
    (folder / "metadata.yaml").write_text(text.replace("- bag.mcap", "- bag.mcap\n  - bag_1.mcap\n  - bag_7.mcap"))
    if not indexed:
        without_index(folder / "bag.mcap")
    times, notes = read(folder)
    assert len(times) == 4 and len(notes) == (1 if indexed else 2)
    assert "it lists files that are not there: bag_1.mcap, bag_7.mcap" in notes[-1]


def without_index(file):
    """Make the footer of a whole mcap file say that there is no summary."""
    content = file.read_bytes()
    file.write_bytes(content[:-28] + bytes(20) + content[-8:])


def test_a_file_without_an_index_is_read_whole(make_bag, frames):
    folder = make_bag(frames=frames(8, noise=True))
    expected = read(folder)[0]
    without_index(folder / "bag.mcap")
    assert read(folder) == (expected, ["bag.mcap has no index that could be used: it is read from end to end"])
    assert len(list(read_bag(folder))) == 8  # nothing is missing, so a bag player takes it


@pytest.mark.parametrize(
    ("index", "why"),
    [
        ("no chunk", "no index of its messages"),
        ("one of two", "names 1 of 2 chunks"),
        ("bare", "2 of 2 chunks have no"),
    ],
)
def test_an_index_that_leaves_messages_out_is_not_used(tmp_path, index, why):
    """Messages in the order of the file, which is not that of their times."""
    raw = hostile.message(at=9) + hostile.message(at=4)
    body = hostile.chunk(raw, len(raw), "", (4, 9))
    first = len(hostile.mcap(hostile.schema(), hostile.channel())) - 50
    entry = hostile.entry(first, body, len(raw), len(raw), "", (4, 9))
    if index == "bare":  # an index of the chunks, none of the messages in them
        head = struct.pack("<QQQQ", 4, 9, first, len(body)) + bytes(4)
        entry = hostile.record(8, head + bytes(8) + hostile.text("") + struct.pack("<QQ", len(raw), len(raw)))
    count = {"no chunk": 0, "one of two": 2, "bare": 2}[index]
    facts = struct.pack("<QHIIIIQQ", 4, 1, 1, 0, 0, count, 4, 9) + struct.pack("<IHQ", 10, 1, 4)
    entries = {"no chunk": b"", "one of two": entry, "bare": entry * 2}[index]
    listed = hostile.schema() + hostile.channel() + entries + hostile.record(11, facts)
    data = raw * 2 if index == "no chunk" else body * 2
    (tmp_path / "a.mcap").write_bytes(hostile.mcap(hostile.schema(), hostile.channel(), data, index=listed))
    with pytest.raises(ReaderError, match=why):
        IndexedMcap(tmp_path / "a.mcap")
    times, notes = read(tmp_path / "a.mcap")
    assert times == [9, 4, 9, 4]
    assert notes == ["a.mcap has no index that could be used: it is read from end to end"]


@pytest.mark.parametrize("at", [0, 5])
def test_without_times_of_recording_the_order_of_the_file_counts(tmp_path, frames, storage, at):
    """Several chunks of an mcap file: sorted by time alone, their messages would come in any order."""
    with BagWriter(tmp_path / "bag", storage) as bag:
        for frame in frames(8, noise=True):
            bag.write("/ground_truth", frame.truth_message, at)
            bag.write("/camera/image", frame.image_message, at)
    with Bag(tmp_path / "bag") as bag:
        found = [(m.topic, peek_header(m.data)[0] // 250_000_000) for m in bag.messages(tuple(bag.topics))]
    assert found == [(topic, i + 1) for i in range(8) for topic in ("/ground_truth", "/camera/image")]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", "there is no bag"),
        ("zero.mcap", r"is empty \(0 bytes\)"),
        ("zero.db3", r"is empty \(0 bytes\)"),
        ("noise.mcap", "cannot be read"),
        ("noise.db3", "damaged, encrypted, or no rosbag2 file"),
        ("old.bag", "ROS 1 bag: convert it first"),
        ("notes.txt", "those end in .mcap or .db3"),
        ("empty", "neither metadata.yaml nor"),
        ("alone", "no .mcap or .db3 file beside it"),
    ],
)
def test_what_is_no_bag_is_named(tmp_path, name, said):
    for file in ("zero.mcap", "zero.db3", "old.bag", "notes.txt"):
        (tmp_path / file).touch()
    for file in ("noise.mcap", "noise.db3"):
        (tmp_path / file).write_bytes(bytes(range(256)) * 20)
    (tmp_path / "empty").mkdir()
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "metadata.yaml").write_text("rosbag2_bagfile_information: {}\n")
    with pytest.raises(BagError, match=said):
        Bag(tmp_path / name)


def test_a_bag_of_another_serialization_is_refused(tmp_path):
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topic = writer.add_connection(
            "/x",
            "std_msgs/msg/String",
            typestore=get_typestore(Stores.ROS2_KILTED),
            serialization_format="json",
        )
        writer.write(topic, 1, b"{}")
    with pytest.raises(BagError, match="serialized as json"):
        Bag(tmp_path / "bag")
