"""Every image is counted once as received and once as what became of it."""

from __future__ import annotations

from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from acs_ros.ledger import FATES


def fates(rig):
    """What became of the images so far, less what did not happen."""
    facts = rig.node.ledger.facts()
    counted = {name: getattr(facts, name) for name in FATES}
    assert sum(counted.values()) == facts.images
    return {name: count for name, count in counted.items() if count}


def send(rig, until, msg):
    """Publish an image and wait until it is counted."""
    seen = rig.node.ledger.facts().images
    rig.images.publish(msg)
    until(lambda: rig.node.ledger.facts().images > seen, "the frame")


def at_rest(rig, until):
    worker = rig.node.asker._worker
    until(lambda: not (worker._waiting or worker.busy), "the model's rest")


def test_images_of_every_fate_add_up(rig, grounder, image, until):
    send(rig, until, image(stamp=1))
    rig.ask("key")
    broken = image(stamp=2)
    broken.step = 1
    send(rig, until, broken)
    grounder.error = RuntimeError("broken")
    send(rig, until, image(stamp=3))
    at_rest(rig, until)
    grounder.error = None
    grounder.gate.clear()
    send(rig, until, image(stamp=4))
    until(lambda: grounder.running, "the model at work")
    for stamp in (5, 6):
        send(rig, until, image(stamp=stamp))
    grounder.gate.set()
    until(lambda: len(rig.detections) == 2, "two answers")
    at_rest(rig, until)
    assert fates(rig) == {
        "images_without_query": 1,
        "bad_images": 1,
        "failed": 1,
        "replaced": 1,
        "frames_answered": 2,
    }
    assert rig.status()[2]["frames_answered"] == "2"


def test_a_pause_drops_what_waits_and_what_is_at_work(rig, grounder, image, until):
    rig.ask("key")
    grounder.gate.clear()
    send(rig, until, image(stamp=1))
    until(lambda: grounder.running, "the model at work")
    send(rig, until, image(stamp=2))
    assert rig.call(SetBool, "pause", data=True).success
    at_rest(rig, until)
    assert fates(rig) == {"dropped": 2}


def test_changed_queries_begin_a_frame_again_or_leave_it_to_a_newer_one(rig, grounder, image, until):
    rig.ask("key")
    grounder.gate.clear()
    send(rig, until, image(stamp=1))
    until(lambda: grounder.running, "the model at work")
    rig.ask("mug")
    until(lambda: len(grounder.calls) == 2, "the frame begun again")
    send(rig, until, image(stamp=2))
    rig.ask("cup")
    grounder.gate.set()
    until(lambda: rig.detections, "an answer")
    at_rest(rig, until)
    assert [d.header.stamp.sec for d in rig.detections] == [2]
    assert fates(rig) == {"dropped": 1, "frames_answered": 1}
    rig.ask("")
    assert fates(rig) == {"dropped": 1, "frames_answered": 1}


def test_an_answer_that_cannot_be_sent_is_a_failure_only(rig, image, until, monkeypatch):
    rig.ask("key")
    monkeypatch.setattr(rig.node.cameras, "publish", lambda answer: 1 / 0)
    send(rig, until, image())
    at_rest(rig, until)
    assert fates(rig) == {"failed": 1}


def test_on_demand_the_frames_that_nobody_asked_for_are_counted(rig, image, until):
    rig.ask("key")
    # What is already on its way when the camera is not wanted any more.
    (outcome,) = rig.node.set_parameters([Parameter("mode", value="on_demand")])
    assert outcome.successful
    camera = rig.node.cameras._cameras[""]
    rig.node.asker._due.clear()
    camera._on_image(image(stamp=1))
    assert fates(rig) == {"images_unasked": 1}


def test_a_frame_that_comes_after_the_pause_is_counted(rig, image):
    rig.ask("key")
    rig.node.asker.hold(True)
    rig.node.cameras._cameras[""]._on_image(image(stamp=1))
    assert fates(rig) == {"images_unasked": 1}
