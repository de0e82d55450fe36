"""A local Ray cluster of two workers. The work is light: what is tested is that all of it is done, once."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from ray_parts import Squares

from training import ray_pool
from training.errors import DataError
from training.ray_pool import RayConfig, run_on_ray

ray = pytest.importorskip("ray", reason="ray is not installed")


def kill_one_that_works(folder, killed):
    for _ in range(1200):
        begun = sorted(folder.glob("begun-*"), key=lambda f: int(f.name.split("-")[3]))
        if len(begun) >= 3:
            pid = int(begun[-1].name.split("-")[2])
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            return
        time.sleep(0.05)


def test_what_a_killed_worker_had_is_done_again_and_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where workers find ray_parts
    got, killed = [], []
    killer = threading.Thread(target=kill_one_that_works, args=(tmp_path, killed))
    killer.start()
    run_on_ray(Squares(tmp_path), range(12), lambda n, square: got.append((n, square)), RayConfig(actors=2, cpus=0.1))
    killer.join()
    assert killed, "the test did not get to kill a worker"
    assert sorted(got) == [(n, n * n) for n in range(12)]
    workers = {int(f.name.split("-")[1]) for f in tmp_path.glob("worker-*")}
    assert killed[0] in workers and len(workers) >= 3, "another one takes the dead one's place"
    assert len(list(tmp_path.glob("begun-*"))) > 12, "what the dead one had begun was begun again"


def test_no_cluster_is_said():
    with pytest.raises(DataError, match="no Ray cluster at"):
        run_on_ray(Squares("."), [0], lambda n, square: None, RayConfig(address="127.0.0.1:1"))


def test_nothing_to_do_starts_nothing(tmp_path, monkeypatch):
    class Started(Exception):
        pass

    def connect(config):
        raise Started

    monkeypatch.setattr(ray_pool, "_connect", connect)
    taken = []
    run_on_ray(Squares(tmp_path), [], lambda n, square: taken.append(n), RayConfig())
    assert not ray.is_initialized() and not taken and not list(tmp_path.iterdir())
    with pytest.raises(Started):  # which is where the next one would start a cluster
        run_on_ray(Squares(tmp_path), [0], lambda n, square: taken.append(n), RayConfig())
