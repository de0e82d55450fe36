from __future__ import annotations

from types import SimpleNamespace

import pytest
from rclpy.exceptions import InvalidHandle

from acs_ros.spinning import spin


class Executor:
    """Raises or does what ``steps`` say, one per turn; its context is down after the last."""

    def __init__(self, *steps):
        self.steps = list(steps)
        self.context = SimpleNamespace(ok=lambda: bool(self.steps))

    def spin_once(self, timeout_sec):
        step = self.steps.pop(0)
        if step is not None:
            raise step


def test_a_destroyed_entity_does_not_end_the_loop():
    executor = Executor(None, InvalidHandle("destroyed"), None)
    spin(executor)
    assert not executor.steps


def test_an_error_of_a_callback_does():
    executor = Executor(None, ValueError("a bug"), None)
    with pytest.raises(ValueError, match="a bug"):
        spin(executor)
    assert len(executor.steps) == 1


def test_done_ends_the_loop():
    executor = Executor(None, None, None)
    spin(executor, lambda: len(executor.steps) == 1)
    assert len(executor.steps) == 1
