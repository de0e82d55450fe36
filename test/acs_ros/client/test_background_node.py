from __future__ import annotations

import os
import subprocess
import sys
import threading

from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String

from acs_ros.client.background_node import BackgroundNode

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def test_peers_hear_each_other_on_threads_of_their_own(until, domain):
    heard = []
    with BackgroundNode("speaker", domain) as speaker, BackgroundNode("hearer", domain) as hearer:
        hearer.node.create_subscription(
            String, "words", lambda msg: heard.append((msg.data, threading.current_thread().name)), LATCHED
        )
        speaker.node.create_publisher(String, "words", LATCHED).publish(String(data="hello"))
        until(lambda: heard, "the word")
    assert heard == [("hello", "hearer")]


def test_a_closed_peer_has_left(until, domain):
    with BackgroundNode("stays", domain) as stays:
        peer = BackgroundNode("goes", domain).start()
        until(lambda: "goes" in stays.node.get_node_names(), "the other")
        peer.close()
        assert not peer.context.ok() and "goes" not in [t.name for t in threading.enumerate()]
        until(lambda: "goes" not in stays.node.get_node_names(), "its leaving")


def test_a_peer_that_never_started_can_be_closed(domain):
    peer = BackgroundNode("never", domain)
    peer.close()
    assert not peer.context.ok()


def test_closing_again_changes_nothing(domain):
    peer = BackgroundNode("twice", domain).start()
    peer.close()
    peer.close()
    assert not peer.context.ok()


def test_a_program_that_does_not_close_its_client_ends(domain):
    program = "from acs_ros.client import GroundingClient as C; c = C(); c.detections(print); print(c.cancel())"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "ROS_DOMAIN_ID": str(domain)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "True\n", "")
