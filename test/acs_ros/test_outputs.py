from __future__ import annotations

import io
import threading

import numpy as np
import PIL.Image
import pytest
from acs_msgs.srv import SetQueries
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool
from vision_msgs.msg import Detection2DArray, Detection3DArray, VisionInfo
from visualization_msgs.msg import Marker, MarkerArray

from acs_ros.image_conversion import fill_image, image_to_rgb

WARN = 1
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def calibrated(stamp: int = 1, width: int = 8, height: int = 6) -> CameraInfo:
    made = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
    made.k = [10.0, 0, width / 2, 0, 10, height / 2, 0, 0, 1]
    made.p = [10.0, 0, width / 2, 0, 0, 10, height / 2, 0, 0, 0, 1, 0]
    made.header.stamp.sec = stamp
    return made


def distances(value: int, stamp: int = 1) -> Image:
    msg = Image(height=6, width=8, encoding="16UC1", step=16)
    msg.data.frombytes(np.full((6, 8), value, "<u2").tobytes())
    msg.header.stamp.sec = stamp
    return msg


@pytest.mark.parametrize("topic", ["debug_image", "attention_image"])
def test_pictures_come_raw_and_compressed_and_only_for_listeners(rig, image, until, topic):
    rig.ask("key")
    rig.images.publish(image(stamp=1))
    until(lambda: rig.detections, "an answer")
    rig.rest()  # its pictures come after it
    raw = rig.listen(Image, f"/grounding/{topic}")
    packed = rig.listen(CompressedImage, f"/grounding/{topic}/compressed")
    rig.images.publish(image(stamp=2))
    until(lambda: raw and packed, "pictures")
    assert [m.header.stamp.sec for m in raw] == [2] == [m.header.stamp.sec for m in packed]
    picture = image_to_rgb(raw[0])
    with PIL.Image.open(io.BytesIO(bytes(packed[0].data))) as jpeg:
        assert jpeg.format == "JPEG" and jpeg.size == (picture.shape[1], picture.shape[0])
        assert abs(np.asarray(jpeg).astype(int) - picture).mean() < 8
    assert picture.std() > 5, "something is drawn"


def test_attention_is_asked_of_the_engine_only_for_a_listener(rig, grounder, image, until):
    rig.ask("key")
    rig.images.publish(image(stamp=1))
    until(lambda: rig.detections, "an answer")
    assert grounder.calls[0][2]["with_attention"] is False
    rig.listen(Image, "/grounding/attention_image")
    rig.images.publish(image(stamp=2))
    until(lambda: len(rig.detections) == 2, "an answer")
    assert grounder.calls[1][2]["with_attention"] is True


def test_the_method_is_told_to_who_comes_late(rig, until):
    heard = rig.listen(VisionInfo, "/grounding/vision_info", LATCHED)
    until(lambda: heard, "the info")
    assert heard[0].method == "fake on fake-model" and "class_id" in heard[0].database_location


@pytest.fixture
def depth_rig(make_rig, grounder, until):
    rig = make_rig(lambda settings: grounder, use_depth=True)
    rig.activate()
    rig.depths = rig.peer.create_publisher(Image, "/grounding/depth", 10)
    rig.infos = rig.peer.create_publisher(CameraInfo, "/grounding/camera_info", 10)
    until(lambda: rig.depths.get_subscription_count() == rig.infos.get_subscription_count() == 1, "the subscriptions")
    rig.places = rig.listen(Detection3DArray, "/grounding/detections_3d")
    rig.ask("key")
    return rig


