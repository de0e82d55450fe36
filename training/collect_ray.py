"""Collects parts on a Ray cluster: one model in each actor, one actor a GPU; the driver writes what they send.

The workers need the pictures and the model at the same paths as the driver, and nothing else: no shared store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from acs_core.lvlm.base import LVLM
from training.collect import PartRunner
from training.collect_job import Job
from training.collect_part import make_part
from training.ray_pool import RayConfig, run_on_ray
from training.store import Part


def runner(load: Callable[[], LVLM], config: RayConfig) -> PartRunner:
    """What :func:`training.collect.collect` takes as ``run``. ``load`` gives a worker its model and can be pickled."""

    def run(job: Job, todo: Sequence[int], take: Callable[[int, Part], None]) -> None:
        run_on_ray(_Maker(load, job), todo, take, config)

    return run


@dataclass(frozen=True)
class _Maker:
    """Makes a worker's collector: loads the model, once for each actor."""

    load: Callable[[], LVLM]
    job: Job

    def __call__(self) -> Callable[[int], Part]:
        lvlm = self.load()
        return lambda number: make_part(lvlm, self.job, number)
