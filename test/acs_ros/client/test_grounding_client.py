"""The client of programs: by itself, in a user's node, on the threads of an executor."""

from __future__ import annotations

import threading

import numpy as np
import PIL.Image
import pytest
import rclpy
from acs_msgs.msg import CandidateArray
from client_parts import picture, users_node
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
from sensor_msgs.msg import RegionOfInterest

import acs_ros.client
from acs_core.errors import Cancelled, ImageError, PhraseError
from acs_core.geometry import Box
from acs_ros.client import GroundingClient, pending_calls
from acs_ros.client.goal_message import make_goal
from acs_ros.conversions.detections import region_from_message, region_to_message
from acs_ros.errors import NodeTrouble

LONG_S = 120.0


@pytest.fixture
def client(rig):
    with GroundingClient(domain_id=rig.domain) as made:
        made.wait_until_active(LONG_S)
        yield made


# --- by itself -------------------------------------------------------------------------------------------------------


def test_a_phrase_is_grounded_in_a_picture(rig, client, grounder):
    stages = []
    reply = client.ground(
        " the  key ",
        picture(),
        timeout=LONG_S,
        samples=4,
        multiple=True,
        min_score=0.25,
        deadline=100.0,
        on_stage=lambda stage, elapsed: stages.append((stage, elapsed)),
    )
    assert [(f.phrase, f.score, f.box) for f in reply.objects] == [("the key", 0.75, Box(1, 2, 4, 5))]
    assert reply.best == reply.objects[0] and reply.reason == ""
    assert isinstance(reply.result.candidates, CandidateArray) and len(reply.result.candidates.candidates) == 2
    image, phrase, options = grounder.calls[0]
    assert image.shape == (30, 40, 3) and phrase == "the key"
    assert (options["sampling"].num_samples, options["multiple"], options["min_score"]) == (4, True, 0.25)
    assert 0 < options["deadline_ms"] <= 100_000
    assert "sampling" in [stage for stage, _ in stages] and all(elapsed >= 0 for _, elapsed in stages)


@pytest.mark.parametrize("kind", ["file", "message", "compressed message"])
def test_a_picture_may_be_a_file_or_a_message(client, grounder, image, tmp_path, kind):
    if kind == "message":
        given = image(90, width=40, height=30)
    else:
        given = tmp_path / "photo.png"
        PIL.Image.fromarray(picture()).save(given)
        if kind == "compressed message":
            given = make_goal("key", given)[0].compressed_image
    assert client.ground("key", given, timeout=LONG_S).best
    assert grounder.calls[0][0].shape == (30, 40, 3) and int(grounder.calls[0][0].mean()) == 90


def test_the_next_frame_of_the_camera_is_used_without_a_picture(rig, client, image):
    streaming = rig.peer.create_timer(0.02, lambda: rig.images.publish(image(stamp=7)))
    reply = client.ground("key", timeout=LONG_S)
    streaming.cancel()
    assert reply.header.stamp.sec == 7 and reply.header.frame_id == "camera_optical"


def test_nothing_found_is_a_reply_with_the_reason(client, grounder):
    grounder.reason = "best score 0.10 is below 0.30"
    reply = client.ground("key", picture(), timeout=LONG_S)
    assert reply.objects == () and reply.best is None and reply.reason == grounder.reason


def test_an_aborted_goal_raises_what_the_node_says(client):
    with pytest.raises(NodeTrouble, match="no camera 'left'"):
        client.ground("key", camera="left", timeout=LONG_S)
    with pytest.raises(NodeTrouble, match="the phrase is empty"):
        client.ground(" ", picture(), timeout=LONG_S)


def test_a_picture_that_cannot_be_sent_is_refused_here(client, tmp_path):
    with pytest.raises(ImageError, match="expected an"):
        client.ground("key", np.zeros((3, 4)))
    with pytest.raises(FileNotFoundError):
        client.ground("key", tmp_path / "none.png")


def test_a_goal_is_sent_and_cancelled(rig, client, grounder, until):
    grounder.gate.clear()
    task = client.ground_async("key", picture())
    until(lambda: grounder.running, "the model at work")
    until(lambda: task.stage == "sampling", "the feedback")
    assert not task.done
    assert client.cancel(LONG_S)
    with pytest.raises(Cancelled):
        task.result(LONG_S)
    grounder.gate.set()
    until(lambda: not grounder.running and rig.node.goals.count == 0, "the end")
    assert client.cancel(0.0), "nothing is left to cancel"


def test_a_goal_that_is_cancelled_before_it_was_accepted_ends(rig, client, grounder, until):
    grounder.gate.clear()
    task = client.ground_async("key", picture())
    task.cancel()
    with pytest.raises(Cancelled):
        task.result(LONG_S)
    until(lambda: rig.node.goals.count == 0, "the end of the goal")


def test_a_timeout_cancels_the_goal(rig, client, grounder, until):
    grounder.gate.clear()
    with pytest.raises(TimeoutError, match=r"/grounding/ground did not answer within 0\.\d+ s$"):
        client.ground("key", picture(), timeout=0.5)
    until(lambda: rig.node.goals.count == 0, "the end of the goal")


