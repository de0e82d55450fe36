"""Collects parts on a Ray cluster: one model in each actor, one actor a GPU; the driver writes what they send.

The workers need the pictures and the model at the same paths as the driver, and nothing else: no shared store.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from acs_core.lvlm.base import LVLM
from training.collect import Job, PartRunner, make_part
from training.errors import DataError
from training.store import Part

Collector = Callable[[int], Part]


@dataclass(frozen=True)
class RayConfig:
    """``address`` of a running cluster, "local" for one of this machine's own. ``actors`` at a time, None: one for
    each GPU of the cluster, or one where there is none. ``gpus`` and ``cpus`` of each actor."""

    address: str = "local"
    actors: int | None = None
    gpus: float | None = None
    cpus: float = 1


def runner(load: Callable[[], LVLM], config: RayConfig) -> PartRunner:
    """What :func:`training.collect.collect` takes as ``run``. ``load`` gives a worker its model; it must be picklable."""

    def run(job: Job, todo: Sequence[int], take: Callable[[int, Part], None]) -> None:
        run_parts(_Maker(load, job), todo, take, config)

    return run


@dataclass(frozen=True)
class _Maker:
    """Makes a worker's collector: loads the model, once for each actor."""

    load: Callable[[], LVLM]
    job: Job

    def __call__(self) -> Collector:
        lvlm = self.load()
        return lambda number: make_part(lvlm, self.job, number)


def run_parts(
    make: Callable[[], Collector], todo: Sequence[int], take: Callable[[int, Part], None], config: RayConfig
) -> None:
    """Has actors work through the part numbers ``todo``; ``take`` gets each part as it arrives, in any order. A part
    whose actor died is done again by another.

    Raises:
        DataError: no cluster at the address, or it lacks the asked resources.
    """
    if not todo:
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    import ray.data

    started = not ray.is_initialized()
    if started:
        _connect(config)
    try:
        there = ray.cluster_resources()
        gpus = config.gpus if config.gpus is not None else float(there.get("GPU", 0) >= 1)
        actors = config.actors or max(1, int(there.get("GPU", 0) // gpus) if gpus else 1)
        if actors * gpus > there.get("GPU", 0) or actors * config.cpus > there.get("CPU", 0):
            raise DataError(
                f"{actors} actors with {gpus:g} GPUs and {config.cpus:g} CPUs each do not fit the cluster's "
                f"{there.get('GPU', 0):g} GPUs and {there.get('CPU', 0):g} CPUs: ask for fewer (--actors)"
            )
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = 0
        # one block a part: what a dead actor held is handed to another as it was
        parts = ray.data.from_items([{"number": n} for n in todo], override_num_blocks=len(todo)).map_batches(
            _Actor,
            fn_constructor_args=(pickle.dumps(make),),
            batch_size=1,
            num_gpus=gpus,
            num_cpus=config.cpus,
            compute=ray.data.ActorPoolStrategy(size=min(actors, len(todo))),
        )
        done: set[int] = set()
        for row in parts.iter_rows():
            number = int(row["number"])
            if number not in done:  # a retried part may arrive twice
                done.add(number)
                take(number, pickle.loads(row["part"]))  # from our own workers
    finally:
        if started:
            ray.shutdown()


def _connect(config: RayConfig) -> None:
    import ray

    try:
        ray.init(
            address=config.address,
            include_dashboard=False if config.address == "local" else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise DataError(f"no Ray cluster at {config.address!r} ({error}): start one, or use --ray alone") from error


class _Actor:
    """Lives in a worker: holds one model and does one part after the other."""

    def __init__(self, make: bytes) -> None:
        self._collect = pickle.loads(make)()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import numpy as np

        numbers = [int(n) for n in batch["number"]]
        packed = np.empty(len(numbers), dtype=object)
        packed[:] = [pickle.dumps(self._collect(n)) for n in numbers]
        return {"number": batch["number"], "part": packed}
