import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: make test builds the environment that has it")
pytest.importorskip("acs_msgs", reason="needs the built interfaces: make test builds them")
