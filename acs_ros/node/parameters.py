"""Values of the node's parameters: declared from the table, checked before each change, read as one record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from acs_core.arguments import MAX_PHRASE_CHARS
from acs_core.plain_text import shorten
from acs_core.types import LEAST_IMAGE_TOKENS
from acs_ros.node.parameter_table import SPECS, ParameterSpec

FILES = ("model", "heads", "regressor", "joint_model", "calibration")  # may begin with ~, the user's home folder
PRECISION_PARAMETERS = "min_precision", "second_look"
MAX_CAMERAS = 32  # each has a dozen topics
# Of the nodes with a diagnostic_updater.
USE_FQN, PERIOD = "diagnostic_updater.use_fqn", "diagnostic_updater.period"
UPDATER_PARAMETERS = {
    USE_FQN: "Whether the status on /diagnostics is named by the full name of the node. Read at start.",
    PERIOD: "Seconds between two messages on /diagnostics; by default diagnostics_period. Read at start.",
}
_BY_NAME = {spec.name: spec for spec in SPECS}


@dataclass(frozen=True)
class Settings:
    """The values of :data:`SPECS`, by the same names."""

    model: str
    revision: str
    selector: str
    heads: str
    regressor: str
    joint_model: str
    calibration: str
    device: str
    dtype: str
    quantization: str
    max_image_tokens: int
    coordinate_frame: str
    prefix_bytes: int
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
    whole_responses: bool
    speculation: bool
    seed: int
    deadline: float
    second_look: bool
    multiple: bool
    min_votes: int
    check_labels: bool
    min_score: float
    min_precision: float
    cameras: str
    image_transport: str
    max_image_pixels: int
    accept_tiff: bool
    accept_16uc1: bool
    image_bits: int
    use_depth: bool
    depth_transport: str
    depth_tolerance: float
    target_frame: str
    transform_tolerance: float
    depth_unit: float
    min_depth: float
    max_depth: float
    rectified: bool
    accept_scaled_images: bool
    accept_other_frames: bool
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
    bond_heartbeat_period: float

    def __post_init__(self) -> None:
        # tf2 knows no leading slashes, and takes no frame that has one.
        object.__setattr__(self, "target_frame", self.target_frame.strip().lstrip("/"))
        for name in FILES:  # no shell has expanded them in a parameter file or after :=
            value = getattr(self, name)
            if value.startswith("~"):
                with suppress(RuntimeError):  # there is no such user: the file is then not found
                    object.__setattr__(self, name, str(Path(value).expanduser()))

    @property
    def camera_names(self) -> tuple[str, ...]:
        """The cameras; ("",) for the one without a name."""
        return tuple(dict.fromkeys(self.cameras.split())) or ("",)


class NodeParameters:
    """The parameters of a node: declared, checked before each change, and read as one record.

    Args:
        node: The node on which the parameters are declared.
        configured: Returns True while a model is loaded or loading; then only live parameters may change.
        changed: Called after each change.
        precision_problem: Returns why the loaded model cannot keep a ``min_precision`` (first argument), with or
            without a second look (second argument), or an empty string.

    Attributes:
        current: The present values. A change replaces the whole record, so that a reader who keeps it has values that
            belong together.

    Raises:
        ValueError: a value given at start has the wrong type or is out of range; names the parameter.
    """

    def __init__(
        self,
        node: Node,
        configured: Callable[[], bool],
        changed: Callable[[], None],
        precision_problem: Callable[[float, bool], str] = lambda precision, second_look: "",
    ) -> None:
        declare_parameters(node)
        self._node, self._configured, self._changed = node, configured, changed
        self._precision_problem = precision_problem
        self.current = read_settings(node)
        node.add_pre_set_parameters_callback(widen_integers)
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._replace)

    def _check(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        changes = {p.name: p.value for p in parameters if not keeps_value(self._node, p)}
        problem = change_problem(changes, self._configured())
        if not problem and not changes.keys().isdisjoint(PRECISION_PARAMETERS):
            problem = self._precision_problem(
                *(changes.get(name, getattr(self.current, name)) for name in PRECISION_PARAMETERS)
            )
        return SetParametersResult(successful=not problem, reason=problem)

    def _replace(self, parameters: list[Parameter[Any]]) -> None:
        if not any(p.name in _BY_NAME for p in parameters):
            return
        self.current = read_settings(self._node)
        self._changed()


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


def declare_updater_parameter(node: Node, name: str, default: bool | float) -> Any:
    """Declare a parameter that the nodes with a diagnostic_updater have. Returns its value.

    Raises:
        ValueError: the value given at start has another type, or is no positive number.
    """
    probe = ParameterDescriptor(dynamic_typing=True, description=UPDATER_PARAMETERS[name], read_only=True)
    value: Any = node.declare_parameter(name, default, probe).value
    wanted = "true or false" if isinstance(default, bool) else "a number of seconds above 0"
    good = isinstance(value, bool) == isinstance(default, bool) and isinstance(value, (bool, int, float))
    if not good or not (isinstance(value, bool) or 0 < value < float("inf")):
        raise ValueError(f"{name} must be {wanted}, got {shorten(value)}")
    return value


def widen_integers(parameters: list[Parameter[Any]]) -> list[Parameter[Any]]:
    """Turn integers given for floating-point parameters into floats: ``temperature: 1`` means 1.0."""
    widened = []
    for parameter in parameters:
        spec = _BY_NAME.get(parameter.name)
        value = parameter.value if spec is None else _widened(spec, parameter.value)
        widened.append(parameter if value is parameter.value else Parameter(parameter.name, value=value))
    return widened


def _widened(spec: ParameterSpec, value: Any) -> Any:
    return float(value) if isinstance(spec.default, float) and type(value) is int else value


def keeps_value(node: Node, parameter: Parameter[Any]) -> bool:
    """Whether ``parameter`` has the value that the node has for it: setting it would be no change."""
    if not node.has_parameter(parameter.name):
        return False
    (wanted,), now = widen_integers([parameter]), node.get_parameter(parameter.name)
    return bool(wanted.type_ == now.type_ and wanted.value == now.value)


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


def _problem(spec: ParameterSpec, value: Any) -> str:
    problem = spec.problem(value)
    if not problem and spec.name == "max_image_tokens" and 0 < value < LEAST_IMAGE_TOKENS:
        return f"max_image_tokens must be 0, for the default of the model's family, or at least {LEAST_IMAGE_TOKENS}"
    if not problem and spec.name == "cameras":
        if len(value.split()) > MAX_CAMERAS or len(value) > MAX_CAMERAS * MAX_PHRASE_CHARS:
            return f"cameras must name at most {MAX_CAMERAS} cameras"
        for camera in value.split():
            if not (camera.isascii() and camera.isidentifier()):  # it becomes a part of topic names
                name = shorten(camera)
                return f"cameras: {name} is no name for a topic: letters, digits and _, not beginning with a digit"
    return problem
