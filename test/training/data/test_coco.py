import json

import cv2
import numpy as np
import pytest

from training.data.coco import read_coco
from training.data.pairs import choose_pairs, load_absent, load_pairs
from training.data.pictures import read_picture
from training.errors import DataError


def write(folder, annotations, width=100, height=100, file_name="a.png"):
    content = {
        "categories": [{"id": 1, "name": "key"}, {"id": 2, "name": "cup"}],
        "images": [{"id": 7, "file_name": file_name, "width": width, "height": height}],
        "annotations": [{"image_id": 7, "category_id": c, "bbox": b, **more} for c, b, more in annotations],
    }
    file = folder / "instances.json"
    file.write_text(json.dumps(content))
    (folder / "images").mkdir(exist_ok=True)
    cv2.imwrite(str(folder / "images" / "a.png"), np.full((height, width, 3), (1, 2, 3), np.uint8))
    return file


RED, BLUE = ({"attributes": {"colour": colour, "occluded": False}} for colour in ("red", "blue"))
SMALL, MEDIUM, LARGE = [10, 10, 5, 5], [10, 10, 15, 15], [10, 10, 50, 50]


@pytest.mark.parametrize(
    ("annotations", "single", "multiple"),
    [
        ([(1, SMALL, {})], ["7:key"], []),
        ([(1, LARGE, {})], [], []),
        ([(1, SMALL, {}), (2, SMALL, {})], ["7:cup", "7:key"], []),
        ([(1, SMALL, {}), (1, [40, 40, 6, 6], {})], [], ["7:key"]),
        ([(1, SMALL, {"iscrowd": 1})], [], []),
        ([(1, SMALL, {"isfake": 1})], [], []),
        ([(1, SMALL, {}), (1, LARGE, {})], [], []),
        ([(1, SMALL, {}), (1, [1, 2], {})], [], []),
        ([(1, SMALL, RED), (1, [40, 40, 6, 6], BLUE)], ["7:blue key", "7:red key"], ["7:key"]),
        ([(1, SMALL, RED), (1, LARGE, BLUE), (1, LARGE, BLUE)], ["7:red key"], []),
        ([(1, SMALL, RED), (1, [40, 40, 6, 6], {})], [], ["7:key"]),
        ([(1, SMALL, RED), (1, [40, 40, 6, 6], BLUE | {"iscrowd": 1})], [], []),
    ],
)
def test_which_pairs_qualify(tmp_path, annotations, single, multiple):
    file = write(tmp_path, annotations)
    for wanted, several in ((single, False), (multiple, True)):
        if wanted:
            assert [p.key for p in load_pairs(file, multiple=several)] == wanted
        else:
            with pytest.raises(DataError, match="no pair"):
                load_pairs(file, multiple=several)


@pytest.mark.parametrize(
    ("annotations", "sizes", "objects", "found"),
    [
        ([(1, SMALL, {}), (2, LARGE, {})], ["small", "large"], "single", {"7:key": "small", "7:cup": "large"}),
        ([(1, SMALL, {}), (2, LARGE, {})], ["large"], "any", {"7:cup": "large"}),
        ([(1, MEDIUM, {}), (2, LARGE, {}), (2, LARGE, {})], ["medium", "large"], "several", {"7:cup": "several large"}),
        (
            [(1, MEDIUM, {}), (1, MEDIUM, {}), (2, SMALL, {})],
            ["small", "medium"],
            "any",
            {"7:key": "several medium", "7:cup": "small"},
        ),
        ([(1, [10, 10, 10, 10], {})], ["small", "medium"], "single", {"7:key": "small"}),
    ],
)
def test_pairs_of_every_size_know_their_kind(tmp_path, annotations, sizes, objects, found):
    pairs = choose_pairs(read_coco(write(tmp_path, annotations)), sizes, objects)
    assert {p.key: p.kind for p in pairs} == found


def test_a_limit_draws_the_same_pairs_again(tmp_path):
    data = read_coco(write(tmp_path, [(1, SMALL, {}), (2, SMALL, {})]))
    (first,) = choose_pairs(data, limit=1, seed=1)
    assert choose_pairs(data, limit=1, seed=1) == [first]
    assert {choose_pairs(data, limit=1, seed=s)[0].key for s in range(8)} == {"7:cup", "7:key"}


def test_an_unknown_size_is_said(tmp_path):
    with pytest.raises(DataError, match="unknown size huge: choose of small, medium, large"):
        choose_pairs(read_coco(write(tmp_path, [(1, SMALL, {})])), ["huge"])


def test_a_pair_knows_its_boxes_and_reads_its_picture_as_rgb(tmp_path):
    (pair,) = load_pairs(write(tmp_path, [(1, SMALL, {})]))
    assert pair.truth[0].as_tuple() == (10, 10, 15, 15)
    assert pair.read()[0, 0].tolist() == [3, 2, 1]