def test_queries_are_set_listed_cleared_and_paused(rig, client):
    assert client.set_queries([" the  key ", "mug"], LONG_S) == ("the key", "mug") == client.queries(LONG_S)
    with pytest.raises(PhraseError, match="300 characters"):
        client.set_queries("x" * 300, LONG_S)
    assert client.queries(LONG_S) == rig.node.query_manager.queries == ("the key", "mug")
    assert client.pause(LONG_S) == "paused" and rig.node.query_manager.held
    assert client.status(LONG_S).paused
    assert client.resume(LONG_S) == "going on" and not rig.node.query_manager.held
    assert client.clear_queries(LONG_S) == "2 standing queries cleared" and rig.node.query_manager.queries == ()
    assert client.set_queries("red; mug", LONG_S) == ("red; mug",), "one phrase, as it is"


def test_detections_come_as_an_iterator_and_to_a_callback(rig, client, image, until):
    heard = []
    client.detections(heard.append)
    with client.detections(timeout=LONG_S) as stream:
        until(lambda: rig.node.cameras._cameras[""].outputs.detections.get_subscription_count() == 3, "the match")
        client.set_queries(["key", "mug"], LONG_S)
        for stamp in (1, 2):
            rig.images.publish(image(stamp=stamp))
            frame = next(stream)
            assert frame.header.stamp.sec == stamp and [f.phrase for f in frame.objects] == ["key", "mug"]
            assert frame.best == frame.objects[0] and len(frame.message.detections) == 2
        until(lambda: len(heard) == 2, "the callback")
        threading.Timer(0.1, stream.close).start()
        assert list(stream) == [], "a loop ends with its stream"
    assert [f.header.stamp.sec for f in heard] == [1, 2]


def test_a_stream_keeps_the_newest_frames(rig, client, image, until):
    stream = client.detections(timeout=LONG_S)
    until(lambda: rig.node.cameras._cameras[""].outputs.detections.get_subscription_count() == 2, "the match")
    client.set_queries("key", LONG_S)
    for stamp in range(1, 15):
        rig.images.publish(image(stamp=stamp))
        until(lambda: rig.detections and rig.detections[-1].header.stamp.sec == stamp, f"answer {stamp}")  # noqa: B023
    until(lambda: stream._frames[-1].header.stamp.sec == 14, "the last answer")
    assert [next(stream).header.stamp.sec for _ in range(10)] == list(range(5, 15))


def test_a_stream_that_stays_silent_says_so(rig, client):
    with pytest.raises(TimeoutError, match=r"nothing came on /grounding/detections within 0\.1 s$"):
        next(client.detections(timeout=0.1))
    with pytest.raises(TypeError, match="leave the callback out"):
        next(client.detections(lambda frame: None))


def test_a_node_that_is_not_there_is_named(rig):
    with GroundingClient("nobody", domain_id=rig.domain) as client:
        for call in (
            lambda: client.ground("key", timeout=0.1),
            lambda: client.set_queries("key", 0.1),
            lambda: client.publish_query("key", 0.1),
        ):
            with pytest.raises(TimeoutError, match=r"/nobody/.* is the node running"):
                call()
        with pytest.raises(TimeoutError, match="no such node"):
            client.wait_until_active(0.1)
        with pytest.raises(NodeTrouble, match="is the node running"):
            client.ground_async("key")


def test_a_wait_for_a_node_that_is_not_there_says_so_once(rig, capfd, monkeypatch):
    monkeypatch.setattr(pending_calls, "NOTICE_S", 0.05)
    with GroundingClient("nobody", domain_id=rig.domain, name="asker") as client:
        with pytest.raises(TimeoutError, match=r"/nobody was not active within 0\.5 s: no such node was found"):
            client.wait_until_active(0.5)
        said = capfd.readouterr().err
        assert said.count("no node /nobody seen yet") == 1 and "[asker]" in said
        monkeypatch.setattr(client._waiter, "_step", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt) as stopped:
            client.wait_until_active()
        assert [step.name for step in stopped.traceback[1:]] == ["wait_until_active"]


def test_waiting_for_a_node_that_loads(make_rig, grounder):
    rig = make_rig(lambda settings: grounder)
    with GroundingClient(domain_id=rig.domain) as client:
        assert client.state(LONG_S) == "unconfigured"
        with pytest.raises(TimeoutError, match=r"/grounding was not active within 0\.1 s"):
            client.wait_until_active(0.1)
        starting = threading.Timer(0.2, lambda: (rig.node.trigger_configure(), rig.node.trigger_activate()))
        starting.start()
        client.wait_until_active(LONG_S)
        assert client.state(LONG_S) == "active"
        starting.join()


