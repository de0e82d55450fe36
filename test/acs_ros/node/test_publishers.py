from __future__ import annotations

import io
import threading

import numpy as np
import PIL.Image
import pytest
from acs_msgs.srv import SetQueries
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_srvs.srv import SetBool
from vision_msgs.msg import Detection2DArray, Detection3DArray, LabelInfo, VisionInfo
from visualization_msgs.msg import Marker, MarkerArray

from acs_ros.conversions.images import fill_image, image_to_rgb

OK, WARN = 0, 1
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def calibrated(stamp: int = 1, width: int = 8, height: int = 6) -> CameraInfo:
    made = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
    made.k = [10.0, 0, width / 2, 0, 10, height / 2, 0, 0, 1]
    made.p = [10.0, 0, width / 2, 0, 0, 10, height / 2, 0, 0, 0, 1, 0]
    made.header.stamp.sec, made.header.frame_id = stamp, "camera_optical"
    return made


def cropped() -> CameraInfo:
    """That of a sensor of 16 x 10 pixels, of which the image shows the middle."""
    made = calibrated(width=16, height=10)
    made.roi = RegionOfInterest(x_offset=4, y_offset=2, width=8, height=6)
    return made


def distances(
    value: float, stamp: int = 1, frame: str = "camera_optical", size: tuple[int, int] = (8, 6), kind: str = "16UC1"
) -> Image:
    width, height = size
    pixels = np.full((height, width), value, "<f4" if kind == "32FC1" else "<u2")
    msg = Image(height=height, width=width, encoding=kind, step=width * pixels.itemsize)
    msg.data.frombytes(pixels.tobytes())
    msg.header.stamp.sec, msg.header.frame_id = stamp, frame
    return msg


def test_the_standing_queries_are_published_as_labels(make_rig, grounder, until):
    rig = make_rig(lambda settings: grounder, initial_query="key; red mug", min_score=0.25)
    rig.activate()
    labels = rig.listen(LabelInfo, "/grounding/label_info", LATCHED)
    until(lambda: labels, "the latched labels, for a subscriber that came late")

    def last():
        return [(c.class_id, c.class_name) for c in labels[-1].class_map], round(labels[-1].threshold, 3)

    assert last() == ([(0, "key"), (1, "red mug")], 0.25) and labels[-1].header.stamp.sec > 0
    assert rig.call(SetQueries, "set_queries", phrases=["cup"]).success
    until(lambda: last() == ([(0, "cup")], 0.25), "the new query")
    rig.node.set_parameters([Parameter("min_score", value=0.5)])
    until(lambda: last() == ([(0, "cup")], 0.5), "the new threshold")
    count = len(labels)
    rig.call(SetQueries, "set_queries", phrases=["cup"])
    rig.node.set_parameters([Parameter("samples", value=4)])
    rig.call(SetQueries, "set_queries", phrases=[])
    until(lambda: last() == ([], 0.5), "no query")
    assert len(labels) == count + 1, "only changes are published"


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
def make_depth_rig(make_rig, grounder, until):
    def make(**parameters):
        rig = make_rig(lambda settings: grounder, use_depth=True, **parameters)
        rig.activate()
        rig.depths = rig.peer.create_publisher(Image, "/grounding/depth", 10)
        rig.infos = rig.peer.create_publisher(CameraInfo, "/grounding/camera_info", 10)
        until(lambda: rig.depths.get_subscription_count() == rig.infos.get_subscription_count() == 1, "subscriptions")
        rig.places = rig.listen(Detection3DArray, "/grounding/detections_3d")
        rig.ask("key")
        return rig

    return make


@pytest.fixture
def depth_rig(make_depth_rig):
    return make_depth_rig()


