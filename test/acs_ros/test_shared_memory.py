"""Shared memory of killed processes: what is removed at the start of a node, and what is not."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from acs_ros.shared_memory import FOLDER, LOCK, RemovedSegments, remove_dead_segments

UUID = "0123456789abcdef"
NODE = """
import rclpy
from acs_ros.dds import apply_profile
from rclpy.node import Node
apply_profile()
rclpy.init()
node = Node("short_lived")
print("up", flush=True)
input()
"""


def lay(folder: Path, name: str = f"fastdds_{UUID}", age: float = 3600, size: int = 8192, locked=None) -> None:
    """A segment and its lock file, whose lock is held until ``locked`` is left."""
    (folder / name).write_bytes(b"x" * size)
    lock = folder / f"{name}_el"
    lock.touch()
    then = lock.stat().st_mtime - age
    os.utime(lock, (then, then))
    if locked is not None:
        file = locked.enter_context(lock.open())
        fcntl.flock(file, fcntl.LOCK_EX)


@pytest.mark.parametrize("name", [f"fastdds_{UUID}", f"fastrtps_{UUID}"])  # Fast DDS 3, and 2 with Jazzy
def test_a_segment_whose_lock_nobody_holds_is_removed(tmp_path, name):
    lay(tmp_path, name)
    assert remove_dead_segments(tmp_path) == RemovedSegments(1, 8192)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        f"fastdds_{UUID}0",
        f"fastdds_{UUID[:-1]}",
        f"fastdds_{UUID.upper()}",
        "fastdds_port7411",
        f"fast_datasharing_{UUID}",
        f"my_fastdds_{UUID}",
    ],
)
def test_what_is_not_named_as_a_segment_stays(tmp_path, name):
    lay(tmp_path, name)
    before = sorted(tmp_path.iterdir())
    assert remove_dead_segments(tmp_path) == RemovedSegments()
    assert sorted(tmp_path.iterdir()) == before


def test_what_may_be_alive_or_is_no_plain_file_stays(tmp_path):
    (tmp_path / "precious").write_text("mine")
    with ExitStack() as locked:
        lay(tmp_path, "fastdds_00000000000000aa", locked=locked)
        lay(tmp_path, "fastdds_00000000000000bb", age=5)
        lay(tmp_path, "fastdds_00000000000000cc")
        (tmp_path / "fastdds_00000000000000cc").unlink()
        (tmp_path / "fastdds_00000000000000cc").symlink_to(tmp_path / "precious")
        (tmp_path / "fastdds_00000000000000dd").write_text("no lock file")
        (tmp_path / "fastdds_00000000000000ee_el").symlink_to(tmp_path / "precious")
        os.mkfifo(tmp_path / "fastdds_00000000000000ff_el")
        before = sorted(tmp_path.iterdir())
        assert remove_dead_segments(tmp_path) == RemovedSegments()
        assert sorted(tmp_path.iterdir()) == before and (tmp_path / "precious").read_text() == "mine"
    assert remove_dead_segments(tmp_path).count == 1  # the lock is free now


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's file")
def test_segments_of_another_user_stay(tmp_path):
    lay(tmp_path)
    os.chown(tmp_path / f"fastdds_{UUID}", 65534, -1)
    assert remove_dead_segments(tmp_path) == RemovedSegments()


def test_a_folder_that_is_not_there_is_no_error(tmp_path):
    assert remove_dead_segments(tmp_path / "none") == RemovedSegments()
    assert str(RemovedSegments(1, 10**6)) == "removed a shared-memory segment of a killed process (1.0 MB)"
    assert str(RemovedSegments(2, 10**6)) == "removed 2 shared-memory segments of killed processes (1.0 MB)"


@pytest.mark.processes
@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs /dev/shm")
def test_of_two_real_processes_the_killed_ones_segment_is_removed(domain, monkeypatch, tmp_path):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))

    def start() -> tuple[subprocess.Popen, set[str]]:
        command = [sys.executable, "-c", NODE]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "up\n"
        opened = [at.readlink().name for at in Path(f"/proc/{process.pid}/fd").iterdir() if at.exists()]
        return process, {name for name in opened if LOCK.fullmatch(name)}

    killed, dead = start()
    lives, alive = start()
    try:
        killed.kill()
        killed.wait()
        assert dead and alive and not dead & alive
        for name in dead | alive:  # old, or they would stay for their age
            os.utime(FOLDER / name, (0, 0))
        assert remove_dead_segments().count >= len(dead)
        left = {file.name for file in FOLDER.iterdir()}
        assert not left & (dead | {name.removesuffix("_el") for name in dead})
        assert left >= alive | {name.removesuffix("_el") for name in alive}
    finally:
        for process in (killed, lives):
            process.kill()
            process.communicate()
