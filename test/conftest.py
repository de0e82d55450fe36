"""For all tests: ROS stays on this machine, camera-sized messages get through, and torch keeps to one thread.

One thread, because small models gain nothing from more, and several processes with as many threads as cores each wait
for one another most of the time.

The variables are set here, before any test imports rclpy; ``make test`` sets the same.

Programs that the tests start hear Ctrl-C, also where a shell runs the tests in its background, which makes them deaf.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from process_parts import fresh_domain

if TYPE_CHECKING:
    from fake_hub import FakeHub

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(ROOT / "config" / "fastdds_profile.xml"))
# The attention kernels run in Triton's interpreter; it reads this when it is first imported.
os.environ.setdefault("TRITON_INTERPRET", "1")
# What commands print is compared as plain text.
for name in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"):
    os.environ.pop(name, None)
signal.signal(signal.SIGINT, signal.default_int_handler)
# Nothing is timed, and a run is like the next; make fuzz looks for what is new.
settings.register_profile("acs", deadline=None, derandomize=True)
settings.load_profile("acs")


def pytest_configure(config: pytest.Config) -> None:
    """Gives the session a DDS domain of its own, also for the processes that tests start without naming one."""
    from acs_ros.client.domains import private_domain

    taken = contextlib.ExitStack()
    os.environ["ROS_DOMAIN_ID"] = str(taken.enter_context(private_domain()))
    config.add_cleanup(taken.close)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """The workers of ``-n auto``: one more than there are cores, because tests of processes and nodes also wait. None
    where PYTEST_XDIST_AUTO_NUM_WORKERS says how many."""
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keeps the collector of garbage off what the collection of the tests makes: over a million objects, which live as
    long as the run. Looking at all of them takes a second, and each node that closes collects garbage."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()  # what is garbage now would stay
        gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Orders the files that workers share (``--dist loadfile --no-loadscope-reorder``): first those with long tests,
    then those with many tests, so that no worker is alone with a long file at the end."""
    if not hasattr(config, "workerinput"):
        return
    count = Counter(item.path for item in items)
    long = {item.path for item in items for mark in ("processes", "long") if item.get_closest_marker(mark)}
    items.sort(key=lambda item: (item.path not in long, -count[item.path]))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Takes back what a command under test did to torch's number of threads: sums would differ in the next test."""
    yield
    if "torch" in sys.modules and sys.modules["torch"].get_num_threads() != 1:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def domain() -> Iterator[int]:
    """A DDS domain on which nobody else is: another one than the session's, and than that of the test before."""
    with fresh_domain() as taken:
        yield taken


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, which the hub's client uses, offline; ``hub_parts.add_to_cache`` fills it."""
    from hub_parts import use_cache

    return use_cache(monkeypatch, tmp_path / "hub")


@pytest.fixture
def hub(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub on this machine (``fake_hub``), which the hub's client talks to, with an empty cache: as HF_ENDPOINT."""
    from fake_hub import running_hub
    from huggingface_hub import constants

    with running_hub() as started:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setattr(constants, "ENDPOINT", started.url)
        template = started.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # a client that keeps the address of its making
        yield started


@pytest.fixture(scope="session")
def repo() -> Path:
    """The top folder of the working tree."""
    return ROOT
