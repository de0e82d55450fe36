"""Pool of actors on a Ray cluster, through Ray Data, that works on numbered pieces; results arrive in any order.

Every worker imports this module, so it imports nothing heavy.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import pickle
import socket
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from acs_core.arguments import real, set_fields, text, whole
from training.errors import DataError

T = TypeVar("T")
TRIES = 3  # of a piece whose worker dies
SHOWN = 10  # numbers in a message
Worker = Callable[[int], T]


@dataclass(frozen=True)
class RayConfig:
    """Address and resources of a Ray cluster.

    Attributes:
        address: address of a running cluster, or "local" to start one on this machine.
        actors: number of actors at a time; None for one per GPU of the cluster, or one without GPUs.
        gpus: GPUs per actor; None for one if the cluster has any.
        cpus: CPUs per actor.
        timeout_s: seconds after which a worker that is still at the same piece is ended.

    Raises:
        TypeError: a value is of another type.
        ValueError: a value is out of its range.
    """

    address: str = "local"
    actors: int | None = None
    gpus: float | None = None
    cpus: float = 1
    timeout_s: float = 3600

    def __post_init__(self) -> None:
        checked: dict[str, object] = {"address": text("address", self.address), "cpus": real("cpus", self.cpus, 0, 1e4)}
        checked["timeout_s"] = real("timeout_s", self.timeout_s, 0, 1e7, above=True)
        checked["actors"] = None if self.actors is None else whole("actors", self.actors, 1)
        checked["gpus"] = None if self.gpus is None else real("gpus", self.gpus, 0, 1e4)
        set_fields(self, checked)


def run_on_ray(
    make: Callable[[], Worker[T]], todo: Sequence[int], take: Callable[[int, T], None], config: RayConfig
) -> None:
    """Process the numbers ``todo`` in actors. The work of an actor that dies is repeated by another, ``TRIES`` times in
    all; an actor that takes longer than ``config.timeout_s`` for one number is ended.

    Args:
        make: called once in each actor; returns the function from a number to its result. It and the results must be
            picklable.
        todo: numbers to process.
        take: called with each number and its result, once, as it arrives.
        config: address and resources.

    Raises:
        DataError: there is no cluster at the address, it lacks the requested resources, or a piece ended all workers
            that tried it.
    """
    if not todo:
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # for a cluster started here; the default of Ray is 15
    import ray
    import ray.data
    from ray import cloudpickle

    started = not ray.is_initialized()
    if started:
        _connect(config)
    try:
        actors, gpus = _fitting(config, ray.cluster_resources())
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        # one block per number: Ray reassigns the blocks of a dead actor as they are
        numbers = ray.data.from_items([{"number": n} for n in todo], override_num_blocks=len(todo))
        with warnings.catch_warnings():
            # Ray will name this parameter otherwise, but has no other name for it yet.
            warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
            results = numbers.map_batches(
                _Actor,
                fn_constructor_args=(cloudpickle.dumps(make), config.timeout_s),
                batch_size=1,
                num_gpus=gpus,
                num_cpus=config.cpus,
                compute=ray.data.ActorPoolStrategy(size=min(actors, len(todo))),
                max_task_retries=TRIES - 1,
            )
        done: set[int] = set()
        try:
            for row in results.iter_rows():
                number = int(row["number"])
                if number not in done:  # repeated work may arrive twice
                    done.add(number)
                    take(number, pickle.loads(row["result"]))  # pickled by our own workers
        except ray.exceptions.RayActorError as error:
            raise _all_died(sorted(set(todo) - done), config.timeout_s) from error
    finally:
        if started:
            ray.shutdown()


def _all_died(left: Sequence[int], timeout_s: float) -> DataError:
    more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    return DataError(
        f"a piece of work ended its worker {TRIES} times, by a crash, for lack of memory, or after {timeout_s:g} s. It "
        f"is among those that are missing: {', '.join(map(str, left[:SHOWN]))}{more}. What is done is kept; the log of "
        "the workers, in /tmp/ray, may say why"
    )


def _fitting(config: RayConfig, there: dict[str, float]) -> tuple[int, float]:
    """Return the number of actors, and of GPUs per actor.

    Raises:
        DataError: the cluster does not have these resources.
    """
    all_gpus, all_cpus = there.get("GPU", 0.0), there.get("CPU", 0.0)
    gpus = config.gpus if config.gpus is not None else float(all_gpus >= 1)
    actors = config.actors or max(1, int(all_gpus // gpus) if gpus else 1)
    if actors * gpus > all_gpus or actors * config.cpus > all_cpus:
        raise DataError(
            f"{actors} actors with {gpus:g} GPUs and {config.cpus:g} CPUs each do not fit the Ray cluster's "
            f"{all_gpus:g} GPUs and {all_cpus:g} CPUs: ask for fewer (--actors)"
        )
    return actors, gpus


def _connect(config: RayConfig) -> None:
    import ray

    _check_reachable(config.address)
    dashboard = False if config.address == "local" else None
    try:
        ray.init(address=config.address, include_dashboard=dashboard, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_cluster(config.address, error) from error


def _check_reachable(address: str) -> None:
    """Raise DataError if no process answers at host:port; Ray itself would retry for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError as error:
            raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> DataError:
    return DataError(
        f"no Ray cluster at {address!r} ({type(error).__name__}): start one there with `ray start`, or use --ray local"
    )


class _Actor:
    """Actor in a worker: creates its function once, and processes one number after the other."""

    def __init__(self, make: bytes, timeout_s: float) -> None:
        self._work = pickle.loads(make)()
        self._timeout_s = timeout_s

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import numpy as np

        packed = np.empty(len(batch["number"]), dtype=object)
        faulthandler.dump_traceback_later(self._timeout_s, exit=True)  # works also while no Python code runs
        try:
            packed[:] = [pickle.dumps(self._work(int(n))) for n in batch["number"]]
        finally:
            faulthandler.cancel_dump_traceback_later()
        return {"number": batch["number"], "result": packed}
