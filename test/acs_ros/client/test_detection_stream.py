"""Streams of detections: their order, more than one reader, and what is left of a closed one."""

from __future__ import annotations

import threading

import pytest
from client_parts import users_node
from rclpy.executors import MultiThreadedExecutor
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from acs_ros.client import GroundingClient

LONG_S = 120.0


def test_a_callback_gets_one_frame_at_a_time_and_in_order(rig, image, until):
    running, heard = [], []
    first_is_in, may_end = threading.Event(), threading.Event()

    def on_frame(frame):
        running.append(frame)
        if not first_is_in.is_set():
            first_is_in.set()
            may_end.wait(LONG_S)
        heard.append((frame.header.stamp.sec, len(running)))
        running.remove(frame)

    with users_node(rig, MultiThreadedExecutor) as node, GroundingClient(node=node) as client:
        client.wait_until_active(LONG_S)
        client.detections(on_frame)
        until(lambda: rig.node.cameras._cameras[""].outputs.detections.get_subscription_count() == 2, "the match")
        client.set_queries("key", LONG_S)
        for stamp in range(1, 6):
            rig.images.publish(image(stamp=stamp))
            until(lambda: rig.detections and rig.detections[-1].header.stamp.sec == stamp, "an answer")  # noqa: B023
        assert first_is_in.wait(LONG_S)
        assert client.state(LONG_S) == "active", "a response passes the callback that is held"
        may_end.set()
        until(lambda: len(heard) == 5, "all frames")
    assert heard == [(stamp, 1) for stamp in range(1, 6)]


def test_readers_of_one_stream_get_a_frame_each_or_a_timeout(rig):
    with GroundingClient(domain_id=rig.domain) as client:
        stream = client.detections()
        got, both_saw_it, met = [], threading.Barrier(2), []
        wait = client._waiter.wait

        def wait_together(done, timeout):
            answer = wait(done, timeout)
            if answer and len(met) < 2:
                met.append(both_saw_it.wait(LONG_S))
            return answer

        client._waiter.wait = wait_together

        def read():
            try:
                got.append(stream.take(0.5).header.stamp.sec)
            except TimeoutError as error:
                got.append(type(error))

        readers = [threading.Thread(target=read, daemon=True) for _ in range(2)]
        stream._take(Detection2DArray(header=Header(frame_id="camera")))
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(10)
        assert not any(reader.is_alive() for reader in readers), "a reader waits for ever"
        assert len(met) == 2 and set(got) == {0, TimeoutError}


def test_a_closed_stream_is_forgotten(rig):
    with GroundingClient(domain_id=rig.domain) as client:
        for _ in range(3):
            with client.detections() as stream, pytest.raises(TimeoutError):
                stream.take(0.0)
        kept = client.detections()
        assert list(client._streams) == [kept]
