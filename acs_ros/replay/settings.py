"""How a run asks: the node's own parameters, from its parameter file and the command line."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rclpy.parameter import Parameter, parameter_dict_from_yaml_file

from acs_core.identity import weights_fingerprint
from acs_ros.grounder_source import GrounderLike
from acs_ros.parameter_table import ASKING, MODEL, SPECS
from acs_ros.parameters import Settings

# What makes no difference to the answer about one frame.
_ELSEWHERE = ("initial_query", "mode", "max_rate", "max_queries", "max_phrase_chars", "max_goals")
_FILES = ("heads", "regressor", "calibration")
DEFAULT_SEED = 1  # a benchmark should give the same numbers twice
_SPECS = {spec.name: spec for spec in SPECS}


def make_settings(params_file: Path | None, given: Mapping[str, Any], node: str = "/grounding") -> Settings:
    """The parameters: their defaults, replaced by those of ``params_file`` (as for ``ros2 run ... --params-file``),
    replaced by ``given``. The seed is 1 unless one is given, or the file has a fixed one.

    Raises:
        ValueError: the file cannot be read, or a parameter does not exist, or has the wrong type or range.
    """
    values: dict[str, Any] = {name: spec.default for name, spec in _SPECS.items()}
    changes = (_read(params_file, node) if params_file else {}) | dict(given)
    if changes.get("seed", -1) == -1 and "seed" not in given:
        changes["seed"] = DEFAULT_SEED
    for name, value in changes.items():
        if name == "use_sim_time":
            continue
        if name not in _SPECS:
            raise ValueError(f"there is no parameter {name}; docs/node.md lists them")
        if problem := _SPECS[name].problem(value):
            raise ValueError(problem)
        values[name] = float(value) if isinstance(_SPECS[name].default, float) else value
    return Settings(**values)


def _read(file: Path, node: str) -> dict[str, Any]:
    try:
        found = parameter_dict_from_yaml_file(str(file), use_wildcard=True, target_nodes=[node])
    except Exception as error:  # rclpy raises whatever the YAML parser threw
        raise ValueError(f"{file} is no parameter file for {node}: {' '.join(str(error).split())}") from error
    return {name: Parameter.from_parameter_msg(msg).value for name, msg in found.items()}


def parse_assignment(text: str) -> tuple[str, Any]:
    """A parameter as ROS writes it on a command line, ``top_k:=50``: its name and value.

    Raises:
        ValueError: it is not written so, or the value is not of the parameter's type.
    """
    name, sign, value = text.partition(":=")
    if not sign or name not in _SPECS:
        raise ValueError(f"{text!r} is not NAME:=VALUE with the name of a parameter; docs/node.md lists them")
    kind = type(_SPECS[name].default)
    if kind is bool:
        if value.lower() not in ("true", "false"):
            raise ValueError(f"{name} must be true or false, got {value!r}")
        return name, value.lower() == "true"
    try:
        return name, kind(value)
    except ValueError:
        raise ValueError(f"{name} must be a {kind.__name__}, got {value!r}") from None


def changed(settings: Settings) -> dict[str, Any]:
    """The parameters that differ from the node's defaults."""
    return {name: v for name, spec in _SPECS.items() if (v := getattr(settings, name)) != spec.default}


def identity(settings: Settings, grounder: GrounderLike) -> dict[str, Any]:
    """All that the answer to a frame and a phrase depends on, as JSON values: answers of one identity belong together.

    Files that the user named count by their content, weights by their fingerprint.

    Raises:
        OSError: a file cannot be read.
    """
    names = [spec.name for spec in (*MODEL, *ASKING) if spec.name not in (*_ELSEWHERE, *_FILES)]
    found: dict[str, Any] = {name: getattr(settings, name) for name in names}
    found |= {name: _digest(getattr(settings, name)) for name in _FILES}
    lvlm, *curves = (getattr(grounder, name, None) for name in ("lvlm", "calibration", "second_look"))
    if lvlm is not None:  # a real Grounder; checked so, as importing its class takes seconds
        found |= {"weights": weights_fingerprint(lvlm), "calibrated": repr(curves)}
    return found


def _digest(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
