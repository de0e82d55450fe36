"""The robot of a soak: what DDS may lose breaks no promise."""

from __future__ import annotations

import numpy as np
import pytest
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from acs_ros.client.background_node import BackgroundNode
from acs_ros.errors import NodeTrouble
from acs_ros.stress import robot as module
from acs_ros.stress.robot import NODE, Robot

LONG_S = 120.0
PICTURE = np.zeros((6, 8, 3), np.uint8)


def test_another_frame_is_shown_where_one_was_lost(domain, monkeypatch):
    monkeypatch.setattr(module, "RESEND_S", 0.5)
    heard = []
    with BackgroundNode("node", domain) as peer, Robot(domain, lambda: None, strangers=True) as robot:
        publisher = peer.node.create_publisher(Detection2DArray, f"{NODE}/detections", 10)

        def answer(msg):
            heard.append(msg.header)
            if len(heard) > 1:
                publisher.publish(Detection2DArray(header=msg.header))

        peer.node.create_subscription(Image, f"{NODE}/image", answer, 10)
        robot.connected(LONG_S)
        robot.answered_after(PICTURE, LONG_S)
        assert robot.shown_again >= 1 and len(heard) > 1


def test_a_node_that_never_answers_broke_its_promise(domain, monkeypatch):
    monkeypatch.setattr(module, "RESEND_S", 0.01)
    with Robot(domain, lambda: None, strangers=True) as robot:
        with pytest.raises(NodeTrouble, match="an answer to the newest frame"):
            robot.answered_after(PICTURE, 0.05)
        assert robot.shown_again >= 1
