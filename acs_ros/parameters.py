"""The node's parameters: one table with type, range, description and when each may change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from acs_core.image import MAX_PIXELS
from acs_core.phrase import MAX_PHRASE_CHARS
from acs_core.types import SamplingConfig

# The engine's own limit, which the node cannot widen: the engine cleans every phrase again with this default.
SELECTOR_HELP = "How the answer is picked from the sampled boxes: acs-free, acs-learned, greedy, ..."


@dataclass(frozen=True)
class Spec:
    """One parameter. ``low``/``high`` are inclusive; ``live``: may change while the node is configured."""

    name: str
    default: str | int | float | bool
    description: str
    low: float | None = None
    high: float | None = None
    live: bool = True
    choices: tuple[str, ...] = ()

    def problem(self, value: object) -> str:
        """What is wrong with ``value``, or an empty string."""
        wanted = type(self.default)
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            return f"{self.name} must be a {wanted.__name__}, got {value!r}"
        if self.choices and value not in self.choices:
            return f"{self.name} must be one of {', '.join(self.choices)}; got {value!r}"
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if not math.isfinite(value):
                return f"{self.name} must be a finite number, got {value}"
            low, high = self.low, self.high
            if (low is not None and value < low) or (high is not None and value > high):
                return f"{self.name} must be in [{low:.12g}, {high:.12g}], got {value:.12g}"
        return ""

    def descriptor(self) -> ParameterDescriptor:
        """What ``ros2 param describe`` shows."""
        when = "" if self.live else " Read when the node is configured; change it in the state unconfigured."
        made = ParameterDescriptor(name=self.name, description=self.description + when, dynamic_typing=False)
        if self.choices:
            made.additional_constraints = "one of: " + ", ".join(self.choices)
        if self.low is not None and self.high is not None:
            if isinstance(self.default, int):
                made.integer_range = [IntegerRange(from_value=int(self.low), to_value=int(self.high), step=0)]
            else:
                made.floating_point_range = [FloatingPointRange(from_value=self.low, to_value=self.high, step=0.0)]
        return made


SPECS: tuple[Spec, ...] = (
    Spec("model", "tiny-internvl", "Model: a name shipped with acs, a folder, or a Hugging Face id.", live=False),
    Spec("revision", "", "Commit or tag of a Hugging Face model; empty takes the newest.", live=False),
    Spec("selector", "acs-free", SELECTOR_HELP, live=False),
    Spec("heads", "", "Head file (JSON) for acs-free; empty takes the one shipped for the model.", live=False),
    Spec("regressor", "", "Regressor (safetensors) for acs-learned; empty takes the shipped one.", live=False),
    Spec("calibration", "", "Calibration (JSON) of the score; empty takes the shipped one, if any.", live=False),
    Spec("device", "auto", "Torch device: auto, cpu, cuda, cuda:1, ...", live=False),
    Spec(
        "dtype",
        "auto",
        "Number type of the weights: auto takes bfloat16 on a GPU and float32 on a CPU.",
        live=False,
        choices=("auto", "float32", "float16", "bfloat16"),
    ),
    Spec("initial_query", "", "Phrase asked from the start, until ~/query says otherwise.", live=False),
    Spec("samples", 10, "Responses sampled per frame (N).", 1, 256),
    Spec("temperature", 0.5, "Sampling temperature (tau).", 0.01, 10.0),
    Spec("top_p", 0.9, "Nucleus sampling: smallest set of tokens with this probability.", 0.001, 1.0),
    Spec("top_k", 100, "Sample among the k likeliest tokens; 0 keeps all.", 0, 1_000_000),
    Spec("max_new_tokens", 256, "Longest response, in tokens.", 1, 8192),
    Spec("seed", -1, "Seed of every call; -1 draws a fresh one per frame.", -1, 2**31 - 1),
    Spec("multiple", False, "Answer with every object the samples agree on, not only the best one."),
    Spec("min_score", 0.0, "Boxes with a lower score are not published: the node abstains.", 0.0, 1.0),
    Spec("max_phrase_chars", MAX_PHRASE_CHARS, "Longest accepted query, in characters.", 1, MAX_PHRASE_CHARS),
    Spec("max_image_pixels", MAX_PIXELS, "Largest accepted image, in pixels.", 1, MAX_PIXELS),
    Spec("max_rate", 0.0, "Most frames asked per second; 0: as many as the model has time for.", 0.0, 1000.0),
    Spec("diagnostics_period", 1.0, "Seconds between two messages on /diagnostics.", 0.1, 60.0, live=False),
    Spec("image_timeout", 5.0, "Seconds without an image after which /diagnostics warns.", 0.1, 3600.0),
    Spec("autostart", False, "Configure and activate by itself at start, without a lifecycle manager.", live=False),
)
_BY_NAME = {spec.name: spec for spec in SPECS}


@dataclass(frozen=True)
class Settings:
    """The values of :data:`SPECS`, by the same names."""

    model: str
    revision: str
    selector: str
    heads: str
    regressor: str
    calibration: str
    device: str
    dtype: str
    initial_query: str
    samples: int
    temperature: float
    top_p: float
    top_k: int
    max_new_tokens: int
    seed: int
    multiple: bool
    min_score: float
    max_phrase_chars: int
    max_image_pixels: int
    max_rate: float
    diagnostics_period: float
    image_timeout: float
    autostart: bool

    @property
    def sampling(self) -> SamplingConfig:
        """How responses are drawn."""
        return SamplingConfig(
            num_samples=self.samples,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            max_new_tokens=self.max_new_tokens,
            seed=None if self.seed < 0 else self.seed,
        )


def declare_parameters(node: Node) -> None:
    """Declare every parameter of :data:`SPECS` on ``node``, with the values given at start.

    Raises:
        ValueError: a value given at start has the wrong type or is out of range; names the parameter.
    """
    probe = ParameterDescriptor(dynamic_typing=True)
    for spec in SPECS:
        # Declared loosely first: rclpy's own refusal of a wrong type does not say what was expected of whom.
        given = node.declare_parameter(spec.name, None, probe).value
        node.undeclare_parameter(spec.name)
        value = spec.default if given is None else given
        problem = spec.problem(value)
        if problem:
            raise ValueError(problem)
        node.declare_parameter(spec.name, _widened(spec, value), spec.descriptor(), ignore_override=True)


def widen_integers(parameters: list[Parameter[Any]]) -> list[Parameter[Any]]:
    """Turn integers given for floating-point parameters into floats: ``temperature: 1`` means 1.0."""
    widened = []
    for parameter in parameters:
        spec = _BY_NAME.get(parameter.name)
        value = parameter.value if spec is None else _widened(spec, parameter.value)
        widened.append(parameter if value is parameter.value else Parameter(parameter.name, value=value))
    return widened


def _widened(spec: Spec, value: Any) -> Any:
    return float(value) if isinstance(spec.default, float) and type(value) is int else value


def read_settings(node: Node) -> Settings:
    """The present values of all parameters."""
    return Settings(**{f.name: node.get_parameter(f.name).value for f in fields(Settings)})


def change_problem(changes: Mapping[str, Any], configured: bool) -> str:
    """Why these parameters must not change now, or an empty string. ``configured``: a model is loaded or loading."""
    for name, value in changes.items():
        spec = _BY_NAME.get(name)
        if spec is None:
            continue  # use_sim_time and the like: not ours to judge
        problem = spec.problem(value)
        if problem:
            return problem
        if configured and not spec.live:
            return f"{name} is read when the node is configured: deactivate and clean up the node first"
    return ""
