"""Goals of the benchmarks: bounds of ratios between measurements of one run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Goal:
    """A bound of a measured ratio.

    Attributes:
        ratio: name of the ratio.
        bound: the bound.
        at_least: whether the ratio is to be at least the bound; else at most.
        value: the ratio; None if it was not measured.
        where: shape and frame of the measurement; empty if there is only one.
    """

    ratio: str
    bound: float
    at_least: bool
    value: float | None = None
    where: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None if the ratio was not measured."""
        if self.value is None:
            return None
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def describe(self) -> tuple[str, str, str, str]:
        """Return the cells of a table: ratio, goal, measured value, verdict."""
        name = f"{self.ratio}, {self.where}" if self.where else self.ratio
        verdict = {True: "met", False: "not met", None: "not measured"}[self.met]
        wanted = f"{'at least' if self.at_least else 'at most'} {self.bound:g}"
        return name, wanted, "-" if self.value is None else f"{self.value:.3g}", verdict

    def to_dict(self) -> dict[str, Any]:
        """Return the goal as JSON values."""
        return {**vars(self), "met": self.met}


FULL = "time a / e"
SDPA = "time e / b"
ONCE = "time f / e"
ALONE = "time e / h, N = 1"
# On a CPU, shape small, N = 10, an image of 576 tokens, one thread.
CPU_GOALS = (Goal(FULL, 14.0, True), Goal(SDPA, 0.2, False), Goal(ONCE, 2.0, True), Goal(ALONE, 1.0, False))

STEP, SAMPLES, SHARE = "decode step / reading the weights", "N samples / one", "attention and selection / call"
TOGETHER = "four phrases in one call / in four calls"
# On a GPU, by kind of part of acs_core.bench.gpu_check.
GPU_GOALS: Mapping[str, tuple[Goal, ...]] = MappingProxyType(
    {
        "limits": (Goal(STEP, 1.2, False), Goal(SAMPLES, 1.2, False), Goal(SHARE, 0.03, False)),
        "phrases": (Goal(TOGETHER, 0.5, False),),
    }
)


def with_values(goals: Iterable[Goal], values: Mapping[str, Any], where: str = "") -> tuple[Goal, ...]:
    """Return ``goals`` with the measured ``values`` of their ratios, by name."""
    return tuple(Goal(g.ratio, g.bound, g.at_least, values.get(g.ratio), where) for g in goals)
