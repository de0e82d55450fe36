"""How an embedded model is trained: what its three phases are made of."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast; a step is one optimiser update on ``batch`` pictures. Triples are by phase."""

    steps: tuple[int, int, int]
    rates: tuple[float, float, float] = (2.5e-3, 2e-3, 1e-3)
    warm_up_steps: int = 150  # at the beginning of each phase
    batch: tuple[int, int, int] = (96, 64, 12)
    pictures: tuple[int, int, int] = (24000, 24000, 6000)
    # Fewest and most in a picture. A, whose price is by the picture, learns from crowds.
    objects: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] = ((14, 30), (3, 12), (3, 12))
    questions: tuple[int, int, int] = (0, 8, 8)  # about a picture, at most
    absent_share: tuple[float, float, float] = (0.0, 0.3, 0.5)
    dense_weight: float = 0.3  # of the teacher, beside the language loss of phase B
    guide_weight: float = 0.5  # of the guide, in its steps
    guided_steps: int = 1500  # from the beginning of phase B on
    validation_pictures: int = 120
    validation_cases: int = 256
    checkpoint_every: int = 100
    evaluate_every: int = 1000
    seed: int = 0

    def shortened(self, scale: float) -> TrainConfig:
        """The same run with ``scale`` in (0, 1] of its steps and pictures, for a trial."""

        def few(steps: int) -> int:
            return max(1, round(steps * scale))

        a, b, c = self.steps
        crowded, plain, last = (max(64, few(p)) for p in self.pictures)
        return replace(
            self,
            steps=(few(a), few(b), few(c)),
            warm_up_steps=few(self.warm_up_steps),
            guided_steps=few(self.guided_steps),
            pictures=(crowded, plain, last),
        )