def test_objects365_pictures_are_found_below_their_written_path(tmp_path):
    file = write(tmp_path, [(1, SMALL, {})], file_name="images/v1/patch8/a.png")
    (tmp_path / "images" / "patch8").mkdir()
    (tmp_path / "images" / "a.png").rename(tmp_path / "images" / "patch8" / "a.png")
    (pair,) = load_pairs(file)
    assert pair.file == tmp_path / "images" / "patch8" / "a.png" and pair.read().shape == (100, 100, 3)


def test_what_is_not_there_can_be_asked_for(tmp_path):
    (pair,) = load_absent(write(tmp_path, [(1, LARGE, {})]), limit=5)
    assert pair.key == "7:cup" and pair.truth == () and pair.file.name == "a.png"


@pytest.mark.parametrize("second", [SMALL, [1, 2]])
def test_a_picture_that_shows_everything_has_nothing_absent(tmp_path, second):
    with pytest.raises(DataError, match="no image without some category"):
        load_absent(write(tmp_path, [(1, SMALL, {}), (2, second, {})]), limit=5)


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        ((1, [1, 2], {}), "bbox is not four numbers"),
        ((1, "box", {}), "bbox is not four numbers"),
        ((1, [1, 2, float("nan"), 4], {}), "bbox is not four numbers"),
        ((1, [10, 10, 0, 5], {}), "box without area"),
        ((1, [200, 10, 5, 5], {}), "box outside the image"),
        ((1, [90, 10, 50, 5], {}), "box partly outside the image"),
        ((99, SMALL, {}), "without a known category"),
        ((None, SMALL, {}), "without a known category"),
        ((1, SMALL, {"image_id": 8}), "of an image that is not listed"),
        ((1, SMALL, {"image_id": [1]}), "of an image that is not listed"),
        ((1, [1, 2, 10**400, 4], {}), "bbox is not four numbers"),
    ],
)
def test_bad_annotations_are_counted_and_left_out(tmp_path, annotation, problem):
    data = read_coco(write(tmp_path, [annotation, annotation, (2, SMALL, {"id": 5})]))
    ((kind, count),) = data.problems.counts.items()
    assert problem in kind and count == 2 and f"2 x {kind} (the first: " in data.problems.lines()[0]
    assert [o.name for o in data.images[0].objects] == ["cup"]


@pytest.mark.parametrize("colour", [3, "dark red", "x" * 30, None])
def test_a_colour_that_is_no_word_is_counted_and_left_out(tmp_path, colour):
    data = read_coco(write(tmp_path, [(1, SMALL, {"attributes": {"colour": colour}}), (2, SMALL, RED)]))
    assert [o.colour for o in data.images[0].objects] == ["", "red"]
    assert "colour left out" in data.problems.lines()[0]


def test_a_box_that_sticks_out_by_a_pixel_is_clipped(tmp_path):
    data = read_coco(write(tmp_path, [(1, [-1, 10, 7, 5], {})]))
    assert data.images[0].objects[0].box.as_tuple() == (0, 10, 6, 15) and not data.problems.counts


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"images": 3}', '{"categories": [], "images": [], "annotations": [{}]}']
)
def test_damaged_annotations_are_named(tmp_path, text):
    file = tmp_path / "instances.json"
    file.write_text(text)
    for load in (load_pairs, lambda f: load_absent(f, limit=1)):
        with pytest.raises(DataError, match=r"instances\.json"):
            load(file)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        load_pairs(tmp_path / "none.json")
    with pytest.raises(DataError, match=r"none\.png does not exist"):
        read_picture(tmp_path / "none.png")


def test_an_id_of_another_type_does_no_harm(tmp_path):
    data = read_coco(write(tmp_path, [(1, SMALL, {"id": {"a": []}}), (2, SMALL, {"id": None})]))
    assert len(data.images[0].objects) == 2 and not data.problems.counts


@pytest.mark.parametrize("name", ["/etc/passwd", "../../secret.png", "a/../../b.png", "a\0b.png", "", "n" * 5000])
def test_names_that_lead_out_of_the_picture_folder_are_left_out(tmp_path, name):
    file = write(tmp_path, [(1, SMALL, {})])
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = name
    file.write_text(json.dumps(content))
    data = read_coco(file)
    assert not data.images and "file_name inside the folder" in data.problems.lines()[-1] + data.problems.lines()[0]


@pytest.mark.parametrize("change", [{"width": 10**400}, {"height": float("inf")}, {"id": 1.5}])
def test_sizes_that_no_picture_has_are_left_out(tmp_path, change):
    file = write(tmp_path, [(1, SMALL, {})])
    content = json.loads(file.read_text())
    content["images"][0] |= change
    file.write_text(json.dumps(content))
    assert not read_coco(file).images


def test_nesting_without_end_is_named(tmp_path):
    (tmp_path / "instances.json").write_text("[" * 10**5)
    with pytest.raises(DataError, match="not JSON text"):
        read_coco(tmp_path / "instances.json")
