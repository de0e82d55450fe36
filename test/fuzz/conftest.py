"""The targets of this room reach into all others, so they need what those need."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: make test builds the environment that has it")
pytest.importorskip("acs_msgs", reason="needs the built interfaces: make test builds them")
