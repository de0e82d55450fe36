"""A local Ray cluster of two workers. The work is light: what is tested is that all of it is done, once."""

from pathlib import Path

import pytest
from ray_parts import Poisoned, Squares

from training.collection import ray_pool
from training.collection.ray_pool import RayConfig, run_on_ray
from training.errors import DataError

ray = pytest.importorskip("ray", reason="ray is not installed")


def test_what_a_killed_worker_had_is_done_again_and_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "helpers"))  # where workers find ray_parts
    got = []
    run_on_ray(Squares(tmp_path), range(12), lambda n, square: got.append((n, square)), RayConfig(actors=2, cpus=0.1))
    assert sorted(got) == [(n, n * n) for n in range(12)]
    killed, begun = (tmp_path / "killed").read_text(), {f.name.split("-")[2] for f in tmp_path.glob("begun-3-*")}
    assert killed in begun and len(begun) > 1, "another one takes the dead one's place, and begins it again"


def test_a_piece_that_kills_its_workers_is_given_up_and_the_others_are_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "helpers"))
    got = []
    config = RayConfig(actors=2, cpus=0.1, retries=1, timeout=10)
    with pytest.raises(DataError, match=r"2 of 6 parts \(2, 4\) died or took longer than 10 s, 2 times each") as told:
        run_on_ray(Poisoned(tmp_path), range(6), lambda n, square: got.append(n), config)
    assert "1 of 6 parts (5) failed, the first with OSError: no room" in str(told.value)
    assert sorted(got) == [0, 1, 3]
    assert [len(list(tmp_path.glob(f"begun-{n}-*"))) for n in (2, 4)] == [2, 2]


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
