"""The end of a client, of its calls and of the node that it calls: nothing hangs, and nothing is left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
import rclpy
from client_parts import picture, users_node
from process_parts import fresh_domain
from rclpy.context import Context
from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.node import Node

from acs_core.errors import Cancelled
from acs_ros.client import GroundingClient, pending_calls
from acs_ros.errors import NodeTrouble

LONG_S = 120.0
CLOSED = "the client of /grounding is closed"


@pytest.fixture
def domain_of_nobody():
    with fresh_domain() as domain:
        yield domain


def outcome(call):
    """What ``call()`` returns, or the error that it raises."""
    try:
        return call()
    except (Exception, KeyboardInterrupt) as error:
        return error


@pytest.mark.parametrize("executor", ["its own", None, SingleThreadedExecutor, MultiThreadedExecutor])
def test_a_goal_ends_with_the_client_that_sent_it(rig, grounder, until, executor):
    grounder.gate.clear()
    with users_node(rig, None if executor == "its own" else executor) as node:
        client = GroundingClient(domain_id=rig.domain) if executor == "its own" else GroundingClient(node=node)
        client.wait_until_active(LONG_S)
        task = client.ground_async("key", picture())  # not accepted yet
        client.close()
        assert task.done and isinstance(outcome(task.result), Cancelled)
        until(lambda: rig.node.statistics.snapshot().goals == 1 and rig.node.goals.count == 0, "the end of the goal")


def test_a_client_is_closed_in_the_callback_of_its_own_thread(rig, grounder, until):
    grounder.gate.clear()
    client = GroundingClient(domain_id=rig.domain)
    client.wait_until_active(LONG_S)
    closed = []
    task = client.ground_async("key", picture(), on_stage=lambda *_: closed.append(outcome(client.close)))
    until(lambda: closed, "the callback")
    assert closed[0] is None and isinstance(outcome(task.result), Cancelled)
    until(lambda: not client._node.context.ok(), "the end of its node")
    until(lambda: "grounding_client" not in rig.peer.get_node_names(), "its leaving")
    until(lambda: rig.node.goals.count == 0, "the end of the goal")
    client.close()


def test_a_client_is_closed_in_the_callback_of_its_stream(rig, image, until):
    client, closed = GroundingClient(domain_id=rig.domain), []
    client.detections(lambda frame: closed.append(outcome(client.close)))
    until(lambda: rig.node.cameras._cameras[""].outputs.detections.get_subscription_count() == 2, "the match")
    client.set_queries("key", LONG_S)
    rig.images.publish(image())
    until(lambda: closed, "the callback")
    assert closed == [None]
    until(lambda: not client._node.context.ok(), "the end of its node")
    until(lambda: "grounding_client" not in rig.peer.get_node_names(), "its leaving")
    client.close()


@pytest.mark.parametrize("executor", [SingleThreadedExecutor, MultiThreadedExecutor])
def test_a_client_is_closed_in_a_callback_of_a_users_node(rig, grounder, until, executor):
    grounder.gate.clear()
    with users_node(rig, executor) as node:
        before = len(list(node.clients)), len(list(node.waitables)), len(list(node.timers))
        client, closed = GroundingClient(node=node), []
        client.wait_until_active(LONG_S)

        def close():
            timer.cancel()
            task = client.ground_async("key", picture())  # not accepted yet
            closed.append(outcome(client.close))
            closed.append(task)

        timer = node.create_timer(0.001, close)
        until(lambda: len(closed) == 2, "the callback")
        assert closed[0] is None and isinstance(outcome(lambda: closed[1].result(LONG_S)), Cancelled)
        until(lambda: rig.node.statistics.snapshot().goals == 1 and rig.node.goals.count == 0, "the end of the goal")
        node.destroy_timer(timer)
        until(
            lambda: (len(list(node.clients)), len(list(node.waitables)), len(list(node.timers))) == before,
            "the removal of everything",
        )


def test_a_client_is_closed_in_a_callback_that_a_waiting_call_executes(rig, grounder, until):
    grounder.gate.clear()
    with users_node(rig) as node:
        client = GroundingClient(node=node)
        client.wait_until_active(LONG_S)
        closed, ended = [], []

        def close():
            if grounder.running:
                timer.cancel()
                closed.append(outcome(client.close))

        timer = node.create_timer(0.01, close)
        asking = threading.Thread(
            target=lambda: ended.append(outcome(lambda: client.ground("key", picture(), timeout=LONG_S))), daemon=True
        )
        asking.start()
        asking.join(20)
        assert not asking.is_alive(), "the call waits for ever"
        assert closed == [None] and isinstance(ended[0], Cancelled)
        until(lambda: rig.node.goals.count == 0, "the end of the goal")


def test_a_closed_client_says_so(rig):
    with users_node(rig) as node:
        for client in (GroundingClient(domain_id=rig.domain), GroundingClient(node=node)):
            client.wait_until_active(LONG_S)
            client.publish_query("key", LONG_S)
            stream = client.detections()
            client.close()
            client.close()
            assert client.cancel(), "nothing is left to cancel"
            assert list(stream) == []
            for call in (
                client.state,
                client.wait_until_active,
                lambda c=client: c.ground("key", picture()),
                lambda c=client: c.ground_async("key", picture()),
                lambda c=client: c.set_queries("key"),
                lambda c=client: c.set_queries_async("key"),
                lambda c=client: c.publish_query("key"),
                client.queries,
                client.clear_queries,
                client.pause,
                client.resume,
                client.status,
                client.detections,
            ):
                error = outcome(call)
                assert isinstance(error, NodeTrouble) and str(error) == CLOSED, call


def test_a_call_that_waits_on_another_thread_ends_with_the_client(rig):
    client = GroundingClient("/nobody", domain_id=rig.domain)
    ended = []
    waiting = threading.Thread(target=lambda: ended.append(outcome(client.wait_until_active)), daemon=True)
    waiting.start()
    client.close()
    waiting.join(20)
    assert len(ended) == 1 and isinstance(ended[0], NodeTrouble) and "/nobody is closed" in str(ended[0])


@pytest.mark.parametrize("order", ["node", "ROS", "node and ROS"])
def test_a_client_is_closed_after_its_node_or_ros(domain_of_nobody, order):
    context = Context()
    rclpy.init(context=context, domain_id=domain_of_nobody)
    node = Node("user", context=context, use_global_arguments=False)
    client = GroundingClient("/nobody", node=node)
    client.detections()
    call = client.set_queries_async("key")
    if "node" in order:
        node.destroy_node()
    if "ROS" in order:
        rclpy.shutdown(context=context)
    client.close()
    assert isinstance(outcome(call.result), Cancelled)
    if "ROS" not in order:
        rclpy.shutdown(context=context)


# --- awaited calls ---------------------------------------------------------------------------------------------------


def awaited(node, start):
    """The list into which the outcome of awaiting ``start()`` in a callback of ``node`` goes."""
    got = []

    async def ask():
        timer.cancel()
        try:
            got.append(await start())
        except Exception as error:
            got.append(error)

    timer = node.create_timer(0.001, ask)
    return got


def test_an_awaited_call_at_the_start_waits_for_the_discovery(rig, until):
    for i in range(3):
        with users_node(rig, SingleThreadedExecutor) as node, GroundingClient(node=node) as client:
            got = awaited(node, lambda: client.set_queries_async([f"key {i}"]))  # noqa: B023
            until(lambda: got, "the response")  # noqa: B023
            assert got == [(f"key {i}",)]


def test_an_awaited_call_whose_first_response_was_lost_is_repeated(rig, until, monkeypatch):
    monkeypatch.setattr(pending_calls, "RETRY_S", 0.2)
    with users_node(rig, SingleThreadedExecutor) as node, GroundingClient(node=node) as client:
        client.wait_until_active(LONG_S)
        service = client._client("set_queries")
        until(service.service_is_ready, "the service")
        call, sent = service.call_async, []

        def lose_the_first(request):
            sent.append(call(request))
            if len(sent) == 1:
                service.remove_pending_request(sent[0])  # as if it had never come
            return sent[-1]

        service.call_async = lose_the_first
        got = awaited(node, lambda: client.set_queries_async(["key"]))
        until(lambda: got, "the response")
        assert got == [("key",)] and len(sent) >= 2


def test_an_awaited_call_of_no_node_ends_with_an_error(rig, until, monkeypatch):
    monkeypatch.setattr(pending_calls, "ABSENT_S", 0.3)
    with users_node(rig, SingleThreadedExecutor) as node, GroundingClient("/nobody", node=node) as client:
        got = awaited(node, lambda: client.set_queries_async(["key"]))
        until(lambda: got, "the end")
        assert isinstance(got[0], NodeTrouble) and "/nobody/set_queries" in str(got[0]) and "running?" in str(got[0])


def test_an_awaited_call_ends_with_the_client(rig, until):
    with users_node(rig, SingleThreadedExecutor) as node:
        client = GroundingClient("/nobody", node=node)
        got = awaited(node, lambda: client.set_queries_async(["key"]))
        until(lambda: client._calls, "the call")
        client.close()
        until(lambda: got, "the end")
        assert isinstance(got[0], Cancelled) and "client was closed" in str(got[0])


def test_an_awaited_goal_ends_when_its_node_is_gone(rig, grounder, until, monkeypatch):
    monkeypatch.setattr(pending_calls, "ABSENT_S", 0.3)
    grounder.gate.clear()
    with users_node(rig, SingleThreadedExecutor) as node, GroundingClient(node=node) as client:
        client.wait_until_active(LONG_S)
        got = awaited(node, lambda: client.ground_async("key", picture()))
        until(lambda: grounder.running, "the model at work")
        monkeypatch.setattr(client._goals, "server_is_ready", lambda: False)  # what discovery says of a killed node
        until(lambda: got, "the end")
        assert isinstance(got[0], NodeTrouble) and "/grounding/ground" in str(got[0])


def test_a_call_that_timed_out_is_not_repeated(rig, until):
    with users_node(rig) as node, GroundingClient(node=node) as client:
        client.wait_until_active(LONG_S)
        client._client("set_queries").call_async = lambda request: pending_calls.Future()
        with pytest.raises(TimeoutError, match="set_queries did not answer"):
            client.set_queries("key", 0.3)
        assert not client._calls


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------

PROGRAM = """
import sys, numpy as np, rclpy
from rclpy.node import Node
from acs_ros.client import GroundingClient
rclpy.init()
client = GroundingClient(node=Node("user"))
client.wait_until_active(100)
try:
    client.ground("key", np.full((30, 40, 3), 90, np.uint8), timeout=100)
except BaseException as error:
    print(type(error).__name__)
"""


def test_ctrl_c_in_a_users_node_is_a_keyboard_interrupt(rig, grounder, until):
    grounder.gate.clear()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "ROS_DOMAIN_ID": str(rig.domain)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as program:
        until(lambda: grounder.running, "the model at work")
        program.send_signal(signal.SIGINT)
        said, _ = program.communicate(timeout=60)
    assert said == "KeyboardInterrupt\n"


def test_an_error_while_a_goal_is_cancelled_does_not_hide_the_first(rig, monkeypatch):
    waited = []
    with GroundingClient(domain_id=rig.domain) as client:
        client.wait_until_active(LONG_S)

        def shut_down(task, timeout):
            waited.append(timeout)
            raise NodeTrouble("ROS was shut down")

        monkeypatch.setattr(pending_calls.GroundingTask, "cancel", shut_down)
        monkeypatch.setattr(
            pending_calls.GroundingTask, "result", lambda task, timeout: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            client.ground("key", picture(), timeout=2.0)
        with pytest.raises(KeyboardInterrupt):
            client.ground("key", picture(), timeout=LONG_S)
        monkeypatch.undo()
    assert waited == [2.0, 5.0]
