"""The values of the node's parameters: declared from the table, read as one record, judged before they change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from acs_core.jsonfile import shorten
from acs_core.phrase import MAX_PHRASE_CHARS
from acs_ros.parameter_spec import Spec
from acs_ros.parameter_table import SPECS

MAX_CAMERAS = 32  # each has a dozen topics
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
    quantization: str
    initial_query: str
    mode: str
    max_rate: float
    max_queries: int
    max_phrase_chars: int
    max_goals: int
    samples: int
    auto_samples: bool
    temperature: float
    top_p: float
    top_k: int
    max_new_tokens: int
    seed: int
    deadline: float
    second_look: bool
    multiple: bool
    min_votes: int
    min_score: float
    cameras: str
    image_transport: str
    max_image_pixels: int
    accept_tiff: bool
    use_depth: bool
    depth_tolerance: float
    depth_unit: float
    rectified: bool
    jpeg_quality: int
    marker_depth: float
    tracking: bool
    track_half_life: float
    track_min_score: float
    diagnostics_period: float
    image_timeout: float
    stale_after: float
    hang_after: float
    freeze_timeout: float
    warn_input_rate: float
    warn_answer_rate: float
    warn_latency: float
    warn_unparseable: float
    warn_host_memory: float
    warn_gpu_memory: float
    autostart: bool

    @property
    def camera_names(self) -> tuple[str, ...]:
        """The cameras; ("",) for the one without a name."""
        return tuple(dict.fromkeys(self.cameras.split())) or ("",)


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
        problem = _problem(spec, value)
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
        problem = _problem(spec, value)
        if problem:
            return problem
        if configured and not spec.live:
            return f"{name} is read when the node is configured: deactivate and clean up the node first"
    return ""


def _problem(spec: Spec, value: Any) -> str:
    problem = spec.problem(value)
    if not problem and spec.name == "cameras":
        if len(value.split()) > MAX_CAMERAS or len(value) > MAX_CAMERAS * MAX_PHRASE_CHARS:
            return f"cameras must name at most {MAX_CAMERAS} cameras"
        for camera in value.split():
            if not (camera.isascii() and camera.isidentifier()):  # it becomes a part of topic names
                name = shorten(camera)
                return f"cameras: {name} is no name for a topic: letters, digits and _, not beginning with a digit"
    return problem
