"""Small bags stay small: what unpacks, repeats or runs without end is refused or ends early, in words."""

from __future__ import annotations

import hostile_bags as hostile
import pytest
from bounded_parts import bounded
from rosbags.rosbag2.errors import ReaderError

from acs_ros.bags import sqlite_file, unpacking
from acs_ros.bags.bags import read_bag
from acs_ros.bags.reader import Bag
from acs_ros.bags.recovery import most_messages
from acs_ros.bags.sqlite_file import TOO_MANY_STEPS, SqliteFile
from acs_ros.bags.unpacking import ALWAYS, MAX_RECORDS, MAX_UNPACKED, limit_for, unpack_lz4, unpack_zstd
from acs_ros.errors import BagError
from acs_ros.replay.cli import main

SETUP = """
from pathlib import Path
from acs_ros.bags.reader import Bag

def look(path):
    with Bag(Path(path)) as bag:
        count = sum(len(m.data) >= 0 for m in bag.messages(tuple(bag.topics)))
        return count, bag.notes
"""
GB = 10**9


def look(content: bytes, tmp_path, name: str = "a.mcap"):
    (tmp_path / name).write_bytes(content)
    assert len(content) < 10 * 2**20
    return bounded(SETUP, "look(argument)", tmp_path / name)


BOMBS = {
    "a chunk that declares 100 bytes": lambda: hostile.indexed(hostile.zstd_zeros(3 * GB), 100),
    "a chunk that declares what it holds": lambda: hostile.indexed(hostile.zstd_zeros(3 * GB), 3 * GB),
    "a chunk of 3 GB without an index": lambda: hostile.mcap(
        hostile.schema(), hostile.channel(), hostile.message(), hostile.chunk(hostile.zstd_zeros(3 * GB), 100)
    ),
    "lz4": lambda: hostile.indexed(hostile.lz4_zeros(2 * GB), 2 * GB, "lz4"),
    "lz4 that declares 100 bytes": lambda: hostile.indexed(hostile.lz4_zeros(2 * GB), 100, "lz4"),
    "chunks over one another": lambda: hostile.indexed(hostile.zstd_zeros(ALWAYS), ALWAYS, copies=80),
    "one chunk many times": lambda: hostile.indexed(hostile.zstd_zeros(ALWAYS), ALWAYS, claims=2000),
    "millions of messages in a chunk": lambda: hostile.indexed(*many_messages(800_000)),
    "millions of messages in many chunks": lambda: hostile.indexed(*many_messages(200_000), copies=40),
    "millions of messages without an index": lambda: hostile.mcap(
        hostile.schema(), hostile.channel(), hostile.chunk(*many_messages(200_000)) * 40
    ),
    "quality of service as YAML": lambda: hostile.mcap(
        hostile.schema(), hostile.channel(qos=hostile.QOS_BOMB), hostile.message()
    ),
    "lengths without end": lambda: hostile.mcap(hostile.schema(), hostile.channel())[:-60] + b"\x05" + b"\xff" * 80,
}


def many_messages(count: int) -> tuple[bytes, int]:
    raw = hostile.message(b"") * count
    return unpacking.zstd.compress(raw), len(raw)


@pytest.mark.parametrize("name", BOMBS)
def test_small_mcap_files_stay_small(tmp_path, name):
    content = BOMBS[name]()
    found = look(content, tmp_path)
    assert found.grown_mb < 450, found
    assert len(found.said) < 1500, found


def test_messages_are_bounded_by_the_size_of_the_file(tmp_path):
    packed, size = many_messages(200_000)
    found = look(hostile.indexed(packed, size, copies=40), tmp_path)
    assert "more messages than any file of its size" in found.said
    (count, _) = found.said.strip("()").split(",", 1)
    assert int(count) <= most_messages((tmp_path / "a.mcap").stat().st_size)


def test_good_files_of_the_same_make_are_read(tmp_path):
    """The bombs above are refused for what they do, not because this writer's files cannot be read."""
    raw = hostile.message(b"\0\1\0\0good", at=5)
    for number, (packed, size, compression) in enumerate(
        (
            (unpacking.zstd.compress(raw * 3), len(raw) * 3, "zstd"),
            (hostile.lz4.frame.compress(raw * 3), len(raw) * 3, "lz4"),
            (raw * 3, len(raw) * 3, ""),
        )
    ):
        for content in (
            hostile.indexed(packed, size, compression),
            hostile.mcap(hostile.schema(), hostile.channel(), hostile.chunk(packed, size, compression)),
        ):
            file = tmp_path / f"{number}.mcap"
            file.write_bytes(content)
            with Bag(file) as bag:
                assert [m.data for m in bag.messages(("/camera/image",))] == [b"\0\1\0\0good"] * 3
                has_index = content == hostile.indexed(packed, size, compression)
                assert len(bag.notes) == (0 if has_index else 1) and not bag.incomplete
                assert has_index or "has no index that could be used: it is read from end to end" in bag.notes[0]


