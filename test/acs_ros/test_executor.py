"""No exception out of a callback ends the executor, whichever kind the callback is of."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
import rclpy
from acs_msgs.action import Ground
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters, SetParametersAtomically
from rclpy.action import ActionClient, ActionServer
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.context import Context
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String
from std_srvs.srv import SetBool

from acs_ros.rclpy_fixes import FaultTolerantExecutor, checked_clock, failed_response, name_of, spin_tolerant


class Bug(Exception):
    """What the callbacks of these tests raise."""


class ExecutorBench:
    """A node whose callbacks are to raise, on an executor of its own, and what the executor told."""

    def __init__(self, domain: int) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = Node("bench", context=self.context)
        self.told: list[tuple[str, str]] = []
        self.executor = FaultTolerantExecutor(
            3, lambda name, error: self.told.append((name, str(error))), context=self.context
        )
        self.executor.add_node(self.node)
        self._done = threading.Event()
        self.ended: list[Exception] = []
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            spin_tolerant(
                self.executor, self._done.is_set, lambda error: self.told.append(("the executor", str(error)))
            )
        except Exception as error:
            self.ended.append(error)

    def close(self) -> None:
        self._done.set()
        self._thread.join()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)
        assert self.ended == []


@pytest.fixture
def bench(domain):
    made = ExecutorBench(domain)
    yield made
    made.close()


def raises(*_):
    raise Bug("a bug")


def call(bench, until, kind, name, callback=None, **fields):
    client = bench.node.create_client(kind, name)
    until(client.service_is_ready, name)
    future = client.call_async(kind.Request(**fields))
    until(future.done, f"an answer of {name}")
    return future.result()


def works(bench, until):
    """Each callback group still takes messages, rclpy's own services with them."""
    answer = call(bench, until, GetParameters, "/bench/get_parameters", names=["use_sim_time"])
    assert answer.values[0].type == 1


def test_subscriptions_timers_and_guards_go_on(bench, until):
    heard = []
    bench.node.create_subscription(String, "a", lambda msg: heard.append(msg.data) or raises(), 10)
    publisher = bench.node.create_publisher(String, "a", 10)
    bench.node.create_timer(0.01, raises)
    guard = bench.node.create_guard_condition(raises)
    until(publisher.get_subscription_count, "the subscription")
    for text in ("one", "two"):
        publisher.publish(String(data=text))
        until(lambda t=text: t in heard, text)
        guard.trigger()
    until(lambda: {name for name, _ in bench.told} >= {"/a", "Timer", "GuardCondition"}, "all to be told")
    assert {text for _, text in bench.told} == {"a bug"}
    works(bench, until)


def test_a_failure_that_cannot_be_reported_leaves_its_subscription_free(bench, until, monkeypatch, capfd):
    """What ``failed`` raises itself went through the handler, and the entity was never waited for again."""
    heard, broken = [], []

    def cannot_report(name, error):
        if name == "/a":
            broken.append(str(error))
            raise Bug("the disk is full")

    monkeypatch.setattr(bench, "told", SimpleNamespace(append=lambda told: cannot_report(*told)))
    group = MutuallyExclusiveCallbackGroup()
    hear = lambda msg: heard.append(msg.data) or raises()  # noqa: E731
    bench.node.create_subscription(String, "a", hear, 10, callback_group=group)
    publisher = bench.node.create_publisher(String, "a", 10)
    take = bench.executor._take_subscription

    def cannot(subscription):
        work = take(subscription)
        if subscription.topic_name == "/a" and not broken:
            raise Bug("no UTF-8")
        return work

    monkeypatch.setattr(bench.executor, "_take_subscription", cannot)
    until(publisher.get_subscription_count, "the subscription")
    publisher.publish(String(data="one"))  # cannot be taken
    until(lambda: broken, "the failed report")
    for count in (1, 2):
        publisher.publish(String(data="two"))
        until(lambda n=count: len(heard) >= n, "the next message")
    until(lambda: "the disk is full" in capfd.readouterr().err, "the log")
    works(bench, until)


def test_a_message_that_cannot_be_taken_leaves_its_subscription_and_group_free(bench, until, monkeypatch):
    """rclpy marks an entity as taken before it takes; an error in between left it so, and its group."""
    heard = []
    group = MutuallyExclusiveCallbackGroup()
    bench.node.create_subscription(String, "a", lambda msg: heard.append(msg.data), 10, callback_group=group)
    publisher = bench.node.create_publisher(String, "a", 10)
    take, broken = bench.executor._take_subscription, [True]

    def cannot(subscription):
        work = take(subscription)
        if subscription.topic_name == "/a" and broken:
            broken.clear()
            raise Bug("no UTF-8")
        return work

    # Taken at the moment that rclpy makes a handler.
    monkeypatch.setattr(bench.executor, "_take_subscription", cannot)
    until(publisher.get_subscription_count, "the subscription")
    publisher.publish(String(data="bad"))
    until(lambda: bench.told, "the error")
    publisher.publish(String(data="good"))
    until(lambda: heard == ["good"], "the next message")
    assert bench.told == [("/a", "no UTF-8")]


