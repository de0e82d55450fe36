from __future__ import annotations

import numpy as np
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String

from acs_ros.frames import encode_jpeg

OK, WARN, ERROR = 0, 1, 2


def jpeg(value: int, stamp: int) -> CompressedImage:
    header = Header(frame_id="camera_optical")
    header.stamp.sec = stamp
    return encode_jpeg(np.full((48, 64, 3), value, np.uint8), header, 95)


def test_compressed_images_are_decoded_and_broken_ones_named(make_rig, grounder, until):
    rig = make_rig(lambda settings: grounder, image_transport="compressed")
    assert rig.node.trigger_configure().name == rig.node.trigger_activate().name == "SUCCESS"
    camera = rig.peer.create_publisher(CompressedImage, "/grounding/image/compressed", 10)
    until(lambda: camera.get_subscription_count() == rig.queries.get_subscription_count() == 1, "the match")
    until(lambda: rig.peer.count_publishers("/grounding/detections") == 1, "the outputs")
    rig.ask("key")
    camera.publish(CompressedImage(format="jpeg"))
    until(lambda: rig.node.ledger.facts().bad_images == 1, "the empty one")
    assert "has no data" in rig.status()[1]
    broken = jpeg(80, 2)
    broken.data = broken.data[: len(broken.data) // 2]
    camera.publish(broken)
    until(lambda: rig.node.ledger.facts().failed == 1, "the broken one")
    level, message, _ = rig.status()
    assert level == ERROR and "cannot be decoded" in message
    camera.publish(jpeg(80, 3))
    until(lambda: rig.detections, "an answer")
    assert rig.detections[0].header.stamp.sec == 3
    assert abs(int(grounder.calls[-1][0].mean()) - 80) <= 1


def test_quality_of_service_is_a_parameter_of_each_topic(make_rig, grounder, until):
    name = "qos_overrides./grounding/query.subscription.durability"
    rig = make_rig(lambda settings: grounder, **{name: "transient_local"})
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    rig.peer.destroy_publisher(rig.queries)  # a volatile publisher is not heard by a latched subscription
    rig.peer.create_publisher(String, "/grounding/query", latched).publish(String(data="key"))
    until(lambda: rig.node.asker.queries == ("key",), "the latched query")
    given = {p for p in rig.node._parameters if p.startswith("qos_overrides./grounding/query")}
    assert {p.rpartition(".")[2] for p in given} == {"reliability", "durability", "depth"}


def test_a_camera_whose_quality_of_service_does_not_fit_is_named(make_rig, grounder, until):
    name = "qos_overrides./grounding/image.subscription.reliability"
    rig = make_rig(lambda settings: grounder, image_timeout=0.2, **{name: "reliable"})
    rig.peer.destroy_publisher(rig.images)
    rig.images = rig.peer.create_publisher(
        Image, "/grounding/image", QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    )
    assert rig.node.trigger_configure().name == rig.node.trigger_activate().name == "SUCCESS"
    until(lambda: rig.node.ledger.facts().image_qos_problem, "the mismatch")
    until(lambda: rig.status()[0] == ERROR, "the timeout")
    message = rig.status()[1]
    assert "RELIABILITY" in message and name in message


def test_nobody_publishing_is_told_and_ends_with_the_first_image(make_rig, grounder, image, until):
    rig = make_rig(lambda settings: grounder, image_timeout=0.2, initial_query="key")
    rig.activate()
    rig.peer.destroy_publisher(rig.images)
    until(lambda: "nobody publishes" in rig.status()[1], "the warning")
    assert rig.status()[0] == WARN and "/grounding/image" in rig.status()[1]
    rig.images = rig.peer.create_publisher(Image, "/grounding/image", 10)
    until(lambda: rig.images.get_subscription_count() == 1, "the subscription")
    (outcome,) = rig.node.set_parameters([Parameter("image_timeout", value=60.0)])
    assert outcome.successful
    rig.images.publish(image())
    until(lambda: rig.detections, "an answer")
    assert rig.status()[:2] == (OK, "answering 'key'")


def test_stale_stamps_and_jumps_are_told_in_words(make_rig, grounder, image, until):
    rig = make_rig(lambda settings: grounder, stale_after=5.0, initial_query="key")
    rig.activate()
    rig.images.publish(image(stamp=100))
    until(lambda: rig.detections, "an answer")
    level, message, _ = rig.status()
    assert level == WARN and "days ago" in message
    rig.images.publish(image(stamp=90))
    until(lambda: len(rig.detections) == 2, "an answer, even so")
    level, message, values = rig.status()
    assert level == WARN and "jumped back by 10.00 s" in message and values["clock_jumps"] == "1"


def test_simulated_time_is_followed_and_its_jumps_are_told(make_rig, grounder, image, until):
    rig = make_rig(lambda settings: grounder, stale_after=5.0, use_sim_time=True, initial_query="key")
    rig.activate()
    rig.images.publish(image(stamp=100))
    until(lambda: rig.detections, "an answer")
    assert "nothing is published on /clock" in rig.node.ledger.facts().stamp_problem
    clock = rig.peer.create_publisher(Clock, "/clock", 10)
    until(lambda: clock.get_subscription_count() >= 1, "the time subscription")

    def tick(seconds: int) -> None:
        now = Clock()
        now.clock.sec = seconds
        clock.publish(now)
        until(lambda: rig.node.get_clock().now().nanoseconds == seconds * 10**9, "the time")

    tick(101)
    rig.images.publish(image(stamp=101))
    until(lambda: len(rig.detections) == 2, "an answer")
    assert rig.node.ledger.facts().stamp_problem == ""
    tick(50)
    until(lambda: "jumped back by 51.00 s" in rig.node.ledger.facts().clock_problem, "the jump")


def test_diagnostics_live_while_the_model_hangs(make_rig, grounder, image, until):
    rig = make_rig(lambda settings: grounder, hang_after=0.1, initial_query="key")
    rig.activate()
    grounder.gate.clear()
    rig.images.publish(image())
    until(lambda: grounder.running, "the model at work")
    seen = len(rig.diagnostics)
    until(lambda: len(rig.diagnostics) > seen + 2, "diagnostics by the timer")
    until(lambda: rig.diagnostics[-1].status[0].level[0] == ERROR, "the error")
    assert "it hangs" in rig.diagnostics[-1].status[0].message
    grounder.gate.set()


def test_a_model_out_of_memory_is_told_and_goes_on_with_the_next_frame(rig, grounder, image, until):
    rig.ask("key")
    grounder.error = RuntimeError("CUDA out of memory")
    rig.images.publish(image(stamp=1))
    until(lambda: rig.node.ledger.facts().failed == 1, "the failure")
    assert rig.status()[0] == ERROR and "CUDA out of memory" in rig.status()[1]
    grounder.error = None
    rig.images.publish(image(stamp=2))
    until(lambda: rig.detections, "an answer")
    assert rig.status()[0] == OK


def test_a_camera_whose_callback_group_was_left_taken_is_heard_again(rig, image, until):
    """As rclpy leaves it when a QoS event is about to be read of a subscription that is being destroyed."""
    camera = rig.node.cameras._cameras[""]
    subscription = camera._subscriptions[0]
    assert subscription.callback_group.beginning_execution(subscription)
    assert rig.node.trigger_deactivate().name == "SUCCESS"
    assert rig.node.trigger_activate().name == "SUCCESS"
    rig.wait_for_match()
    rig.ask("key")
    rig.images.publish(image())
    until(lambda: rig.detections, "an answer")