def test_depth_gives_the_place_in_the_optical_frame(depth_rig, image, until):
    depth_rig.infos.publish(calibrated())
    depth_rig.depths.publish(distances(2000))
    until(lambda: all(depth_rig.node.cameras._cameras[""].synchronizer.counts), "both")
    depth_rig.images.publish(image())
    until(lambda: depth_rig.places and depth_rig.detections, "a place")
    (found,) = depth_rig.places[0].detections
    assert depth_rig.places[0].header.frame_id == "camera_optical"
    hypothesis = found.results[0].hypothesis
    assert (hypothesis.class_id, hypothesis.score) == ("key", 0.75)
    centre, size = found.bbox.center.position, found.bbox.size
    # The box (1, 2, 4, 5) at 2 m with a focal length of 10 pixels and its principal point at (4, 3).
    assert (centre.x, centre.y, centre.z) == pytest.approx((-0.3, 0.1, 2.0))
    assert (size.x, size.y, size.z) == pytest.approx((0.6, 0.6, 0.01))
    assert found.results[0].pose.pose == found.bbox.center
    (flat,) = depth_rig.detections[0].detections
    assert flat.results[0].pose.pose == found.bbox.center  # the same frame: that of the image


def test_depth_may_come_by_the_compressed_depth_transport(make_rig, grounder, image, until):
    rig = make_rig(lambda settings: grounder, use_depth=True, depth_transport="compressedDepth")
    rig.activate()
    depths = rig.peer.create_publisher(CompressedImage, "/grounding/depth/compressedDepth", 10)
    infos = rig.peer.create_publisher(CameraInfo, "/grounding/camera_info", 10)
    until(lambda: depths.get_subscription_count() == infos.get_subscription_count() == 1, "subscriptions")
    places = rig.listen(Detection3DArray, "/grounding/detections_3d")
    rig.ask("key")
    infos.publish(calibrated())
    png = io.BytesIO()
    PIL.Image.fromarray(np.full((6, 8), 2000, np.uint16)).save(png, "PNG")
    msg = CompressedImage(header=calibrated().header, format="16UC1; compressedDepth png")
    msg.data = bytes(12) + png.getvalue()
    depths.publish(msg)
    until(lambda: all(rig.node.cameras._cameras[""].synchronizer.counts), "both")
    rig.images.publish(image())
    until(lambda: places, "a place")
    assert places[0].detections[0].bbox.center.position.z == 2.0 and rig.status()[0] == OK
    msg.header.stamp.sec, msg.data = 2, bytes(50)
    depths.publish(msg)
    until(lambda: rig.node.cameras._cameras[""].synchronizer._depths[-1].header.stamp.sec == 2, "the broken one")
    rig.images.publish(image(stamp=2))
    until(lambda: len(places) == 2, "an answer")
    assert "the compressed depth image ('16UC1; compressedDepth png', 50 bytes) cannot be decoded" in rig.status()[1]


@pytest.mark.parametrize(
    ("depth", "info", "said"),
    [
        (None, calibrated(), "no depth image within 0.05 s"),
        (distances(2000, stamp=9), calibrated(), "no depth image within 0.05 s"),
        (distances(2000), None, "no camera info came"),
        (distances(0), calibrated(), "0 of"),
        (distances(2000), CameraInfo(width=8, height=6, header=calibrated().header), "no focal length"),
        (
            distances(2000),
            calibrated(width=80, height=60),
            "8 x 6 pixels, the camera info is for 80 x 60",
        ),
        (
            distances(2000),
            CameraInfo(width=8, height=6),
            "info on /grounding/camera_info is in the frame ''",
        ),
        (distances(2000, frame="depth_optical"), calibrated(), "depth is in the frame 'depth_optical', the image in"),
        (distances(2000, size=(8, 4)), calibrated(), "depth image has 8 x 4 pixels, the image 8 x 6: another view"),
        (distances(1500, kind="32FC1"), calibrated(), "in millimetres, that is 1.5 m: set depth_unit: 0.001"),
        (
            distances(2000, stamp=9),
            calibrated(),
            "/grounding/depth is stamped 8.00 s after it; raise depth_tol",
        ),
        (None, calibrated(), "a publisher is on /grounding/depth, but nothing came"),
    ],
)
def test_without_a_place_the_boxes_still_come_and_the_reason_is_told(depth_rig, image, until, depth, info, said):
    camera = depth_rig.node.cameras._cameras[""]
    if info is not None:
        depth_rig.infos.publish(info)
        until(lambda: camera.synchronizer.counts[1], "the camera info")
    if depth is not None:
        depth_rig.depths.publish(depth)
        until(lambda: camera.synchronizer.counts[0], "the depth image")
    depth_rig.images.publish(image())
    until(lambda: depth_rig.places and depth_rig.detections, "an answer")
    assert not depth_rig.places[0].detections and depth_rig.detections[0].detections
    level, message, _ = depth_rig.status()
    assert level == WARN and "no place in space" in message and said in message


