"""Replacements for parts of rclpy, each against what it works around."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import rclpy
from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNodeMixin, TransitionCallbackReturn
from rclpy.node import Node

import acs_ros.rclpy_fixes as module
from acs_ros.diagnostics.statistics import StatisticsSnapshot
from acs_ros.diagnostics.status import Situation, make_status
from acs_ros.rclpy_fixes import (
    LOG_PERIOD_S,
    FaultTolerantExecutor,
    FreezeWatch,
    PlainLogger,
    RefusingLifecycleMixin,
    ThrottledLogger,
    is_gone,
    spin_tolerant,
)


class Log:
    def __init__(self) -> None:
        self.now, self.lines = 100.0, []
        self.sparing = ThrottledLogger(self, lambda: self.now)

    def info(self, text):
        self.lines.append(("info", text))

    def warning(self, text):
        self.lines.append(("warning", text))


@pytest.fixture
def log():
    return Log()


def test_a_flood_writes_one_line_of_each_kind_in_a_while(log):
    for number in range(1000):
        log.sparing.warning("stamps", f"stamp {number}")
        log.sparing.info("query", f"query {number}")
    assert log.lines == [("warning", "stamp 0"), ("info", "query 0")]
    log.now += LOG_PERIOD_S / 2
    log.sparing.warning("stamps", "too early")
    log.now += LOG_PERIOD_S / 2
    log.sparing.warning("stamps", "again")
    assert log.lines[2:] == [("warning", "again")]


def test_the_text_of_a_line_that_is_spared_is_not_made(log):
    made = []
    for _ in range(3):
        log.sparing.info("kind", lambda: made.append(1) or "costly")
    assert made == [1] and log.lines == [("info", "costly")]


BAD = "no model \x1b[2J\u202ex\n[INFO] [1.0] [grounding]: all is well"


class Lines:
    """Stands in for rclpy's logger."""

    name = "grounding"

    def __init__(self):
        self.said = []

    def __getattr__(self, severity):
        return lambda text: self.said.append((severity, text)) or True


@pytest.mark.parametrize("severity", ["debug", "info", "warning", "error", "fatal"])
def test_every_severity_is_clean(severity):
    lines = Lines()
    assert getattr(PlainLogger(lines), severity)(BAD) is True
    ((used, text),) = lines.said
    assert used == severity
    assert text == "no model \ufffd[2J\ufffdx\n    [INFO] [1.0] [grounding]: all is well"
    assert PlainLogger(lines).name == "grounding"


def test_rclpy_takes_every_severity_again_and_again(capfd):
    context = Context()
    rclpy.init(context=context)
    try:
        logger = PlainLogger(Node("plain", context=context).get_logger())
        for _ in range(2):  # rclpy refuses two severities from one line
            logger.info(BAD)
            logger.warning(BAD)
            logger.error(BAD)
    finally:
        rclpy.try_shutdown(context=context)
    said = capfd.readouterr()
    assert "\x1b[2J" not in said.out + said.err and (said.out + said.err).count("no model") == 6


def test_the_node_logs_through_it(rig):
    """All of the node's rooms ask the node for its logger."""
    assert isinstance(rig.node.get_logger(), PlainLogger)
    assert isinstance(rig.node.reporter.log._logger, PlainLogger)


def test_diagnostics_are_clean_and_bounded():
    at = Situation("unconfigured", (BAD,), (), "/grounding/query", 5.0, BAD, BAD, BAD, 100.0)
    status = make_status("/grounding", StatisticsSnapshot(load_problem=BAD + "x" * 10**6), at)
    texts = [status.message, status.hardware_id, *(pair.value for pair in status.values)]
    assert all(text.isprintable() and len(text) <= 8000 for text in texts)
    assert status.message.startswith("no model: no model \ufffd[2J\ufffdx [INFO]")


class Executor:
    """Raises or does what ``steps`` say, one per turn; its context is down after the last."""

    def __init__(self, *steps):
        self.steps = list(steps)
        self.context = SimpleNamespace(ok=lambda: bool(self.steps))

    def spin_once(self, timeout_sec):
        step = self.steps.pop(0)
        if step is not None:
            raise step


@pytest.mark.parametrize(
    "error",
    [
        InvalidHandle("destroyed"),
        rclpy_implementation.RCLError("failed to call timer: timer is canceled, at timer.c:281"),
    ],
)
def test_a_destroyed_entity_does_not_end_the_loop(error):
    executor = Executor(None, error, None)
    spin_tolerant(executor)
    assert not executor.steps


