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
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from acs_core.arguments import real, set_fields, text, whole
from training.errors import DataError

T = TypeVar("T")
Worker = Callable[[int], T]


@dataclass(frozen=True)
class RayConfig:
    """Address and resources of a Ray cluster.

    Attributes:
        address: address of a running cluster, or "local" to start one on this machine.
        actors: number of actors at a time; None for one per GPU of the cluster, or one without GPUs.
        gpus: GPUs per actor; None for one if the cluster has any.
        cpus: CPUs per actor.
        retries: how often a piece is begun again whose worker died or took too long.
        timeout: seconds after which the worker of a piece is ended; None for no limit.

    Raises:
        TypeError: a value is of another type.
        ValueError: a value is out of its range.
    """

    address: str = "local"
    actors: int | None = None
    gpus: float | None = None
    cpus: float = 1
    retries: int = 3
    timeout: float | None = 3600

    def __post_init__(self) -> None:
        checked: dict[str, object] = {"address": text("address", self.address), "cpus": real("cpus", self.cpus, 0, 1e4)}
        checked["actors"] = None if self.actors is None else whole("actors", self.actors, 1)
        checked["gpus"] = None if self.gpus is None else real("gpus", self.gpus, 0, 1e4)
        checked["retries"] = whole("retries", self.retries, 0, 1000)
        checked["timeout"] = None if self.timeout is None else real("timeout", self.timeout, 0, 1e7, above=True)
        set_fields(self, checked)


def run_on_ray(
    make: Callable[[], Worker[T]], todo: Sequence[int], take: Callable[[int, T], None], config: RayConfig
) -> None:
    """Process the numbers ``todo`` in actors. The work of an actor that dies, or takes longer than ``config.timeout``,
    is repeated by another, at most ``config.retries`` times; then it is given up, and the other numbers go on. So they
    do after an exception, which is not repeated.

    Args:
        make: called once in each actor; returns the function from a number to its result. It and the results must be
            picklable.
        todo: numbers to process.
        take: called with each number and its result, once, as it arrives.
        config: address and resources.

    Raises:
        DataError: there is no cluster at the address, it lacks the requested resources, or numbers failed or were given
            up; all others have been taken then.
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
        context.max_errored_blocks = len(todo)  # a piece that is given up does not end the others
        # one block per number: Ray reassigns the blocks of a dead actor as they are
        numbers = ray.data.from_items([{"number": n} for n in todo], override_num_blocks=len(todo))
        with warnings.catch_warnings():
            # Ray will name this parameter otherwise, but has no other name for it yet.
            warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
            results = numbers.map_batches(
                _Actor,
                fn_constructor_args=(cloudpickle.dumps(make), config.timeout),
                batch_size=1,
                num_gpus=gpus,
                num_cpus=config.cpus,
                # One task at a time: a second one would die with the first, and its tries would be used up.
                compute=ray.data.ActorPoolStrategy(size=min(actors, len(todo)), max_tasks_in_flight_per_actor=1),
                max_restarts=-1,
                max_task_retries=config.retries,
            )
        done: set[int] = set()
        failed: dict[int, str] = {}
        for row in results.iter_rows():
            number = int(row["number"])
            if number not in done:  # repeated work may arrive twice
                done.add(number)
                result, problem = pickle.loads(row["result"])  # pickled by our own workers
                if problem:
                    failed[number] = problem
                else:
                    take(number, result)
        lost = [number for number in todo if number not in done]
        if lost or failed:
            raise DataError(_told(lost, failed, len(todo), config))
    finally:
        if started:
            ray.shutdown()


def _told(lost: Sequence[int], failed: Mapping[int, str], count: int, config: RayConfig) -> str:
    """Return the message about the numbers whose workers died, and about those with an exception, of ``count``."""
    said = []
    if failed:
        first = next(iter(failed.values()))
        said.append(f"{len(failed)} of {count} parts ({_some(failed)}) failed, the first with {first}")
    if lost:
        limit = "" if config.timeout is None else f" or took longer than {config.timeout:g} s"
        tries = f"{config.retries + 1} times each: look at their memory"
        said.append(f"the workers of {len(lost)} of {count} parts ({_some(lost)}) died{limit}, {tries}")
    return "; ".join(said) + ". The other parts are complete; run the command again to try these"


def _some(numbers: Collection[int]) -> str:
    return ", ".join(map(str, [*numbers][:10])) + (", ..." if len(numbers) > 10 else "")


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

    def __init__(self, make: bytes, timeout: float | None) -> None:
        self._work = pickle.loads(make)()
        self._timeout = timeout

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import numpy as np

        packed = np.empty(len(batch["number"]), dtype=object)
        if self._timeout is not None:  # ends the worker even while a call of a library does not return
            faulthandler.dump_traceback_later(self._timeout, exit=True)
        try:
            packed[:] = [pickle.dumps(self._tried(int(n))) for n in batch["number"]]
        finally:
            faulthandler.cancel_dump_traceback_later()
        return {"number": batch["number"], "result": packed}

    def _tried(self, number: int) -> tuple[Any, str]:
        """Return the result for a number, and what went wrong instead, or "". Ray would hide an exception."""
        try:
            return self._work(number), ""
        except Exception as error:
            return None, f"{type(error).__name__}: {error}"
