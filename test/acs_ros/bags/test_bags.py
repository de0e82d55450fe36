from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from std_msgs.msg import String

from acs_core.errors import ImageError
from acs_core.geometry import Box
from acs_ros.bags.bags import DEMO_BAG, FRAME_ID, BagFrame, BagWriter, frames_from_coco, read_bag, write_bag
from acs_ros.bags.make_bag import main as make_bag
from acs_ros.conversions.images import stamp_ns
from acs_ros.errors import BagError


def frames(count: int = 3) -> list[BagFrame]:
    rng = np.random.default_rng(1)
    return [
        BagFrame(
            stamp_ns=1_700_000_000_000_000_000 + i,
            image=rng.integers(0, 256, (6, 8, 3), dtype=np.uint8),
            truth=(("key", Box(0, 1, 2.5, 3)), ("mug", Box(4, 4, 8, 6)))[: i % 3],
        )
        for i in range(count)
    ]


def test_frames_survive_a_bag(tmp_path):
    given = frames()
    assert write_bag(tmp_path / "bag", iter(given)) == 3
    got = list(read_bag(tmp_path / "bag"))
    assert [(f.stamp_ns, f.truth, f.frame_id) for f in got] == [(f.stamp_ns, f.truth, FRAME_ID) for f in given]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(got, given, strict=True))


def test_headers_carry_the_stamp():
    frame = frames(1)[0]
    assert (frame.header.stamp.sec, frame.header.stamp.nanosec, frame.header.frame_id) == (1_700_000_000, 0, FRAME_ID)
    assert stamp_ns(frame.header) == frame.stamp_ns


def test_an_existing_bag_is_not_overwritten(tmp_path):
    write_bag(tmp_path / "bag", frames(1))
    with pytest.raises(BagError, match="exists already"):
        write_bag(tmp_path / "bag", frames(1))


def test_a_wrong_image_is_named(tmp_path):
    with pytest.raises(ImageError, match="expected an"):
        write_bag(tmp_path / "bag", [BagFrame(1, np.zeros((4, 4), np.uint8), ())])


def test_a_bag_of_something_else_says_what_it_has(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        bag.write("/chatter", String(data="hello"), 5)
    with pytest.raises(BagError, match=r"it has /chatter \(std_msgs/msg/String\)"):
        list(read_bag(tmp_path / "bag"))


def _damage(folder, what):
    if what == "no folder":
        return folder / "nothing"
    files = {"metadata": "metadata.yaml", "storage": "bag.mcap", "lost storage": "bag.mcap"}
    file = folder / files[what]
    if what == "lost storage":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:40])
    return folder


@pytest.mark.parametrize("what", ["no folder", "metadata", "storage", "lost storage"])
def test_damaged_bags_are_named(tmp_path, what):
    write_bag(tmp_path / "bag", frames())
    with pytest.raises(BagError, match="cannot read the bag"):
        list(read_bag(_damage(tmp_path / "bag", what)))


def coco(folder, *, file_name="a.png"):
    """Two pictures: the first with two cups and a key, the second with two cups only."""
    (folder / "images").mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(folder / "images" / name), np.full((20, 24, 3), (1, 2, 3), np.uint8))
    boxes = [
        (1, 1, [0, 0, 2, 2]),
        (1, 1, [5, 5, 2, 2]),
        (1, 2, [3, 4, 5, 6]),
        (2, 1, [0, 0, 2, 2]),
        (2, 1, [5, 5, 2, 2]),
    ]
    content = {
        "images": [{"id": 1, "file_name": file_name}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "key"}],
        "annotations": [{"image_id": i, "category_id": c, "bbox": b} for i, c, b in boxes],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "instances.json"


def test_coco_pictures_become_unambiguous_questions(tmp_path):
    (frame,) = frames_from_coco(coco(tmp_path), 10)
    assert frame.truth == (("key", Box(3, 4, 8, 10)),)
    assert frame.image.shape == (20, 24, 3) and tuple(frame.image[0, 0]) == (3, 2, 1)


