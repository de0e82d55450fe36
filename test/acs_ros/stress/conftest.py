import time

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: make test builds the environment that has it")
pytest.importorskip("acs_msgs", reason="needs the built interfaces: make test builds them")

PATIENCE_S = 120.0


@pytest.fixture(autouse=True)
def _own_domain(domain, monkeypatch):
    """Commands that a test starts are alone on their DDS domain."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))


@pytest.fixture
def until():
    """Waits until a condition holds, and fails when it never does."""

    def wait(condition, what):
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"waited {PATIENCE_S:g} s in vain for: {what}")
            time.sleep(0.01)

    return wait
