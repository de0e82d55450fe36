import json

import cv2
import numpy as np
import pytest

from training.errors import DataError
from training.pairs import load_absent, load_pairs


def write(folder, annotations, width=100, height=100):
    content = {
        "categories": [{"id": 1, "name": "key"}, {"id": 2, "name": "cup"}],
        "images": [{"id": 7, "file_name": "a.png", "width": width, "height": height}],
        "annotations": [{"image_id": 7, "category_id": c, "bbox": b, **more} for c, b, more in annotations],
    }
    file = folder / "instances.json"
    file.write_text(json.dumps(content))
    (folder / "images").mkdir(exist_ok=True)
    cv2.imwrite(str(folder / "images" / "a.png"), np.full((height, width, 3), (1, 2, 3), np.uint8))
    return file


SMALL, LARGE = [10, 10, 5, 5], [10, 10, 50, 50]


@pytest.mark.parametrize(
    ("annotations", "single", "multiple"),
    [
        ([(1, SMALL, {})], ["7:key"], []),
        ([(1, LARGE, {})], [], []),
        ([(1, SMALL, {}), (2, SMALL, {})], ["7:cup", "7:key"], []),
        ([(1, SMALL, {}), (1, [40, 40, 6, 6], {})], [], ["7:key"]),
        ([(1, SMALL, {"iscrowd": 1})], [], []),
        ([(1, SMALL, {}), (1, LARGE, {})], [], []),
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


def test_a_pair_knows_its_boxes_and_reads_its_picture_as_rgb(tmp_path):
    (pair,) = load_pairs(write(tmp_path, [(1, SMALL, {})]))
    assert pair.truth[0].as_tuple() == (10, 10, 15, 15)
    assert pair.read()[0, 0].tolist() == [3, 2, 1]


def test_what_is_not_there_can_be_asked_for(tmp_path):
    (pair,) = load_absent(write(tmp_path, [(1, LARGE, {})]), limit=5)
    assert pair.key == "7:cup" and pair.truth == () and pair.file.name == "a.png"


def test_a_picture_that_shows_everything_has_nothing_absent(tmp_path):
    with pytest.raises(DataError, match="no image without some category"):
        load_absent(write(tmp_path, [(1, SMALL, {}), (2, SMALL, {})]), limit=5)


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
    (pair,) = load_pairs(write(tmp_path, [(1, SMALL, {})]))
    pair.file.unlink()
    with pytest.raises(DataError, match="no readable picture"):
        pair.read()
