from __future__ import annotations

import os
import threading

from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String

from acs_ros.peer import Peer

DOMAIN = 61 + os.getpid() % 20
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def test_peers_hear_each_other_on_threads_of_their_own(until):
    heard = []
    with Peer("speaker", DOMAIN) as speaker, Peer("hearer", DOMAIN) as hearer:
        hearer.node.create_subscription(
            String, "words", lambda msg: heard.append((msg.data, threading.current_thread().name)), LATCHED
        )
        speaker.node.create_publisher(String, "words", LATCHED).publish(String(data="hello"))
        until(lambda: heard, "the word")
    assert heard == [("hello", "hearer")]


def test_a_closed_peer_has_left(until):
    with Peer("stays", DOMAIN) as stays:
        peer = Peer("goes", DOMAIN).start()
        until(lambda: "goes" in stays.node.get_node_names(), "the other")
        peer.close()
        assert not peer.context.ok() and "goes" not in [t.name for t in threading.enumerate()]
        until(lambda: "goes" not in stays.node.get_node_names(), "its leaving")


def test_a_peer_that_never_started_can_be_closed():
    peer = Peer("never", DOMAIN)
    peer.close()
    assert not peer.context.ok()
