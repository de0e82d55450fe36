import json

import pytest
from PIL import Image

from acs_core.errors import OutputError
from training.data.pairs import load_pairs
from training.world.scene import SPLIT_SEEDS
from training.world.sprites import category_names
from training.world.synth import write_coco


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return {split: write_coco(folder / split, split, 12) for split in SPLIT_SEEDS}


@pytest.mark.parametrize("split", SPLIT_SEEDS)
def test_the_files_are_coco(written, split):
    content = json.loads(written[split].read_text())
    assert {c["id"]: c["name"] for c in content["categories"]} == dict(enumerate(category_names(), start=1))
    assert [image["id"] for image in content["images"]] == list(range(1, 13))
    assert [a["id"] for a in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    sizes = {}
    for image in content["images"]:
        with Image.open(written[split].parent / "images" / image["file_name"]) as picture:
            assert picture.format == "JPEG" and picture.size == (image["width"], image["height"])
        sizes[image["id"]] = picture.size
    assert {a["image_id"] for a in content["annotations"]} == set(sizes)
    for a in content["annotations"]:
        x, y, w, h = a["bbox"]
        assert 0 <= x < x + w <= sizes[a["image_id"]][0] and 0 <= y < y + h <= sizes[a["image_id"]][1]
        assert 0 < a["area"] <= w * h and a["iscrowd"] == 0
        assert 1 <= a["category_id"] <= len(category_names())


def test_our_own_reader_finds_small_objects(written):
    pairs = load_pairs(written["val"])
    assert len(pairs) > 12
    for pair in pairs:
        height, width = pair.read().shape[:2]
        assert 0.001 <= pair.truth[0].area / (height * width) <= 0.01


def test_the_number_of_workers_changes_nothing(written, tmp_path):
    file = write_coco(tmp_path, "val", 18, workers=2)
    short, long = (json.loads(f.read_text()) for f in (written["val"], file))
    assert long["images"][:12] == short["images"]
    assert long["annotations"][: len(short["annotations"])] == short["annotations"]
    for image in short["images"]:
        name = image["file_name"]
        assert (tmp_path / "images" / name).read_bytes() == (written["val"].parent / "images" / name).read_bytes()


def test_shifted_pictures_are_compressed_harder(written):
    def table(split):
        with Image.open(written[split].parent / "images" / f"{split}_000000.jpg") as picture:
            return sum(picture.quantization[0])

    assert table("shifted") > 2 * table("test")


def test_an_unfinished_folder_does_not_look_finished(written, tmp_path):
    class WritingStopped(Exception):
        pass

    def stop(done, total):
        raise WritingStopped

    write_coco(tmp_path, "val", 1)
    with pytest.raises(WritingStopped):
        write_coco(tmp_path, "val", 2, progress=stop)
    left = json.loads((tmp_path / "instances.json").read_text())  # the earlier data set, whole
    assert [image["file_name"] for image in left["images"]] == [f.name for f in (tmp_path / "images").iterdir()]
    with pytest.raises(WritingStopped):
        write_coco(tmp_path / "new", "val", 2, progress=stop)
    assert not (tmp_path / "new" / "instances.json").exists()
    assert not (tmp_path / "new" / "images").exists()


def test_a_smaller_data_set_replaces_a_larger_one(tmp_path):
    write_coco(tmp_path, "val", 3)
    write_coco(tmp_path, "val", 1)
    assert [f.name for f in (tmp_path / "images").iterdir()] == ["val_000000.jpg"]


def test_photographs_of_the_user_stay(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "holiday.jpg").write_bytes(b"mine")
    (tmp_path / "instances.json").write_text('{"labels": "mine"}')
    with pytest.raises(OutputError, match="acs did not make it"):
        write_coco(tmp_path, "val", 1)
    assert (tmp_path / "images" / "holiday.jpg").read_bytes() == b"mine"
    assert (tmp_path / "instances.json").read_text() == '{"labels": "mine"}'


def test_progress_counts_up(tmp_path):
    steps = []
    write_coco(tmp_path, "test", 3, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("split", "count", "workers", "message"),
    [("dev", 3, 1, "train, val, test, shifted"), ("val", 0, 1, "--images"), ("val", 3, 0, "--workers")],
)
def test_bad_arguments(tmp_path, split, count, workers, message):
    with pytest.raises(ValueError, match=message):
        write_coco(tmp_path, split, count, workers=workers)
