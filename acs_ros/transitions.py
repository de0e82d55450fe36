"""Lifecycle transitions that say what went wrong."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

Transition = Callable[[Any, LifecycleState], TransitionCallbackReturn]


def never_silent(transition: Transition) -> Transition:
    """rclpy turns an exception in a transition into ERROR without a word; this one says what it was."""

    @functools.wraps(transition)
    def guarded(self: Any, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(self, state)
        except Exception as error:
            self.get_logger().error(f"{transition.__name__} failed: {''.join(traceback.format_exception(error))}")
            return TransitionCallbackReturn.ERROR

    return guarded