@pytest.mark.parametrize(("unpack", "pack"), [(unpack_zstd, unpacking.zstd.compress), (unpack_lz4, None)])
def test_unpacking_is_exact(unpack, pack):
    pack = pack or hostile.lz4.frame.compress
    packed = pack(b"x" * 1000)
    assert unpack(packed, 1000) == unpack(packed) == b"x" * 1000
    for data, size, says in (
        (packed, 999, "unpack to more than the 999 allowed"),
        (packed, MAX_UNPACKED + 1, "are said to unpack to"),
        (packed[:-2], 1000, "not one whole"),
        (packed * 2, 1000, "not one whole"),
    ):
        with pytest.raises(ReaderError, match=says):
            unpack(data, size)


def test_the_limit_grows_with_the_packed_size_to_its_end():
    assert limit_for(1) == ALWAYS and limit_for(10**6) == 200 * 10**6 and limit_for(10**9) == MAX_UNPACKED
    assert MAX_RECORDS > 4 * 2**20 // 31  # the largest chunk that recorders write, of the smallest messages


def test_rosbags_unpacks_with_our_functions():
    """Were its table no longer asked, a new version of rosbags would unpack without a limit again."""
    from rosbags.rosbag2.storage_mcap import decompress

    unpacking.bound_rosbags()
    for name in ("zstd", "lz4"):
        packed = hostile.zstd_zeros(ALWAYS * 2) if name == "zstd" else hostile.lz4_zeros(2**28 + 2**22)
        with pytest.raises(ReaderError, match=r"said to unpack|unpack to more"):
            decompress(packed, name, 2**30, 0)


@pytest.mark.parametrize("storage", ["mcap", "db3"])
def test_a_message_that_was_compressed_by_itself(tmp_path, storage):
    bomb = hostile.zstd_zeros(3 * GB)
    if storage == "mcap":
        found = look(hostile.mcap(hostile.schema(), hostile.channel(), hostile.message(bomb)), tmp_path)
    else:
        file = hostile.database(tmp_path / "a.db3", f"UPDATE messages SET data = x'{bomb.hex()}'")
        found = bounded(SETUP, "look(argument)", file)
    assert "unpack to more than" in found.said and found.grown_mb < 450, found


def test_a_file_that_was_compressed_as_a_whole(tmp_path, make_bag, monkeypatch):
    folder = make_bag(storage="sqlite3")
    whole = (folder / "bag.db3").read_bytes()
    (folder / "bag.db3").unlink()
    metadata = (folder / "metadata.yaml").read_text()
    assert "compression_mode: ''" in metadata
    metadata = metadata.replace("compression_mode: ''", "compression_mode: file").replace("bag.db3", "bag.db3.zstd")
    (folder / "metadata.yaml").write_text(metadata)
    (folder / "bag.db3.zstd").write_bytes(unpacking.zstd.compress(whole))
    with Bag(folder) as bag:
        assert len(list(bag.messages(("/camera/image",)))) == 4
    monkeypatch.setattr(unpacking, "MAX_FILE", 2**20)
    (folder / "bag.db3.zstd").write_bytes(hostile.zstd_zeros(2**30))
    with pytest.raises(BagError, match="unpacks to more than 6 MiB, 200 times its size"):
        Bag(folder)


COUNT = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT"
VIEW = f"{COUNT} x AS id, 1 AS topic_id, x AS timestamp, x'00' AS data FROM c"
DATABASES = {
    "a view": (["CREATE VIEW messages AS " + VIEW], {"messages": "view"}),
    "a view that says it is a table": (
        [
            "CREATE VIEW messages AS " + VIEW,
            "PRAGMA writable_schema=ON",
            "UPDATE sqlite_master SET type='table', rootpage=2 WHERE name='messages'",
        ],
        {"messages": "view"},
    ),
    "a view of another name": (
        [
            "CREATE VIEW messages AS " + VIEW,
            "PRAGMA writable_schema=ON",
            "UPDATE sqlite_master SET name='x' WHERE name='messages'",
        ],
        {"messages": "view"},
    ),
    "topics that never end": (
        [f"CREATE VIEW topics AS {COUNT} x AS id, 'a' AS name, 'b' AS type, 'cdr' AS serialization_format FROM c"],
        {"topics": "view"},
    ),
    "a virtual table": (["CREATE VIRTUAL TABLE messages USING fts5(topic_id, timestamp, data)"], {"messages": "no"}),
    "a computed column": (
        [
            "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, "
            "data BLOB AS (zeroblob(900000000)))",
            "INSERT INTO messages(topic_id, timestamp) VALUES(1, 5), (1, 6), (1, 7), (1, 8)",
        ],
        {"messages": "no"},
    ),
}


@pytest.mark.parametrize("name", DATABASES)
def test_a_database_that_runs_is_not_read(tmp_path, name):
    statements, given = DATABASES[name]
    file = hostile.database(tmp_path / "a.db3", *statements, **given)
    found = bounded(SETUP, "look(argument)", file)
    assert found.said.startswith("BagError") and found.grown_mb < 200, found
    with pytest.raises(ReaderError):
        SqliteFile(file)


