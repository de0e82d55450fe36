"""Detection of the processes that Lightning starts for further GPUs, each of which runs the whole command again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

STARTED_BY = "ACS_TRAIN_STARTED_BY"  # id of the process that starts the others, which inherit the variable
# Variables that make Lightning assume a launcher. Batch systems and shells may leave them in the environment.
LAUNCHERS = ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE")


def is_further_process() -> bool:
    """Whether Lightning started this process, in which case the first process writes the results.

    ``LOCAL_RANK`` alone is not enough: the environment may contain it for other reasons.
    """
    return os.environ.get(STARTED_BY) == str(os.getppid()) and os.environ.get("LOCAL_RANK", "0") != "0"


@contextmanager
def first_process() -> Iterator[None]:
    """Mark the processes that Lightning starts in this block, and hide other launchers' variables from it.

    The environment is restored afterwards. In a process that Lightning started, nothing is changed.
    """
    if is_further_process():
        yield
        return
    before = {name: os.environ.get(name) for name in (STARTED_BY, *LAUNCHERS)}
    for name in LAUNCHERS:
        os.environ.pop(name, None)
    os.environ[STARTED_BY] = str(os.getpid())
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def leave_group() -> None:
    """Leave the group of processes of a training that has ended, in which the others do not take part any more."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
