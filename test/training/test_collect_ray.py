"""Parts on a local Ray cluster. The worker here makes parts out of nothing: what is tested is who makes them."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from ray_parts import MakeParts

from training.errors import DataError

pytest.importorskip("ray", reason="ray is not installed")

from training.collect_ray import RayConfig, run_parts


def kill_one_that_works(folder, killed):
    for _ in range(600):
        begun = sorted(folder.glob("begun-*"))
        if len(begun) >= 3:
            pid = int(begun[-1].name.split("-")[2])
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            return
        time.sleep(0.05)


def test_parts_of_a_killed_worker_are_made_again_and_none_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where workers find ray_parts
    got, killed = [], []
    killer = threading.Thread(target=kill_one_that_works, args=(tmp_path, killed))
    killer.start()
    run_parts(MakeParts(str(tmp_path)), range(12), lambda n, part: got.append((n, part)), RayConfig(actors=2, cpus=0.1))
    killer.join()
    assert killed, "the test did not get to kill a worker"
    assert sorted(n for n, _ in got) == list(range(12))
    assert all(part.pairs == (n,) and part.answers == ({"of": n},) for n, part in got)
    workers = {int(f.name.split("-")[1]) for f in tmp_path.glob("worker-*")}
    assert killed[0] in workers and len(workers) >= 3, "another one takes the dead one's place"
    assert len(list(tmp_path.glob("begun-*"))) > 12, "what the dead one had begun was begun again"


def test_no_cluster_is_said():
    with pytest.raises(DataError, match=r"no Ray cluster at '127\.0\.0\.1:1'"):
        run_parts(MakeParts("."), [0], lambda n, part: None, RayConfig(address="127.0.0.1:1"))


def test_nothing_to_do_starts_nothing():
    run_parts(MakeParts("."), [], lambda n, part: None, RayConfig(address="127.0.0.1:1"))