def test_a_service_that_raised_answers_that_it_failed_and_goes_on(bench, until):
    fail = [True]

    def answer(request, response):
        if fail:
            raise Bug("a bug")
        response.success = True
        return response

    bench.node.create_service(SetBool, "set", answer)
    refused = call(bench, until, SetBool, "set")
    assert not refused.success and refused.message == "Bug: a bug"
    fail.clear()
    assert call(bench, until, SetBool, "set").success
    assert bench.told == [("/set", "a bug")]


def parameter(name, **value):
    return Parameter(name=name, value=ParameterValue(**value))


@pytest.mark.parametrize("kind", [10, 200, 255])
def test_parameters_of_no_type_are_refused_by_rclpys_own_services(bench, until, kind):
    bench.node.declare_parameter("x", 1)
    good, bad = parameter("x", type=2, integer_value=5), parameter("x", type=kind)
    answer = call(bench, until, SetParameters, "/bench/set_parameters", parameters=[good, bad, good])
    assert [r.successful for r in answer.results] == [True, False, False]
    assert str(kind) in answer.results[1].reason
    refused = call(bench, until, SetParametersAtomically, "/bench/set_parameters_atomically", parameters=[bad])
    assert not refused.result.successful and str(kind) in refused.result.reason
    assert len(bench.told) == 2
    assert bench.node.get_parameter("x").value == 5
    works(bench, until)


def test_actions_go_on(bench, until):
    server = ActionServer(bench.node, Ground, "ground", raises, goal_callback=raises, handle_accepted_callback=raises)
    client = ActionClient(bench.node, Ground, "ground")
    until(client.server_is_ready, "the action")
    client.send_goal_async(Ground.Goal())
    until(lambda: ("ActionServer", "a bug") in bench.told, "the goal to be told")
    server.register_goal_callback(lambda goal: rclpy.action.GoalResponse.ACCEPT)
    accepted = client.send_goal_async(Ground.Goal())
    until(accepted.done, "the acceptance")
    until(lambda: bench.told.count(("ActionServer", "a bug")) == 2, "the accepted goal to be told")
    works(bench, until)
    client.destroy()
    server.destroy()


def test_tasks_and_what_the_waiting_raises_are_told_too(bench, until, monkeypatch):
    bench.executor.create_task(raises)
    until(lambda: ("the executor", "a bug") in bench.told, "the task")
    wait, broken = bench.executor.wait_for_ready_callbacks, [True]

    def cannot(*args, **kwargs):
        if broken:
            broken.clear()
            raise Bug("no wait set")
        return wait(*args, **kwargs)

    monkeypatch.setattr(bench.executor, "wait_for_ready_callbacks", cannot)
    until(lambda: ("the executor", "no wait set") in bench.told, "the waiting")
    works(bench, until)


def test_after_the_shutdown_no_callback_runs(bench, until):
    """rclpy of Jazzy did not wait for them, and they met a destroyed node."""
    began, ended = [], []

    def outlasts_the_shutdown():
        began.append(True)
        until(lambda: bench.executor._is_shutdown, "the shutdown")
        time.sleep(0.1)  # the shutdown has nothing else to do
        ended.append(True)

    bench.node.create_guard_condition(outlasts_the_shutdown).trigger()
    until(lambda: began, "the callback")
    bench.executor.shutdown()
    assert ended


def test_a_response_without_room_for_a_reason_stays_empty():
    answer = failed_response(GetParameters.Request(names=["x"]), GetParameters.Response(), "why")
    assert list(answer.values) == []


def test_names():
    assert name_of(SimpleNamespace(topic_name="/a")) == "/a"
    assert name_of(SimpleNamespace(service_name="/s")) == "/s"
    assert name_of(SimpleNamespace()) == "SimpleNamespace"


@pytest.mark.parametrize(("sec", "nanosec"), [(-1, 0), (-(2**31), 5), (2**31 - 1, 2**32 - 1), (0, 10**9)])
def test_times_that_are_none_do_not_reach_the_clock(sec, nanosec):
    taken = []
    msg = Clock()
    msg.clock.sec, msg.clock.nanosec = sec, nanosec
    with pytest.raises(ValueError, match="/clock says"):
        checked_clock(taken.append)(msg)
    msg.clock.sec, msg.clock.nanosec = 2**31 - 1, 10**9 - 1
    checked_clock(taken.append)(msg)
    assert taken == [msg]
