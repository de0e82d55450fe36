"""The settings of the stages: collect, fit, analyse, build, evaluate. Their defaults stand here alone.

Nothing is imported here that takes time: the commands show these defaults in ``--help``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

from acs_core.arguments import MAX_NUMPY_SEED, described, flag, instance, items, one_of, real, set_fields, whole
from acs_core.types import MAX_SAMPLES, MAX_TEMPERATURE, MIN_TEMPERATURE, SamplingConfig

if TYPE_CHECKING:
    from acs_core.attention import Step
    from training.data.pairs import Objects

MAX_FIRST_SEED = 2**62
MAX_MAP_SIDE = 4096  # cells
SIZES: dict[str, tuple[str, Objects]] = {  # the groups: size and number of the objects
    "small": ("small", "single"),
    "several small": ("small", "several"),
    "medium": ("medium", "single"),
    "large": ("large", "single"),
    "small or absent": ("small", "single"),
}
HALF_ABSENT = "small or absent"  # group of which every second question is about an absent object
MAX_RUNS = 64  # temperatures, or numbers of samples, of one evaluation
PAPER = {"small": 2225, "several small": 759, "medium": 0, "large": 2225, HALF_ABSENT: 0}  # section 5.1 and 5.5
GUIDE_WEIGHT = 0.5  # of the loss that supervises attention while an embedded model is trained
RUN_FILE = ".run.yaml"  # suffix of run files, after the name of the command or of the result
CURVE = (1, 3, 5, 10, 15, 20, 30)  # numbers of samples in tables 4 and 5
ABLATION_HEADS = (1, 3, 5, 10)  # heads per coordinate that `acs-train ablate` compares


@dataclass(frozen=True)
class CollectConfig:
    """Settings of a collection.

    ``map_size`` (h, w): the maps' size in the store, the regressor's input (None: that of the
    model's family, :attr:`acs_core.lvlm.base.Family.map_size`, else the model's own grid).
    ``greedy`` collects the one greedy answer instead of samples, as the baseline of an evaluation. ``step``: whether
    the attention is that of the position which emits a coordinate's first token or of the one which reads it.
    The ranges are those of :class:`acs_core.types.SamplingConfig`; ``seed`` at most 2^62, as pair i adds i to it.

    Raises:
        TypeError: a value is of another type.
        ValueError: a value is out of its range.
    """

    samples: int = SamplingConfig.num_samples
    temperature: float = 1.0
    top_p: float = SamplingConfig.top_p
    top_k: int = SamplingConfig.top_k
    max_new_tokens: int = SamplingConfig.max_new_tokens
    seed: int = 0
    map_size: tuple[int, int] | None = None
    greedy: bool = False
    step: Step = "emitting"

    def __post_init__(self) -> None:
        checked = SamplingConfig(self.samples, self.temperature, self.top_p, self.top_k, self.max_new_tokens)
        set_fields(
            self,
            {
                "samples": checked.num_samples,
                "temperature": checked.temperature,
                "top_p": checked.top_p,
                "top_k": checked.top_k,
                "max_new_tokens": checked.max_new_tokens,
                "seed": whole("seed", self.seed, 0, MAX_FIRST_SEED),
                "map_size": size_of_maps(self.map_size),
                "greedy": flag("greedy", self.greedy),
                "step": one_of("step", self.step, _steps()),
            },
        )


def size_of_maps(size: object) -> tuple[int, int] | None:
    """``size``, the argument ``map_size``, as (h, w) of 1 to 4096 cells each, or None. Raises TypeError, ValueError."""
    if size is None:
        return None
    sides = items("map_size", size, 2, "numbers of cells")
    if len(sides) != 2:
        raise ValueError(f"map_size must be (h, w), got {described(size)}")
    h, w = (whole(f"map_size[{i}]", side, 1, MAX_MAP_SIDE) for i, side in enumerate(sides))
    return h, w


@dataclass(frozen=True)
class FitConfig:
    """Settings of the regressor's fit, those of appendix A.2.

    ``validation_share`` is ours: the share of images, not of candidates, that are held out.
    ``input_transform`` as in :class:`acs_core.selection.regressor.AttentionIoURegressor`. ``dropout`` in [0, 1),
    ``seed`` from 0 to 2^32 - 1.

    Raises:
        TypeError: a value is of another type.
        ValueError: a value is out of its range.
    """

    learning_rate: float = 3e-4
    weight_decay: float = 1e-4
    batch: int = 64
    epochs: int = 100
    patience: int = 15
    min_improvement: float = 0.001
    dropout: float = 0.3
    validation_share: float = 0.2
    input_transform: str = "log_cells"
    seed: int = 0

    def __post_init__(self) -> None:
        counts = {name: whole(name, getattr(self, name), 1) for name in ("batch", "epochs", "patience")}
        shares = {name: real(name, getattr(self, name), 0, 1) for name in ("weight_decay", "min_improvement")}
        set_fields(
            self,
            {
                **counts,
                **shares,
                "learning_rate": real("learning_rate", self.learning_rate, 0, 10, above=True),
                "dropout": real("dropout", self.dropout, 0, 0.999),
                "validation_share": real("validation_share", self.validation_share, 0, 1, above=True),
                "input_transform": one_of("input_transform", self.input_transform, _input_transforms()),
                "seed": whole("seed", self.seed, 0, MAX_NUMPY_SEED),
            },
        )


@dataclass(frozen=True)
class AnalysisConfig:
    """Settings of the choice of layers and heads.

    ``heads`` per coordinate (n of section 4.4); IoU groups of section 4.3 (high: above; low: above 0 up to);
    ``layers`` is how many localization-critical layers are kept (None: a third of all, rounded up);
    ``restrict`` keeps the heads within them. ``draws`` bootstrap samples of the images are drawn with ``seed``.

    Raises:
        TypeError: a value is of another type.
        ValueError: a value is out of its range.
    """

    heads: int = 3
    high_iou: float = 0.7
    low_iou: float = 0.3
    layers: int | None = None
    restrict: bool = True
    min_group: int = 20
    draws: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        checked = {name: whole(name, getattr(self, name), 1) for name in ("heads", "min_group", "draws")}
        layers = None if self.layers is None else whole("layers", self.layers, 1)
        ious = {name: real(name, getattr(self, name), 0, 1) for name in ("high_iou", "low_iou")}
        seed = whole("seed", self.seed, 0, MAX_NUMPY_SEED)
        set_fields(
            self, {**checked, **ious, "layers": layers, "restrict": flag("restrict", self.restrict), "seed": seed}
        )


@dataclass(frozen=True)
class BuildConfig:
    """Settings of ``acs-train build``.

    ``collect`` is for the training pairs (tau = 1.0, appendix A); the calibration pairs are sampled as at run
    time, with ``run_temperature``."""

    collect: CollectConfig = field(default_factory=CollectConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    analysis: AnalysisConfig = field(default_factory=AnalysisConfig)
    run_temperature: float = SamplingConfig.temperature

    def __post_init__(self) -> None:
        for name, kind in (("collect", CollectConfig), ("fit", FitConfig), ("analysis", AnalysisConfig)):
            instance(name, getattr(self, name), kind, f"a {kind.__name__}")
        tau = real("run_temperature", self.run_temperature, MIN_TEMPERATURE, MAX_TEMPERATURE)
        set_fields(self, {"run_temperature": tau})


@dataclass(frozen=True)
class EvaluateConfig:
    """Settings of an evaluation.

    ``limits``: how many questions of each group (keys of ``SIZES``) at most, 0 for none; if there are more, so many
    are drawn with ``seed``. Each is answered with ``samples`` responses at each of ``temperatures``; small objects, at
    those of ``curve_temperatures``, with as many as ``curve`` goes up to. ``map_size``, ``step``,
    ``top_p`` and ``top_k`` as in :class:`CollectConfig`. ``without_attention``: whether selectors that read attention
    also choose on even attention.

    Raises:
        TypeError: a value is of another type.
        ValueError: a value is out of its range.
    """

    limits: dict[str, int] = field(default_factory=lambda: dict(PAPER))
    temperatures: tuple[float, ...] = (0.5, 0.7, 1.0)
    samples: int = CollectConfig.samples
    curve: tuple[int, ...] = CURVE
    curve_temperatures: tuple[float, ...] = (CollectConfig.temperature,)
    seed: int = 0
    map_size: tuple[int, int] | None = None
    step: Step = CollectConfig.step
    top_p: float = CollectConfig.top_p
    top_k: int = CollectConfig.top_k
    without_attention: bool = False

    def __post_init__(self) -> None:
        SamplingConfig(top_p=self.top_p, top_k=self.top_k)  # raises if one is out of its range
        instance("limits", self.limits, Mapping, "a dict of the groups' limits")
        for name, limit in self.limits.items():
            whole(f"limits[{one_of('limits', name, tuple(SIZES))!r}]", limit)
        lists = {n: items(n, getattr(self, n), MAX_RUNS, "numbers") for n in ("temperatures", "curve")}
        lists["curve_temperatures"] = items("curve_temperatures", self.curve_temperatures, MAX_RUNS, "numbers", least=0)
        for name, values in lists.items():
            for value in values:
                if name == "curve":
                    whole(name, value, 1, MAX_SAMPLES)
                else:
                    real(name, value, MIN_TEMPERATURE, MAX_TEMPERATURE)
        whole("samples", self.samples, 1, MAX_SAMPLES)
        whole("seed", self.seed, 0, MAX_FIRST_SEED)
        set_fields(
            self,
            {
                "map_size": size_of_maps(self.map_size),
                "step": one_of("step", self.step, _steps()),
                "without_attention": flag("without_attention", self.without_attention),
            },
        )


def _steps() -> tuple[str, ...]:
    from acs_core.attention import Step  # imports torch

    return get_args(Step)


def _input_transforms() -> tuple[str, ...]:
    from acs_core.selection.regressor_files import INPUT_TRANSFORMS  # imports torch

    return tuple(INPUT_TRANSFORMS)