@pytest.mark.parametrize(
    ("error", "gone"),
    [
        (rclpy_implementation.RCLError("context is not valid"), False),
        (RuntimeError("timer is canceled"), False),
    ],
)
def test_only_errors_of_rclpy_itself_mean_that_an_entity_is_gone(error, gone):
    assert is_gone(error) == gone


@pytest.mark.parametrize("at", ["taking", "running"])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (InvalidHandle("destroyed"), []),
        (rclpy_implementation.RCLError("failed to call timer: timer is canceled, at timer.c:281"), []),
        (TypeError("a bug"), [("/a", "a bug")]),
    ],
)
def test_the_executor_reports_no_entity_that_is_gone(error, told, at):
    context, failures = Context(), []
    rclpy.init(context=context)
    executor = FaultTolerantExecutor(2, lambda name, failed: failures.append((name, str(failed))), context=context)

    async def work():
        raise error

    def take(entity):
        if at == "taking":
            raise error
        return work

    try:
        run = executor._guarded(SimpleNamespace(topic_name="/a"), take)
        assert (run is None) == (at == "taking")
        if run is not None:
            with pytest.raises(StopIteration):  # the coroutine ends
                run().send(None)
        assert failures == told
    finally:
        executor.shutdown()
        rclpy.shutdown(context=context)


def test_an_error_of_a_callback_does():
    executor = Executor(None, ValueError("a bug"), None)
    with pytest.raises(ValueError, match="a bug"):
        spin_tolerant(executor)
    assert len(executor.steps) == 1


def test_done_ends_the_loop():
    executor = Executor(None, None, None)
    spin_tolerant(executor, lambda: len(executor.steps) == 1)
    assert len(executor.steps) == 1


FROZEN = """
import ctypes, faulthandler, threading
from acs_ros.rclpy_fixes import FreezeWatch

def stands_still():
    ctypes.PyDLL(None).usleep(1_000_000_000)  # as rclpy's publish: no other Python runs meanwhile

armed, arm = threading.Event(), faulthandler.dump_traceback_later
faulthandler.dump_traceback_later = lambda *args, **options: arm(*args, **options) or armed.set()
with FreezeWatch({timeout}):
    armed.wait()
    stands_still()
print("went on")
"""


@pytest.fixture
def alarm(monkeypatch):
    """What faulthandler is asked to do, instead of doing it: the process would end."""
    calls, again = [], threading.Event()

    def later(timeout, exit, file):
        assert exit and file == 2
        calls.append(timeout)
        if len(calls) >= 4:
            again.set()

    monkeypatch.setattr(module.faulthandler, "dump_traceback_later", later)
    monkeypatch.setattr(module.faulthandler, "cancel_dump_traceback_later", lambda: calls.append("cancelled"))
    return calls, again


def test_a_process_that_stands_still_ends_and_says_where():
    code = FROZEN.format(timeout=1.0)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "Timeout" in done.stderr and "in stands_still" in done.stderr and "went on" not in done.stdout


def test_while_python_runs_the_end_is_put_off_again_and_again(alarm):
    calls, again = alarm
    with FreezeWatch(0.04):
        assert again.wait(60)
    assert set(calls[:-1]) == {0.04} and calls[-1] == "cancelled"


def test_afterwards_nobody_watches(alarm):
    calls, _ = alarm
    watch = FreezeWatch(1000.0)
    with watch:
        pass
    assert calls == [1000.0, "cancelled"] and not watch._thread.is_alive()


def test_without_a_timeout_nobody_watches(alarm):
    with FreezeWatch(0.0):
        pass
    assert alarm[0] == []


def test_a_transition_that_rclpy_refuses_by_raising_is_answered_with_error(monkeypatch):
    """As Jazzy's rclpy does; Kilted's answers with ERROR itself."""

    def refused(self, transition_id):
        raise rclpy_implementation.RCLError("Transition is not registered.")

    monkeypatch.setattr(LifecycleNodeMixin, "_LifecycleNodeMixin__change_state", refused)
    node = object.__new__(RefusingLifecycleMixin)
    assert node._LifecycleNodeMixin__change_state(3) is TransitionCallbackReturn.ERROR
