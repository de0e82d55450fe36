"""One camera: its time stamps, its transports and its quality of service."""

from __future__ import annotations

import numpy as np
import pytest
import rclpy
from rclpy.context import Context
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String

from acs_ros.conversions.images import encode_jpeg
from acs_ros.node.camera import TimestampCheck, transport_topic
from acs_ros.rclpy_fixes import ThrottledLogger


@pytest.mark.parametrize(
    ("stamp", "now", "stale_after", "sim_time", "said"),
    [
        (100.0, 100.2, 5.0, False, ""),
        (90.0, 100.0, 5.0, False, "stamped 10.00 s ago"),
        (90.0, 1e8, 5.0, False, "stamped 1157 days ago"),
        (110.0, 100.0, 5.0, False, "stamped 10.00 s ahead"),
        (0.0, 100.0, 5.0, False, "no stamp"),
        (90.0, 100.0, 0.0, False, ""),
        (90.0, 0.0, 5.0, True, "nothing is published on /clock"),
        (90.0, 90.5, 5.0, True, ""),
        (
            90.0,
            1.7e9,
            5.0,
            False,
            "mixed: the last image on /camera/image was stamped 19676 days ago, and",
        ),
        (90.0, 1.7e9, 5.0, False, "goes by the wall clock: in a simulation start it with use_sim_time: true"),
        (1.7e9, 90.0, 5.0, True, "days ahead, and this node goes by the simulated time of /clock: start the cam"),
        (90.0, 1.7e9, 0.0, False, ""),
    ],
)
def test_stamps_are_judged_in_words(stamp, now, stale_after, sim_time, said):
    problem, backwards = TimestampCheck("/camera/image").judge(stamp, now, stale_after, sim_time)
    assert said in problem and bool(problem) is bool(said) and not backwards


