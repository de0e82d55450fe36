import json

import pytest

from training.coco import load_pairs
from training.synth import write_coco


def test_the_world_reads_back_as_coco(tmp_path):
    file = write_coco(tmp_path, "val", 12)
    content = json.loads(file.read_text())
    assert len(content["images"]) == 12 and len(list((tmp_path / "images").iterdir())) == 12
    assert [a["id"] for a in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    pairs = load_pairs(file)
    for pair in pairs:
        image = pair.read()
        box = pair.truth[0]
        assert image.shape == (224, 224, 3)
        assert 0.001 <= box.area / 224**2 <= 0.01


def test_a_longer_split_begins_with_the_shorter_and_splits_differ(tmp_path):
    short, long, other = (
        json.loads(write_coco(tmp_path / str(k), split, count).read_text())["annotations"]
        for k, (split, count) in enumerate((("train", 2), ("train", 4), ("test", 2)))
    )
    assert long[: len(short)] == short
    assert [a["bbox"] for a in other] != [a["bbox"] for a in short]


@pytest.mark.parametrize(("split", "count", "message"), [("dev", 3, "train, val, test"), ("val", 0, "at least 1")])
def test_bad_arguments(tmp_path, split, count, message):
    with pytest.raises(ValueError, match=message):
        write_coco(tmp_path, split, count)