def test_triggers_and_indexes_do_no_harm(tmp_path):
    file = hostile.database(
        tmp_path / "a.db3",
        "CREATE TRIGGER t AFTER INSERT ON messages BEGIN DELETE FROM messages; END",
        "CREATE INDEX i ON messages(timestamp)",
        f"CREATE VIEW other AS {COUNT} x FROM c",
    )
    with Bag(file) as bag:
        assert [m.time_ns for m in bag.messages(("/camera/image",))] == [5]


def test_steps_and_bytes_of_a_database_are_bounded(tmp_path, monkeypatch):
    """Pages that are linked several times give a file more rows and bytes than it holds."""
    file = hostile.database(
        tmp_path / "a.db3",
        f"INSERT INTO messages {COUNT} x + 1, 1, x, x'000100' FROM c LIMIT 20000",
    )
    monkeypatch.setattr(sqlite_file, "FEWEST_STEPS", 200_000)
    monkeypatch.setattr(sqlite_file, "STEPS_PER_BYTE", 0)
    part = SqliteFile(file)
    assert 0 < sum(1 for _ in part.messages()) < 20_001 and part.problem == TOO_MANY_STEPS
    monkeypatch.setattr(sqlite_file, "FEWEST_STEPS", 0)
    monkeypatch.setattr(sqlite_file, "STEPS", 1)
    with pytest.raises(ReaderError, match=TOO_MANY_STEPS):
        SqliteFile(file)
    monkeypatch.undo()
    monkeypatch.setattr(sqlite_file, "ROOM", -2 * file.stat().st_size + 3000)
    part = SqliteFile(file)
    assert sum(1 for _ in part.messages()) == 999 and "larger than the file" in part.problem
    monkeypatch.undo()
    part = SqliteFile(file)
    assert sum(1 for _ in part.messages()) == 20_001 and part.problem == ""


@pytest.mark.parametrize("value", ["NULL", "'text'", "1.5"])
def test_a_row_that_is_no_message_ends_the_file(tmp_path, value):
    file = hostile.database(tmp_path / "a.db3", f"UPDATE messages SET data = {value}")
    with Bag(file) as bag:
        assert list(bag.messages(("/camera/image",))) == []
        assert "row 1 of the table messages holds no message" in bag.notes[0]


METADATA = {
    "aliases": "rosbag2_bagfile_information:\n  a: &a [1]\n  b: *a\n",
    "billions of values": hostile.QOS_BOMB + "rosbag2_bagfile_information: *j\n",
    "merged keys": "a: &a {x: 1}\nb:\n" + "  <<: *a\n" * 10,
    "values without end": "rosbag2_bagfile_information: [" + "1, " * 410_000 + "1]\n",
    "nesting without end": "rosbag2_bagfile_information: " + "[" * 100_000,
    "megabytes": "#" * (9 * 2**20),
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_that_unfolds_does_not_help(make_bag, name):
    folder = make_bag()
    (folder / "metadata.yaml").write_text(METADATA[name])
    found = bounded(SETUP, "look(argument)", folder)
    assert found.said.startswith("(8, ['metadata.yaml does not help") and len(found.said) < 600
    assert found.grown_mb < 700, found


def test_thousands_of_topics_give_a_short_error(tmp_path, capsys):
    channels = b"".join(hostile.channel(f"/topic_{i}", i + 1) for i in range(3000))
    (tmp_path / "a.mcap").write_bytes(hostile.mcap(hostile.schema(), channels))
    with Bag(tmp_path / "a.mcap") as bag:
        assert len(bag.topics) == 3000
    assert main([str(tmp_path / "a.mcap"), "--query", "key"]) == 1
    said = capsys.readouterr().err
    assert "and 2,990 more" in said and len(said) < 1000
    with pytest.raises(BagError, match="and 2,990 more") as caught:
        next(iter(read_bag(tmp_path / "a.mcap", "/other")))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("topics", [["/a" * 10**6], [f"/t{i}" for i in range(10_001)]])
def test_names_and_numbers_of_topics_are_bounded(tmp_path, topics):
    channels = b"".join(hostile.channel(name, i + 1) for i, name in enumerate(topics))
    (tmp_path / "a.mcap").write_bytes(hostile.mcap(hostile.schema(), channels))
    with pytest.raises(BagError, match=r"at most 10,000 topics with names of 1,000") as caught:
        Bag(tmp_path / "a.mcap")
    assert len(str(caught.value)) < 400


def test_control_characters_of_a_bag_do_not_reach_the_terminal(tmp_path, capsys):
    bad = "/a\x1b]0;owned\x07\n[INFO] forged\u202e"
    channels = hostile.channel(bad, 1) + hostile.channel("/b", 2)
    (tmp_path / "a.mcap").write_bytes(hostile.mcap(hostile.schema(), channels))
    assert main([str(tmp_path / "a.mcap"), "--query", "key"]) == 1
    said = capsys.readouterr().err
    assert "several topics could be meant" in said and said.strip().count("\n") == 0
    assert not any(c in said for c in "\x1b\x07\u202e")
