from __future__ import annotations

import itertools
import threading

import pytest
from acs_msgs.srv import ListQueries, SetQueries
from lock_parts import WatchedLock
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

WARN = 1


def phrases(rig):
    return list(rig.call(ListQueries, "list_queries").phrases)


def test_queries_are_set_listed_and_cleared(rig, grounder, image, until):
    made = rig.call(SetQueries, "set_queries", phrases=[" key", "red  mug", "key"])
    assert made.success and list(made.phrases) == ["key", "red mug"] and made.message == "asking for 'key', 'red mug'"
    listed = rig.call(ListQueries, "list_queries")
    assert (list(listed.phrases), listed.mode, listed.paused, listed.goals) == (
        ["key", "red mug"],
        "continuous",
        False,
        0,
    )
    rig.images.publish(image())
    until(lambda: rig.detections, "an answer")
    cleared = rig.call(Trigger, "clear_queries")
    assert cleared.success and cleared.message == "2 standing queries cleared"
    assert phrases(rig) == []


def test_each_phrase_has_its_own_results(rig, grounder, image, until):
    rig.ask("key", "mug", "cup")
    rig.images.publish(image(stamp=4))
    until(lambda: rig.detections and len(rig.candidates) == 3, "the answers")
    assert [c.phrase for c in rig.candidates] == ["key", "mug", "cup"]
    assert {c.header.stamp.sec for c in rig.candidates} == {4}
    (answer,) = rig.detections
    assert [d.results[0].hypothesis.class_id for d in answer.detections] == ["key", "mug", "cup"]
    assert rig.node.statistics.snapshot().answered == 3


def test_who_reads_new_queries_gets_no_more_answers_for_the_old_ones(rig, grounder, image, until, monkeypatch):
    """The old answer goes out while the new queries are taken: nobody may be told of them before it has."""
    rig.ask("key")
    grounder.gate.clear()
    rig.images.publish(image())
    until(lambda: grounder.running, "the model at work")
    taken, go_on = threading.Event(), threading.Event()
    note = rig.node.statistics.set

    def slow_note(**changes):
        if "last_abstention" in changes and not taken.is_set():  # set_queries, before it stops the model
            taken.set()
            go_on.wait()
        note(**changes)

    monkeypatch.setattr(rig.node.statistics, "set", slow_note)
    rig.queries.publish(String(data="mug"))
    until(taken.is_set, "the new query to be taken")
    lock = WatchedLock(rig.node.query_manager._lock)
    monkeypatch.setattr(rig.node.query_manager, "_lock", lock)
    told = []
    reader = threading.Thread(target=lambda: told.append(rig.node.query_manager.queries))
    reader.start()
    lock.waits_or_ended(reader)
    try:
        assert not told
    finally:
        go_on.set()
    reader.join()
    assert told == [("mug",)]
    grounder.gate.set()
    until(lambda: rig.detections, "an answer")
    assert rig.detections[0].detections[0].results[0].hypothesis.class_id == "mug"


@pytest.mark.parametrize(
    ("wanted", "said"), [(["key", ""], "phrase 2 of 2"), ([f"t{i}" for i in range(9)], "more than max_queries")]
)
def test_what_cannot_be_asked_changes_nothing_and_says_why(rig, wanted, said):
    rig.ask("key")
    refused = rig.call(SetQueries, "set_queries", phrases=wanted)
    assert not refused.success and said in refused.message
    assert list(refused.phrases) == phrases(rig) == ["key"]


def test_a_pause_stops_the_model_and_the_camera_and_goes_on_where_it_was(rig, grounder, image, until):
    rig.ask("key")
    grounder.gate.clear()
    rig.images.publish(image(stamp=1))
    until(lambda: grounder.running, "the model at work")
    assert rig.call(SetBool, "pause", data=True).message == "paused"
    until(lambda: not grounder.running, "the model to stop")
    until(lambda: rig.images.get_subscription_count() == 0, "the camera to be left alone")
    level, message, values = rig.status()
    assert level == WARN and "paused" in message and values["paused"] == "true"
    assert rig.call(SetBool, "pause", data=True).message == "paused already"
    grounder.gate.set()
    assert rig.call(SetBool, "pause", data=False).message == "going on"
    rig.wait_for_match()
    rig.images.publish(image(stamp=2))
    until(lambda: rig.detections, "an answer")
    assert [d.header.stamp.sec for d in rig.detections] == [2] and phrases(rig) == ["key"]


def test_on_demand_the_camera_is_heard_only_while_an_answer_is_due(make_rig, grounder, image, until):
    rig = make_rig(lambda settings: grounder, mode="on_demand")
    assert rig.node.trigger_configure().name == rig.node.trigger_activate().name == "SUCCESS"
    until(lambda: rig.queries.get_subscription_count() == 1, "the query subscription")
    until(lambda: rig.peer.count_publishers("/grounding/detections") == 1, "the outputs")
    assert rig.images.get_subscription_count() == 0
    assert rig.status()[:2] == (0, "ready: waiting to be asked")
    for stamp, text in ((1, "key"), (2, "key"), (3, "mug")):  # the same phrase again asks again
        rig.queries.publish(String(data=text))
        until(lambda: rig.images.get_subscription_count() == 1, "the subscription")
        rig.images.publish(image(stamp=stamp))
        until(lambda stamp=stamp: len(rig.detections) == stamp, "the answer")
        until(lambda: rig.images.get_subscription_count() == 0, "the end of the subscription")
    assert [c[1] for c in grounder.calls] == ["key", "key", "mug"]


def test_the_mode_changes_while_the_node_is_active(rig, grounder, image, until):
    from rclpy.parameter import Parameter

    (outcome,) = rig.node.set_parameters([Parameter("mode", value="on_demand")])
    assert outcome.successful
    until(lambda: rig.images.get_subscription_count() == 0, "the camera to be left alone")
    (outcome,) = rig.node.set_parameters([Parameter("mode", value="continuous")])
    until(lambda: rig.images.get_subscription_count() == 1, "the camera to be heard again")


def test_frames_queries_answers_and_subscriptions_do_not_wait_for_each_other_in_a_ring(
    make_rig, grounder, image, until
):
    """Each holds a lock of its own while it needs the next one's: the camera set, the asker, the model's worker."""
    rig = make_rig(lambda settings: grounder, diagnostics_period=60.0)
    rig.activate()
    texts = itertools.cycle(["key", "mug", "key; mug"])
    timers = [
        rig.peer.create_timer(0.001, lambda: rig.images.publish(image())),
        rig.peer.create_timer(0.002, lambda: rig.queries.publish(String(data=next(texts)))),
        rig.node.create_timer(0.001, rig.node.cameras.demand_changed),
    ]
    until(lambda: rig.node.statistics.snapshot().answered > 300, "many answers")
    for timer in timers:
        timer.cancel()
    assert rig.status()[0] == 0
