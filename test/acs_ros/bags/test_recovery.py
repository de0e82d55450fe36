from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.errors import ReaderError

from acs_ros.bags.recovery import ZSTD_MAGIC, RecoveredMcap, unpacked, whole_part
from acs_ros.bags.sqlite_file import SqliteFile

SALVAGED = {"mcap": RecoveredMcap, "sqlite3": SqliteFile}
SUFFIX = {"mcap": ".mcap", "sqlite3": ".db3"}


@pytest.fixture(params=["mcap", "sqlite3"])
def storage(request) -> str:
    return request.param


@pytest.fixture
def content(make_bag, frames, storage) -> bytes:
    return (make_bag(frames=frames(8, noise=True), storage=storage) / f"bag{SUFFIX[storage]}").read_bytes()


def read(storage: str, file: Path) -> tuple[list[tuple[str, int]], str]:
    part = SALVAGED[storage](file)
    try:
        return [(m.topic, m.time_ns) for m in part.messages()], part.problem
    finally:
        part.close()


def test_a_whole_file_is_read_to_its_end(tmp_path, storage, content):
    file = tmp_path / "file"
    file.write_bytes(content)
    found, problem = read(storage, file)
    assert len(found) == 16 and not problem


@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
def test_what_comes_before_the_cut_is_read(tmp_path, storage, content, share):
    file = tmp_path / f"cut{SUFFIX[storage]}"
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ReaderError):  # or nothing would have to be salvaged
        Reader(file).open()
    found, problem = read(storage, file)
    assert problem
    # Chunks of an mcap file hold about three of these frames, of which a cut one is lost.
    assert 16 * share - 7 <= len(found) <= 16 * share + 1
    whole = tmp_path / "whole"
    whole.write_bytes(content)
    assert found == read(storage, whole)[0][: len(found)]


def test_a_damaged_chunk_ends_the_file_before_it(tmp_path, make_bag, frames):
    content = bytearray((make_bag(frames=frames(8, noise=True)) / "bag.mcap").read_bytes())
    place = content.rfind(ZSTD_MAGIC)  # the beginning of the last chunk
    content[place] ^= 0xFF
    file = tmp_path / "flipped"
    file.write_bytes(content)
    with file.open("rb") as opened:
        length, problem = whole_part(opened)
    assert 0 < length < place and "chunk cannot be unpacked" in problem
    found, _ = read("mcap", file)
    assert 0 < len(found) < 16


@pytest.mark.parametrize("size", [0, 5, 9])
def test_too_little_is_no_file(tmp_path, storage, content, size):
    (tmp_path / "x").write_bytes(content[:size])
    with pytest.raises(ReaderError):
        SALVAGED[storage](tmp_path / "x")


def test_another_sqlite_file_is_no_bag(tmp_path):
    with sqlite3.connect(tmp_path / "x") as database:
        database.execute("CREATE TABLE songs(name TEXT)")
    with pytest.raises(ReaderError, match="topics"):
        SqliteFile(tmp_path / "x")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1))
def test_wherever_an_mcap_file_is_cut_a_beginning_of_it_is_read(tmp_path, make_bag, cut):
    folder = tmp_path / "bag" if (tmp_path / "bag").exists() else make_bag()
    content = (folder / "bag.mcap").read_bytes()
    (tmp_path / "cut").write_bytes(content[: int(cut * len(content))])
    try:
        found, _ = read("mcap", tmp_path / "cut")
    except ReaderError:
        found = []
    (tmp_path / "whole").write_bytes(content)
    assert found == read("mcap", tmp_path / "whole")[0][: len(found)]


def test_messages_that_were_compressed_by_themselves_are_unpacked():
    # One raw block of five bytes in a frame of that size.
    packed = bytes.fromhex("28b52ffd 20 05 290000 0001000068")
    plain = bytes.fromhex("0001000068")
    assert unpacked(packed) == unpacked(plain) == plain
