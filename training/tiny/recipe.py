"""Training settings of the embedded models: phases, one after the other, and what they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from training.settings import GUIDE_WEIGHT
from training.tiny.mistakes import Mistakes
from training.world.scene import WorldConfig, crowded

LEAST_PICTURES = 64  # of a shortened phase
ALL_STEPS = 10**9  # more than any phase has


@dataclass(frozen=True)
class PhaseConfig:
    """Settings of one phase; a step is one optimiser update.

    Attributes:
        name: letter of the phase.
        steps: number of steps.
        rate: learning rate at its peak, after the warm-up.
        batch: images per step.
        pictures: number of training images.
        objects: (minimum, maximum) number of objects per image.
        lookalikes: share of the images in which some objects are look-alikes of another.
        colours: share of the images in which objects of one category differ in colour.
        questions: maximum number of questions per image; 0 trains the vision part alone, with the dense head.
        absent_share: share of the questions about absent objects.
        dense_weight: weight of the dense head's loss relative to the language loss.
        guided_steps: steps, from the first on, in which attention is supervised.
        all_coordinates: whether attention is supervised at the first digit of all coordinates, not only of the first.
        end_to_end: whether the vision part is trained with the answers; otherwise its image tokens are computed once.
        coordinate_temperature: what the logits of y1, x2 and y2 are divided by in the loss, above 0. Above 1, these
            coordinates are sampled closer to the most likely ones than they are spread in the training data.
        mistakes: wrong answers to teach; None for none.
        new_optimiser: whether the phase starts with a new optimiser.
        warm_up_steps: steps in which the learning rate rises; None for those of the run.
    """

    name: str
    steps: int
    rate: float
    batch: int
    pictures: int
    objects: tuple[int, int] = (3, 12)
    lookalikes: float = WorldConfig.lookalike_share
    colours: float = WorldConfig.colour_share
    questions: int = 8
    absent_share: float = 0.0
    dense_weight: float = 0.0
    guided_steps: int = 0
    all_coordinates: bool = False
    end_to_end: bool = False
    coordinate_temperature: float = 1.0
    mistakes: Mistakes | None = None
    new_optimiser: bool = False
    warm_up_steps: int | None = None


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run: its phases, and what they share."""

    phases: tuple[PhaseConfig, ...]
    warm_up_steps: int = 150  # at the beginning of each phase that names no other number
    guide_weight: float = GUIDE_WEIGHT  # in the steps that are guided
    validation_pictures: int = 120
    validation_cases: int = 256
    checkpoint_every: int = 100
    evaluate_every: int = 1000
    seed: int = 0

    @property
    def steps(self) -> int:
        """Number of steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def starting_at(self, name: str) -> TrainConfig:
        """Return the settings without the phases before ``name``.

        Raises:
            ValueError: there is no such phase; the message lists them.
        """
        names = [phase.name for phase in self.phases]
        if name not in names:
            raise ValueError(f"there is no phase {name!r}: choose one of {', '.join(names)}")
        return replace(self, phases=self.phases[names.index(name) :])

    def with_steps(self, steps: Mapping[str, int]) -> TrainConfig:
        """Return the settings with other numbers of steps for the phases named by ``steps``.

        Raises:
            ValueError: there is no such phase, or no phase has a step.
        """
        names = [phase.name for phase in self.phases]
        for name in steps:
            if name not in names:
                raise ValueError(f"there is no phase {name!r}: choose one of {', '.join(names)}")
        phases = tuple(replace(phase, steps=steps.get(phase.name, phase.steps)) for phase in self.phases)
        if not any(phase.steps for phase in phases):
            raise ValueError(f"the phases {', '.join(names)} have no steps: give some, such as {names[-1]}=400")
        return replace(self, phases=phases)

    def shortened(self, scale: float) -> TrainConfig:
        """Return the settings with ``scale`` in (0, 1] of the steps and images, for a trial run."""

        def few(steps: int) -> int:
            return max(1, round(steps * scale)) if steps else 0

        phases = [
            replace(
                phase,
                steps=few(phase.steps),
                guided_steps=few(phase.guided_steps),
                pictures=max(LEAST_PICTURES, few(phase.pictures)),
                warm_up_steps=phase.warm_up_steps and few(phase.warm_up_steps),
            )
            for phase in self.phases
        ]
        return replace(self, phases=tuple(phases), warm_up_steps=few(self.warm_up_steps))


def standard_phases(steps: Sequence[int]) -> tuple[PhaseConfig, ...]:
    """Return the phases A to E (:mod:`training.tiny.train`) with these numbers of steps, (5,)."""
    a, b, c, d, e = steps
    crowds = crowded(WorldConfig())
    exact = PhaseConfig(
        "D",
        d,
        1e-3,
        batch=12,
        pictures=24000,
        objects=(crowds.min_objects, crowds.max_objects),
        lookalikes=crowds.lookalike_share,
        colours=crowds.colour_share,
        questions=12,
        absent_share=0.5,  # with 0.2, refusals are forgotten
        dense_weight=0.3,
        guided_steps=ALL_STEPS,
        all_coordinates=True,
        end_to_end=True,
        # With 1, many samples of a right object miss it by pixels, and only the mean of several is exact.
        coordinate_temperature=2.0,
        new_optimiser=True,
        warm_up_steps=40,
    )
    # The cost of A depends on the number of images alone, so its images are crowded.
    return (
        PhaseConfig("A", a, 2.5e-3, batch=96, pictures=24000, objects=(14, 30), questions=0),
        PhaseConfig("B", b, 2e-3, batch=64, pictures=24000, absent_share=0.3, dense_weight=0.3, guided_steps=1500),
        PhaseConfig("C", c, 1e-3, batch=12, pictures=6000, absent_share=0.5, new_optimiser=True),
        exact,
        replace(exact, name="E", steps=e, rate=8e-4, mistakes=Mistakes(0.4, 0.24, 0.08, background=0.7)),
    )