def test_depth_gives_the_place_in_the_optical_frame(depth_rig, image, until):
    depth_rig.infos.publish(calibrated())
    depth_rig.depths.publish(distances(2000))
    until(lambda: depth_rig.node.cameras._cameras[""]._depths and depth_rig.node.cameras._cameras[""]._info, "both")
    depth_rig.images.publish(image())
    until(lambda: depth_rig.places, "a place")
    (found,) = depth_rig.places[0].detections
    assert depth_rig.places[0].header.frame_id == "camera_optical"
    hypothesis = found.results[0].hypothesis
    assert (hypothesis.class_id, hypothesis.score) == ("key", 0.75)
    centre, size = found.bbox.center.position, found.bbox.size
    # The box (1, 2, 4, 5) at 2 m with a focal length of 10 pixels and its principal point at (4, 3).
    assert (centre.x, centre.y, centre.z) == pytest.approx((-0.3, 0.1, 2.0))
    assert (size.x, size.y, size.z) == pytest.approx((0.6, 0.6, 0.01))
    assert found.results[0].pose.pose == found.bbox.center


@pytest.mark.parametrize(
    ("depth", "info", "said"),
    [
        (None, calibrated(), "no depth image within 0.05 s"),
        (distances(2000, stamp=9), calibrated(), "no depth image within 0.05 s"),
        (distances(2000), None, "no camera info came"),
        (distances(0), calibrated(), "0 of"),
        (distances(2000), CameraInfo(width=8, height=6), "no focal length"),
    ],
)
def test_without_a_place_the_boxes_still_come_and_the_reason_is_told(depth_rig, image, until, depth, info, said):
    camera = depth_rig.node.cameras._cameras[""]
    if info is not None:
        depth_rig.infos.publish(info)
        until(lambda: camera._info, "the camera info")
    if depth is not None:
        depth_rig.depths.publish(depth)
        until(lambda: camera._depths, "the depth image")
    depth_rig.images.publish(image())
    until(lambda: depth_rig.places and depth_rig.detections, "an answer")
    assert not depth_rig.places[0].detections and depth_rig.detections[0].detections
    level, message, _ = depth_rig.status()
    assert level == WARN and "no place in space" in message and said in message


def test_markers_are_cubes_with_depth_and_outlines_without(depth_rig, image, until):
    shown = depth_rig.listen(MarkerArray, "/grounding/markers")
    depth_rig.infos.publish(calibrated())
    until(lambda: depth_rig.node.cameras._cameras[""]._info, "the camera info")
    depth_rig.images.publish(image(stamp=1))
    until(lambda: shown, "markers")
    kinds = [m.type for m in shown[0].markers[1:]]
    assert shown[0].markers[0].action == Marker.DELETEALL
    assert kinds == [Marker.LINE_STRIP, Marker.TEXT_VIEW_FACING]
    assert {p.z for p in shown[0].markers[1].points} == {1.0}
    depth_rig.depths.publish(distances(2000, stamp=2))
    until(lambda: depth_rig.node.cameras._cameras[""]._depths, "the depth image")
    depth_rig.images.publish(image(stamp=2))
    until(lambda: len(shown) == 2, "markers")
    assert [m.type for m in shown[1].markers[1:]] == [Marker.CUBE, Marker.TEXT_VIEW_FACING]
    assert shown[1].markers[2].text == "key 0.75" and shown[1].markers[1].pose.position.z == 2.0


def test_two_cameras_have_their_own_topics(make_rig, grounder, image, until):
    rig = make_rig(lambda settings: grounder, cameras="left right")
    assert rig.node.trigger_configure().name == rig.node.trigger_activate().name == "SUCCESS"
    sides = {side: rig.peer.create_publisher(Image, f"/grounding/{side}/image", 10) for side in ("left", "right")}
    heard = {side: rig.listen(Detection2DArray, f"/grounding/{side}/detections") for side in sides}
    until(lambda: all(p.get_subscription_count() == 1 for p in sides.values()), "the subscriptions")
    until(lambda: rig.queries.get_subscription_count() == 1, "the query subscription")
    rig.ask("key")
    sides["left"].publish(image(10, stamp=1))
    sides["right"].publish(image(20, stamp=2))
    until(lambda: heard["left"] and heard["right"], "both answers")
    assert (heard["left"][0].header.stamp.sec, heard["right"][0].header.stamp.sec) == (1, 2)
    assert {int(c[0][0, 0, 0]) for c in grounder.calls} == {10, 20}