# --- in a user's node ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", [None, SingleThreadedExecutor, MultiThreadedExecutor])
def test_calls_work_in_a_users_node(rig, executor, image, until):
    with users_node(rig, executor) as node, GroundingClient(node=node) as client:
        client.wait_until_active(LONG_S)
        assert client.ground("key", picture(), timeout=LONG_S).best
        stream = client.detections(timeout=LONG_S)
        assert client.set_queries("mug", LONG_S) == ("mug",)
        until(lambda: rig.node.cameras._cameras[""].outputs.detections.get_subscription_count() == 2, "the match")
        rig.images.publish(image(stamp=3))
        assert next(stream).objects[0].phrase == "mug"


def test_a_node_that_was_removed_from_its_executor_is_executed_here(rig, grounder):
    with users_node(rig) as node, GroundingClient(node=node) as client:
        client.wait_until_active(LONG_S)
        rclpy.spin_once(node, executor=SingleThreadedExecutor(context=node.context), timeout_sec=0.01)
        grounder.gate.clear()
        threads = []
        node.create_timer(
            0.01, lambda: (threads.append(threading.get_ident()), grounder.running and grounder.gate.set())
        )
        assert client.ground("key", picture(), timeout=LONG_S).best, "the node's timer opened the gate"
        assert set(threads) == {threading.get_ident()}


def test_calls_work_in_the_callbacks_of_an_executor_with_threads(rig, until):
    replies = []
    with users_node(rig, MultiThreadedExecutor) as node, GroundingClient(node=node) as client:
        client.wait_until_active(LONG_S)

        def ask():
            timer.cancel()
            replies.append((client.ground("key", picture(), timeout=LONG_S), client.set_queries("mug", LONG_S)))

        timer = node.create_timer(0.01, ask, callback_group=MutuallyExclusiveCallbackGroup())
        until(lambda: replies, "the replies")
    assert replies[0][0].best and replies[0][1] == ("mug",)


def test_calls_can_be_awaited_in_a_callback_of_one_thread(rig, until):
    replies, refused = [], []
    with users_node(rig, SingleThreadedExecutor) as node, GroundingClient(node=node) as client:
        client.wait_until_active(LONG_S)

        async def ask():
            timer.cancel()
            for call in (lambda: client.ground("key"), lambda: client.set_queries("cup")):
                try:
                    call()
                except RuntimeError as error:
                    refused.append(str(error))
            replies.append(await client.ground_async("key", picture()))
            replies.append(await client.set_queries_async(["mug"]))
            try:
                await client.ground_async("", picture())
            except NodeTrouble as error:
                replies.append(error)

        timer = node.create_timer(0.01, ask)
        until(lambda: len(replies) == 3, "the replies")
    assert replies[0].best and replies[1] == ("mug",) and "the phrase is empty" in str(replies[2])
    assert len(refused) == 2 and "await it" in refused[0], "instead of waiting for ever"
    assert rig.node.statistics.snapshot().goals == 2


def test_an_executor_that_nobody_spins_is_named(rig):
    with users_node(rig) as node, GroundingClient(node=node) as client:
        client.wait_until_active(LONG_S)
        executor = SingleThreadedExecutor(context=node.context)
        executor.add_node(node)
        with pytest.raises(TimeoutError, match="the executor of /user executes no callbacks"):
            client.state(0.1)
        executor.remove_node(node)
        executor.shutdown()


def test_closing_leaves_nothing_in_a_users_node(rig):
    with users_node(rig) as node:

        def entities():
            return [len(list(kind)) for kind in (node.clients, node.subscriptions, node.publishers, node.waitables)]

        before = entities()
        with GroundingClient(node=node) as client:
            client.detections()
            client.publish_query("key", LONG_S)
            assert entities() != before
        assert entities() == before


# --- records ---------------------------------------------------------------------------------------------------------


def test_the_public_names_are_there():
    for name in acs_ros.client.__all__:
        assert getattr(acs_ros.client, name).__name__ == name and name in dir(acs_ros.client)
    with pytest.raises(AttributeError):
        getattr(acs_ros.client, "Nothing")  # noqa: B009


@pytest.mark.parametrize(
    ("region", "x", "y", "width", "height"),
    [
        (None, 0, 0, 0, 0),
        (Box(1, 2, 5, 9), 1, 2, 4, 7),
        (Box(1.5, 2.5, 4.5, 8.1), 1, 2, 4, 7),
        (Box(-3, -1, 5, 9), 0, 0, 5, 9),
        (RegionOfInterest(x_offset=3, width=2, height=1), 3, 0, 2, 1),
    ],
)
def test_a_region_becomes_whole_pixels(region, x, y, width, height):
    made = region_to_message(region)
    assert (made.x_offset, made.y_offset, made.width, made.height) == (x, y, width, height)
    back = region_from_message(made)
    assert back == (None if region is None else Box(x, y, x + width, y + height))


def test_a_region_without_area_is_refused():
    with pytest.raises(ImageError, match="has no area"):
        region_to_message(Box(5, 5, 5, 9))
    with pytest.raises(ImageError, match="all zero is the whole image"):
        region_from_message(RegionOfInterest(x_offset=3))