@pytest.mark.parametrize(("bits", "white"), [(16, 15), (12, 255)])
def test_coco_says_how_many_bits_of_its_pictures_are_filled(tmp_path, bits, white):
    file = coco(tmp_path)
    cv2.imwrite(str(tmp_path / "images/a.png"), np.full((20, 24), 4095, np.uint16))
    file.write_text(file.read_text().replace('"a.png"', f'"a.png", "bits": {bits}'))
    (frame,) = frames_from_coco(file, 10)
    assert (frame.image == white).all()


@pytest.mark.parametrize("bits", ["8", '"12"', "null"])
def test_coco_with_bits_that_do_not_exist_is_named(tmp_path, bits):
    file = coco(tmp_path)
    file.write_text(file.read_text().replace('"a.png"', f'"a.png", "bits": {bits}'))
    with pytest.raises(BagError, match=r"cannot read the picture a.png of .*bits must be a whole number"):
        list(frames_from_coco(file, 10))


@pytest.mark.parametrize("content", ["", "[]", '{"images": []}', "{"])
def test_a_file_that_is_not_coco_is_named(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(BagError, match="not a COCO instances file"):
        list(frames_from_coco(tmp_path / "x.json", 1))


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(BagError, match=r"cannot read the picture lost.png"):
        list(frames_from_coco(coco(tmp_path, file_name="lost.png"), 1))


def test_the_command_makes_and_replaces_a_bag(tmp_path, capsys):
    arguments = [str(coco(tmp_path)), str(tmp_path / "bag")]
    assert make_bag(arguments) == 0
    assert "1 frames" in capsys.readouterr().out
    assert make_bag(arguments) == 1
    assert "exists already" in capsys.readouterr().err
    assert make_bag([*arguments, "--replace"]) == 0


def test_the_shipped_bag_is_small_and_every_frame_can_be_asked_about():
    shipped = list(read_bag(DEMO_BAG))
    assert len(shipped) >= 20 and all(f.truth for f in shipped)
    assert len({f.stamp_ns for f in shipped}) == len(shipped)
    assert sum(f.stat().st_size for f in DEMO_BAG.iterdir()) <= 6_000_000
    for frame in shipped:
        height, width = frame.image.shape[:2]
        assert all(box.clip(width, height) == box for _, box in frame.truth)


@pytest.mark.parametrize("stamp", [-1, 2**31 * 10**9])
def test_a_stamp_that_is_no_time_is_named(tmp_path, stamp):
    frame = frames(1)[0]
    message = frame.image_message
    message.header.stamp.sec, message.header.stamp.nanosec = (-1, 0) if stamp < 0 else (2**31 - 1, 10**9)
    with BagWriter(tmp_path / "bag") as bag:
        bag.write("/camera/image", message, 5)
    with pytest.raises(BagError, match="a stamp that is no time"):
        list(read_bag(tmp_path / "bag"))


@pytest.mark.parametrize("at", range(0, 400, 23))
def test_bytes_that_were_changed_are_named(tmp_path, at):
    write_bag(tmp_path / "bag", frames(1))
    file = tmp_path / "bag" / "bag.mcap"
    data = bytearray(file.read_bytes())
    data[at : at + 8] = b"\xff" * 8
    file.write_bytes(data)
    try:
        assert len(list(read_bag(tmp_path / "bag"))) <= 1
    except BagError as error:
        assert "bag" in str(error)


def test_a_bag_without_truth_gives_its_pictures(tmp_path):
    frame = frames(1)[0]
    with BagWriter(tmp_path / "bag") as bag:
        bag.write("/camera/image", frame.image_message, 5)
    (got,) = read_bag(tmp_path / "bag")
    assert got.truth == () and np.array_equal(got.image, frame.image)