def textured(shift: int, stamp: int) -> Image:
    rng = np.random.default_rng(3)
    world = rng.integers(0, 255, (80, 160, 3), np.uint8)
    msg = fill_image(Image(), np.ascontiguousarray(world[:60, 40 - shift : 120 - shift]))
    msg.header.stamp.sec, msg.header.stamp.nanosec = 1, stamp * 100_000_000
    return msg


def test_tracks_follow_at_camera_rate_with_a_score_that_decays_and_ids_that_stay(make_rig, grounder, until):
    rig = make_rig(lambda settings: grounder, tracking=True, track_half_life=1.0, max_rate=0.001)
    rig.activate()
    tracks = rig.listen(Detection2DArray, "/grounding/tracks", QoSProfile(depth=50))
    rig.ask("key")
    rig.images.publish(textured(0, 0))
    until(lambda: rig.detections, "the answer")
    (found,) = rig.detections[0].detections
    assert found.id == "1"
    for step in range(1, 6):
        rig.images.publish(textured(2 * step, step))
        until(lambda step=step: len(tracks) == step + 1, "the track")
    (last,) = tracks[-1].detections
    assert last.id == "1" and tracks[-1].header.stamp.nanosec == 500_000_000
    assert last.bbox.center.position.x - found.bbox.center.position.x == pytest.approx(10, abs=1.5)
    scores = [t.detections[0].results[0].hypothesis.score for t in tracks[1:]]
    assert scores == sorted(scores, reverse=True) and scores[-1] == pytest.approx(0.75 * 0.5**0.5, rel=0.1)
    (outcome,) = rig.node.set_parameters([Parameter("max_rate", value=0.0)])
    assert outcome.successful
    until(lambda: len(rig.detections) >= 2, "the next answer")


class SlowPublisher:
    """Stands for the publisher of a picture whose listener is slow: it sends when ``gate`` opens."""

    def __init__(self) -> None:
        self.began, self.gate, self.sent = threading.Event(), threading.Event(), []

    def get_subscription_count(self):
        return 1

    def publish(self, message):
        self.began.set()
        assert self.gate.wait(60)
        self.sent.append(message)


@pytest.fixture
def slow(rig):
    made = SlowPublisher()
    pictures = rig.node.cameras._cameras[""].outputs.pictures
    real, pictures["debug_image", Image] = pictures["debug_image", Image], made
    yield made
    made.gate.set()
    pictures["debug_image", Image] = real


def test_services_and_answers_do_not_wait_for_pictures(rig, image, until, slow):
    """They were sent with the model's lock held, which services and frames need."""
    rig.ask("key")
    rig.images.publish(image(stamp=1))
    until(slow.began.is_set, "the picture on its way")
    until(lambda: rig.detections, "the answer, which goes first")
    assert rig.call(SetQueries, "set_queries", phrases=["mug"]).success
    assert rig.call(SetBool, "pause", data=True).success
    assert rig.call(SetBool, "pause", data=False).success
    assert rig.status()[2]["query"] == "mug"
    slow.gate.set()
    until(lambda: slow.sent, "the picture")
    assert slow.sent[0].header.stamp.sec == 1


def test_a_deactivation_lets_a_picture_out_and_none_after_it(rig, image, until, slow):
    rig.ask("key")
    rig.images.publish(image(stamp=1))
    until(slow.began.is_set, "the picture on its way")
    deactivation = threading.Thread(target=rig.node.trigger_deactivate)
    deactivation.start()
    until(lambda: not rig.node.cameras._open, "the deactivation")
    assert deactivation.is_alive() and not slow.sent
    slow.gate.set()
    deactivation.join(60)
    assert len(slow.sent) == 1


def test_a_picture_that_cannot_be_drawn_harms_no_answer(rig, image, until, slow, monkeypatch):
    monkeypatch.setattr("acs_ros.pictures.debug_picture", lambda *ignored: 1 / 0)
    rig.ask("key")
    for stamp in (1, 2):
        rig.images.publish(image(stamp=stamp))
        until(lambda stamp=stamp: len(rig.detections) == stamp, "an answer")
    assert rig.node.ledger.facts().failed == 0
