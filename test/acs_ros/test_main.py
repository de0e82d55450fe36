import sys

import pytest

import acs_ros.main as module


def test_threads_take_short_turns_and_a_ros_that_cannot_start_is_named(monkeypatch, capsys):
    def no_ros(**_):
        raise RuntimeError("no folder for logs")

    monkeypatch.setattr(module.rclpy, "init", no_ros)
    monkeypatch.setattr(module, "steady_heap", lambda: True)  # for good, in this process of all tests
    before = sys.getswitchinterval()
    try:
        assert module.main([]) == 2
        assert sys.getswitchinterval() == pytest.approx(module.SWITCH_S)
    finally:
        sys.setswitchinterval(before)
    said = capsys.readouterr().err
    assert "no folder for logs" in said and "ROS_LOG_DIR" in said
