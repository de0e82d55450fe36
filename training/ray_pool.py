"""Numbered pieces of work on a Ray cluster, through Ray Data: an actor for each GPU, results in any order.

Nothing heavy is imported here: every worker imports this module.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from training.errors import DataError

T = TypeVar("T")
Worker = Callable[[int], T]


@dataclass(frozen=True)
class RayConfig:
    """``address`` of a running cluster, "local" for one of this machine's own. ``actors`` at a time, None: one for
    each GPU of the cluster, or one where there is none. ``gpus`` and ``cpus`` of each actor (``gpus`` None: one where
    the cluster has any)."""

    address: str = "local"
    actors: int | None = None
    gpus: float | None = None
    cpus: float = 1


def run_on_ray(
    make: Callable[[], Worker[T]], todo: Sequence[int], take: Callable[[int, T], None], config: RayConfig
) -> None:
    """Has actors work through the numbers ``todo``; ``take`` gets each result once, as it arrives. What a dead actor
    had not finished is done again by another.

    ``make`` is called once in each actor, and gives what does the work. It and the results must be picklable.

    Raises:
        DataError: no cluster at the address, or it lacks the asked resources.
    """
    if not todo:
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # of a cluster that is started here; Ray's own is 15
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
        # one block a number: what a dead actor held is handed to another as it was
        numbers = ray.data.from_items([{"number": n} for n in todo], override_num_blocks=len(todo))
        results = numbers.map_batches(
            _Actor,
            fn_constructor_args=(cloudpickle.dumps(make),),
            batch_size=1,
            num_gpus=gpus,
            num_cpus=config.cpus,
            compute=ray.data.ActorPoolStrategy(size=min(actors, len(todo))),
        )
        done: set[int] = set()
        for row in results.iter_rows():
            number = int(row["number"])
            if number not in done:  # what is done again may arrive twice
                done.add(number)
                take(number, pickle.loads(row["result"]))  # from our own workers
    finally:
        if started:
            ray.shutdown()


def _fitting(config: RayConfig, there: dict[str, float]) -> tuple[int, float]:
    """How many actors, and GPUs for each.

    Raises:
        DataError: the cluster does not have them.
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
    """Raises DataError where nobody answers at host:port; Ray itself would try for minutes."""
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
    """Lives in a worker: makes its tool once, and does one number after the other."""

    def __init__(self, make: bytes) -> None:
        self._work = pickle.loads(make)()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import numpy as np

        packed = np.empty(len(batch["number"]), dtype=object)
        packed[:] = [pickle.dumps(self._work(int(n))) for n in batch["number"]]
        return {"number": batch["number"], "result": packed}
