"""Settings of a run: the node's parameters, from defaults, a parameter file and the command line."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acs_core.artifacts.identity import weights_fingerprint
from acs_core.artifacts.table_1 import READINGS
from acs_core.plain_text import nearest, shorten
from acs_ros.node.given_parameters import is_known, unknown_names
from acs_ros.node.model_loader import GrounderLike
from acs_ros.node.parameter_files import ParameterFile
from acs_ros.node.parameter_table import ASKING, IN_WORDS, MODEL, SPECS
from acs_ros.node.parameters import Settings

# Parameters without influence on the answer to one frame.
_ELSEWHERE = ("initial_query", "mode", "max_rate", "max_queries", "max_phrase_chars", "max_goals", "prefix_bytes")
_FILES = ("heads", "regressor", "joint_model", "calibration")
DEFAULT_SEED = 1  # a benchmark should give the same numbers twice
_SPECS = {spec.name: spec for spec in SPECS}


def make_settings(params_file: Path | None, given: Mapping[str, Any], node: str = "/grounding") -> Settings:
    """Merge the parameters' defaults, ``params_file`` (as for ``ros2 run ... --params-file``) and ``given``, later ones
    first. The seed is 1 unless ``given`` has one, or the file a fixed one.

    Raises:
        ValueError: the file cannot be read, or a parameter does not exist, or has the wrong type or range.
    """
    values: dict[str, Any] = {name: spec.default for name, spec in _SPECS.items()}
    changes = (_read(params_file, node) if params_file else {}) | dict(given)
    if changes.get("seed", -1) == -1 and "seed" not in given:
        changes["seed"] = DEFAULT_SEED
    for name, value in changes.items():
        if is_known(name) and name not in _SPECS:
            continue  # rclpy's own
        if name not in _SPECS:
            raise ValueError(unknown_names({name: "" if name in given else str(params_file)}))
        if problem := _SPECS[name].problem(value):
            raise ValueError(problem)
        values[name] = float(value) if isinstance(_SPECS[name].default, float) else value
    return Settings(**values)


def _read(file: Path, node: str) -> dict[str, Any]:
    found = ParameterFile.read(file)
    if problem := found.problem_for(node):
        raise ValueError(problem)
    return found.values_for(node)


def parse_assignment(text: str) -> tuple[str, Any]:
    """Parse a parameter in ROS's command-line form, ``top_k:=50``; returns its name and value.

    Raises:
        ValueError: it is not written so, or the value is not of the parameter's type.
    """
    name, sign, value = text.partition(":=")
    if not sign or name not in _SPECS:
        near = nearest(name, _SPECS)
        hint = f" (did you mean {near}?)" if near and sign else ""
        raise ValueError(
            f"{shorten(text)} is not NAME:=VALUE with the name of a parameter{hint}; docs/node.md lists them"
        )
    kind = type(_SPECS[name].default)
    if kind is bool:
        if value.lower() not in ("true", "false"):
            raise ValueError(f"{name} must be {IN_WORDS[bool]}, got {shorten(value)}")
        return name, value.lower() == "true"
    try:
        return name, kind(value)
    except ValueError:
        raise ValueError(f"{name} must be {IN_WORDS[kind]}, got {shorten(value)}") from None


def changed(settings: Settings) -> dict[str, Any]:
    """The parameters that differ from the node's defaults."""
    return {name: v for name, spec in _SPECS.items() if (v := getattr(settings, name)) != spec.default}


def identity(settings: Settings, grounder: GrounderLike) -> dict[str, Any]:
    """Everything that the answer to a frame and a phrase depends on, as JSON values; the key of a journal.

    Files that the user named count by their content, weights by their fingerprint.

    Raises:
        OSError: a file cannot be read.
    """
    names = [spec.name for spec in (*MODEL, *ASKING) if spec.name not in (*_ELSEWHERE, *_FILES)]
    found: dict[str, Any] = {name: getattr(settings, name) for name in names}
    found["image_bits"] = settings.image_bits
    found |= {name: _digest(getattr(settings, name)) for name in _FILES}
    lvlm, *curves = (getattr(grounder, name, None) for name in ("lvlm", "calibration", "second_look"))
    if lvlm is not None:  # a real Grounder; checked so, as importing its class takes seconds
        found |= {"weights": weights_fingerprint(lvlm), "calibrated": repr(curves)}
    return found


def _digest(file: str) -> str:
    if file in READINGS:  # a name of shipped files, not a path
        return file
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
