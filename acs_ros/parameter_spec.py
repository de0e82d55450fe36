"""What one parameter of the node is: name, default, range, meaning, and when it may change."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from acs_core.jsonfile import shorten

TYPE_NAMES = {str: "string", int: "integer", float: "double", bool: "bool"}


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

    @property
    def type_name(self) -> str:
        """The type as ROS calls it."""
        return TYPE_NAMES[type(self.default)]

    def problem(self, value: object) -> str:
        """What is wrong with ``value``, or an empty string."""
        wanted = type(self.default)
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            return f"{self.name} must be a {wanted.__name__}, got {shorten(value)}"
        if self.choices and value not in self.choices:
            return f"{self.name} must be one of {', '.join(self.choices)}; got {shorten(value)}"
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if isinstance(value, float) and not math.isfinite(value):
                return f"{self.name} must be a finite number, got {value}"
            low, high = self.low, self.high
            if (low is not None and value < low) or (high is not None and value > high):
                return f"{self.name} must be in [{low:.12g}, {high:.12g}], got {shorten(value)}"
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
