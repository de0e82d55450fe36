"""What an evaluation found, in a few numbers: greedy, ours, and the difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from acs_eval.metrics import Measured
from acs_eval.rows import label
from acs_eval.tables import Assessed


@dataclass(frozen=True)
class Headline:
    """``value`` in large letters, ``title`` above, ``text`` below it; ``kind`` of the method, as in tables."""

    title: str
    value: str
    text: str
    kind: str = ""


def headlines_of(assessed: Assessed) -> list[Headline]:
    """Of each group greedy and the best setting of each of our methods."""
    return [line for measured in assessed.measured for line in _of_group(measured, len(assessed.measured) > 1)]


def _of_group(measured: Measured, several: bool) -> Sequence[Headline]:
    name, single = ("Acc@0.5", True) if measured.outcomes.single else ("F1", False)
    where = f", {measured.group.name}" if several else ""
    lines = []
    for r in measured.highlights:
        scores = measured.scores[r]
        value = scores.accuracy if single else scores.f1
        text = f"{name}{where}; 95 % interval {100 * value.low:.1f} to {100 * value.high:.1f}"
        if single and r != measured.reference and scores.gain and measured.reference is not None:
            p = measured.against(r, measured.reference).mcnemar
            text += f"; {100 * scores.gain.value:+.1f} % on greedy, p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"
        lines.append(Headline(label(scores.run), f"{100 * value.value:.1f} %", text, scores.run.kind))
    return lines
