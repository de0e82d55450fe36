"""Gates of an embedded model: whether it errs as large models do, so that selection can be studied on it.

Large models box the wrong object more often than they miss the right one by pixels. A model whose errors are of the
second kind is no test of selectors: the mean of the boxes is then better than any choice among them.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.tiny.report import TinyReport


@dataclass(frozen=True)
class Gate:
    """A condition on a measured value: ``low`` <= value <= ``high``, in the unit that ``name`` states."""

    name: str
    value: float
    low: float
    high: float

    @property
    def passed(self) -> bool:
        """Whether the value is within its bounds."""
        return self.low <= self.value <= self.high

    def __str__(self) -> str:
        wanted = f"{self.low:g} to {self.high:g}"
        if self.low == -INFINITE:
            wanted = f"at most {self.high:g}"
        elif self.high == INFINITE:
            wanted = f"at least {self.low:g}"
        return f"{'passed' if self.passed else 'missed'}: {self.name} {self.value:.1f} (wanted: {wanted})"


INFINITE = float("inf")


def gates_of(report: TinyReport) -> tuple[Gate, ...]:
    """Return the gates of a report: accuracy of greedy decoding, errors of the samples, and refusals."""
    (greedy,) = (row.accuracy for row in report.rows if row.method == "greedy")
    regime = report.regime
    return (
        Gate("greedy, Acc@0.5 %", greedy, 45.0, 70.0),
        Gate("mean box against first-valid, points", regime.mean_box, -INFINITE, -5.0),
        Gate("questions with samples on and off the object, %", regime.split, 20.0, INFINITE),
        Gate("gain of a perfect choice of the object, points", regime.object_gain, 8.0, INFINITE),
        Gate("absent objects refused, %", report.refused, 80.0, INFINITE),
    )