@pytest.mark.parametrize(
    ("parameters", "depth", "info", "place"),
    [
        ({}, distances(1.5, kind="32FC1"), calibrated(), (-0.225, 0.075, 1.5)),
        ({"depth_unit": 0.001}, distances(1500, kind="32FC1"), calibrated(), (-0.225, 0.075, 1.5)),
        ({}, distances(2000, frame="/camera_optical"), calibrated(), (-0.3, 0.1, 2.0)),
        ({"accept_other_frames": True}, distances(2000, frame="other"), calibrated(), (-0.3, 0.1, 2.0)),
        ({}, distances(2000, size=(16, 12)), calibrated(), (-0.3, 0.1, 2.0)),
        # The pixel (2.5, 3.5) of the crop is (6.5, 5.5) of the sensor, whose principal point is (8, 5).
        ({}, distances(2000), cropped(), (-0.3, 0.1, 2.0)),
        ({"accept_scaled_images": True}, distances(2000), calibrated(width=16, height=12), (-0.6, 0.2, 2.0)),
        ({"max_depth": 3000.0}, distances(1500, kind="32FC1"), calibrated(), (-225.0, 75.0, 1500.0)),
    ],
)
def test_the_place_is_right_when_the_parameters_say_how(make_depth_rig, image, until, parameters, depth, info, place):
    rig = make_depth_rig(**parameters)
    rig.infos.publish(info)
    rig.depths.publish(depth)
    until(lambda: all(rig.node.cameras._cameras[""].synchronizer.counts), "both")
    rig.images.publish(image())
    until(lambda: rig.places, "an answer")
    (found,) = rig.places[0].detections
    centre = found.bbox.center.position
    assert (centre.x, centre.y, centre.z) == pytest.approx(place)
    assert rig.status()[0] == OK


def test_markers_are_cubes_with_depth_and_outlines_without(depth_rig, image, until):
    shown = depth_rig.listen(MarkerArray, "/grounding/markers")
    depth_rig.infos.publish(calibrated())
    until(lambda: depth_rig.node.cameras._cameras[""].synchronizer.counts[1], "the camera info")
    depth_rig.images.publish(image(stamp=1))
    until(lambda: shown, "markers")
    kinds = [m.type for m in shown[0].markers[1:]]
    assert shown[0].markers[0].action == Marker.DELETEALL
    assert kinds == [Marker.LINE_STRIP, Marker.TEXT_VIEW_FACING]
    assert {p.z for p in shown[0].markers[1].points} == {1.0}
    depth_rig.depths.publish(distances(2000, stamp=2))
    until(lambda: depth_rig.node.cameras._cameras[""].synchronizer.counts[0], "the depth image")
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


def test_tracks_that_are_ready_when_the_camera_is_left_are_not_sent(make_rig, grounder, monkeypatch):
    rig = make_rig(lambda settings: grounder, tracking=True)
    rig.activate()
    camera, sent = rig.node.cameras._cameras[""], []
    make = camera.outputs.tracks_message
    monkeypatch.setattr(camera.outputs.tracks, "publish", sent.append)
    camera._on_image(textured(0, 0))
    assert len(sent) == 1
    monkeypatch.setattr(camera.outputs, "tracks_message", lambda *about: camera.ignore() or make(*about))
    camera._on_image(textured(0, 1))
    assert len(sent) == 1


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
    until(lambda: rig.node.cameras._wants_frames is None, "the deactivation")
    assert deactivation.is_alive() and not slow.sent
    slow.gate.set()
    deactivation.join(60)
    assert len(slow.sent) == 1


def test_a_picture_that_cannot_be_drawn_harms_no_answer(rig, image, until, slow, monkeypatch):
    monkeypatch.setattr("acs_ros.conversions.overlays.debug_picture", lambda *ignored: 1 / 0)
    rig.ask("key")
    for stamp in (1, 2):
        rig.images.publish(image(stamp=stamp))
        until(lambda stamp=stamp: len(rig.detections) == stamp, "an answer")
    assert rig.node.statistics.snapshot().failed == 0