def test_a_jump_back_is_told_apart_from_a_repeated_stamp():
    watch = TimestampCheck("/camera/image")
    judged = [watch.judge(stamp, stamp, 5.0, False) for stamp in (10.0, 10.0, 7.5, 8.0)]
    assert [backwards for _, backwards in judged] == [0, 0, 2.5, 0]
    assert "/camera/image jumped back by 2.50 s" in judged[2][0]


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
    until(lambda: rig.node.statistics.snapshot().bad_images == 1, "the empty one")
    assert "has no data" in rig.status()[1]
    broken = jpeg(80, 2)
    broken.data = broken.data[: len(broken.data) // 2]
    camera.publish(broken)
    until(lambda: rig.node.statistics.snapshot().failed == 1, "the broken one")
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
    until(lambda: rig.node.query_manager.queries == ("key",), "the latched query")
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
    until(lambda: rig.node.statistics.snapshot().image_qos_problem, "the mismatch")
    until(lambda: rig.status()[0] == ERROR, "the timeout")
    message = rig.status()[1]
    assert "RELIABILITY" in message and name in message


def test_nobody_publishing_is_told_and_ends_with_the_first_image(make_rig, grounder, image, until):
    rig = make_rig(lambda settings: grounder, image_timeout=0.2, initial_query="key")
    rig.activate()
    rig.peer.destroy_publisher(rig.images)
    until(lambda: "nobody publishes" in rig.status()[1], "the warning")
    assert rig.status()[0] == ERROR and "/grounding/image" in rig.status()[1]
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
    assert level == ERROR and "days ago" in message
    rig.images.publish(image(stamp=90))
    until(lambda: len(rig.detections) == 2, "an answer, even so")
    level, message, values = rig.status()
    assert level == ERROR and "jumped back by 10.00 s" in message and values["clock_jumps"] == "1"


def test_simulated_time_is_followed_and_its_jumps_are_told(make_rig, grounder, image, until):
    rig = make_rig(lambda settings: grounder, stale_after=5.0, use_sim_time=True, initial_query="key")
    rig.activate()
    rig.images.publish(image(stamp=100))
    until(lambda: rig.detections, "an answer")
    assert "nothing is published on /clock" in rig.node.statistics.snapshot().stamp_problem
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
    assert rig.node.statistics.snapshot().stamp_problem == ""
    tick(50)
    until(lambda: "jumped back by 51.00 s" in rig.node.statistics.snapshot().clock_problem, "the jump")


def test_mixed_clocks_are_told_first_while_other_things_fail(make_rig, grounder, image, until):
    rig = make_rig(lambda settings: grounder, stale_after=5.0, initial_query="key", use_depth=True)
    rig.activate()
    grounder.reason = "no box in all 2 responses: the model says the object is not there"
    rig.images.publish(image(stamp=100))
    until(lambda: rig.detections, "an answer")
    level, message, values = rig.status()
    assert level == ERROR and message.startswith(
        "simulated and wall time are mixed: the last image on /grounding/image"
    )
    assert "no camera info came" in values["other_problems"]
    assert values["last_abstention"] == f"'key': {grounder.reason}"


def test_a_clock_that_is_missing_is_told_before_any_image(make_rig, grounder, until):
    rig = make_rig(lambda settings: grounder, use_sim_time=True, initial_query="key")
    rig.activate()
    until(lambda: "nothing is published on /clock" in rig.diagnostics[-1].status[0].message, "the missing clock")


def test_silence_and_its_end_are_logged_once(make_rig, grounder, image, until):
    rig = make_rig(lambda settings: grounder, image_timeout=0.3, initial_query="key")
    rig.activate()
    lines: list[str] = []
    logger = RecordingLogger(lines)
    rig.node.reporter.log = ThrottledLogger(logger)
    until(lambda: lines, "the silence")
    assert lines == ["no images on /grounding/image for 0.3 s: a publisher is there, but sends nothing"]
    count = len(rig.diagnostics)
    until(lambda: len(rig.diagnostics) > count + 5, "more diagnostics")
    assert len(lines) == 1
    assert rig.node.set_parameters([Parameter("image_timeout", value=60.0)])[0].successful
    rig.images.publish(image())
    until(lambda: len(lines) > 1, "the end of the silence")
    assert lines[1:] == ["images come on /grounding/image again"]
    rig.peer.destroy_publisher(rig.images)
    rig.node.reporter.log = ThrottledLogger(logger)
    assert rig.node.set_parameters([Parameter("image_timeout", value=0.1)])[0].successful
    until(lambda: any("nobody publishes there" in line for line in lines[2:]), "the new reason")


def test_a_deactivated_node_does_not_say_that_images_come_again(make_rig, grounder, until):
    rig = make_rig(lambda settings: grounder, image_timeout=0.1, initial_query="key")
    rig.activate()
    lines: list[str] = []
    rig.node.reporter.log = ThrottledLogger(RecordingLogger(lines))
    until(lambda: lines, "the silence")
    assert rig.node.trigger_deactivate().name == "SUCCESS"
    count = len(rig.diagnostics)
    until(lambda: len(rig.diagnostics) > count + 2, "more diagnostics")
    assert not any("again" in line for line in lines)


class RecordingLogger:
    def __init__(self, lines: list[str]) -> None:
        self.info = self.warning = lines.append


def test_a_goal_for_a_silent_camera_is_told_of_that_camera(make_rig, grounder, image, until):
    rig = make_rig(lambda settings: grounder, cameras="left right", image_timeout=0.3)
    assert rig.node.trigger_configure().name == rig.node.trigger_activate().name == "SUCCESS"
    left = rig.peer.create_publisher(Image, "/grounding/left/image", 10)
    until(lambda: left.get_subscription_count() == 1, "the subscription")
    broken = image()
    broken.encoding = "16UC1"
    left.publish(broken)
    until(lambda: rig.node.statistics.snapshot().bad_images == 1, "the broken image")
    asked = rig.send_goal(phrase="key", camera="right")
    until(asked.done, "the acceptance")
    result = asked.result().get_result_async()
    until(result.done, "the result")
    assert result.result().result.message == ("no image came within 0.3 s: nobody publishes on /grounding/right/image")
    assert "that is a depth image" in rig.node.cameras.why_no_image("left")
    assert rig.status()[2]["last_image_problem"].startswith("left: unknown image encoding '16UC1'")


def test_depth_that_cannot_be_received_is_not_called_an_image_problem(make_rig, grounder, image, until):
    name = "qos_overrides./grounding/depth.subscription.reliability"
    rig = make_rig(lambda settings: grounder, use_depth=True, initial_query="key", **{name: "reliable"})
    rig.activate()
    rig.peer.create_publisher(Image, "/grounding/depth", QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
    until(lambda: rig.node.statistics.snapshot().depth_qos_problem, "the mismatch")
    assert rig.node.statistics.snapshot().image_qos_problem == ""
    rig.images.publish(image())
    until(lambda: rig.detections, "an answer")
    level, message, _ = rig.status()
    assert level == WARN and message.startswith("no place in space: a publisher on /grounding/depth offers an incompat")


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
    until(lambda: rig.node.statistics.snapshot().failed == 1, "the failure")
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


@pytest.mark.parametrize(
    ("rules", "transport", "topic"),
    [
        ([], "", "/grounding/image"),
        ([], "compressed", "/grounding/image/compressed"),
        (["~/image:=/camera/image_raw"], "", "/camera/image_raw"),
        (["~/image:=/camera/image_raw"], "compressed", "/camera/image_raw/compressed"),
        (["~/image:=/camera/image_raw", "~/image/compressed:=/other/jpeg"], "compressed", "/other/jpeg"),
        (["~/image/compressed:=/other/jpeg"], "compressed", "/other/jpeg"),
    ],
)
def test_the_topic_of_a_transport_follows_that_of_the_raw_images(rules, transport, topic):
    """As image_transport names it, which knows one rule for all transports."""
    context = Context()
    rclpy.init(context=context)
    try:
        arguments = ["--ros-args", *(part for rule in rules for part in ("-r", rule))]
        node = rclpy.create_node("grounding", context=context, cli_args=arguments)
        assert node.resolve_topic_name(transport_topic(node, "~/image", transport)) == topic
        node.destroy_node()
    finally:
        context.shutdown()


@pytest.mark.parametrize(
    ("read", "kind", "published", "said"),
    [
        ("raw", CompressedImage, "image/compressed", "/compressed is published: set image_transport: compressed"),
        ("compressed", Image, "image", " is published: set image_transport: raw"),
        (
            "raw",
            String,  # any type: that of theora's packets is not installed everywhere
            "image/theora",
            "/theora is published, which is not decoded here: let the driver publish raw or compressed images, or run "
            "image_transport's republish",
        ),
    ],
)
def test_images_of_another_transport_are_named(make_rig, grounder, until, read, kind, published, said):
    rig = make_rig(
        lambda settings: grounder, cameras="left", image_transport=read, image_timeout=0.1, initial_query="key"
    )
    rig.peer.create_publisher(kind, f"/grounding/left/{published}", 10)
    assert rig.node.trigger_configure().name == rig.node.trigger_activate().name == "SUCCESS"
    expected = f"; /grounding/left/image{said}"
    until(lambda: rig.status()[1].endswith(f"nobody publishes there{expected}"), "the status")
    topic = rig.node.cameras.inputs[0][1]
    assert rig.node.cameras.why_no_image("left") == f"nobody publishes on {topic}{expected}"
