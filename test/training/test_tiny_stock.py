import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from training.errors import DataError
from training.scene import KEPT, TRAINING, WORLD_VERSION, WorldConfig
from training.tiny.stock import stock
from training.world import World


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    stock(folder, KEPT, 12, (3, 5))
    return folder


def test_every_picture_stands_on_the_shelf_of_its_size(folder):
    shelves = stock(folder, KEPT, 12, (3, 5))
    assert sum(len(s.files) for s in shelves) == 12 and {s.size for s in shelves} <= set(WorldConfig().shapes)
    counts = [len(s.files) for s in shelves]
    assert counts == sorted(counts, reverse=True)
    for shelf in shelves:
        pictures = shelf.read([len(shelf.files) - 1])
        assert pictures.size == shelf.size and pictures.objects == shelf.objects[-1:]
        assert 1 <= len(pictures.objects[0]) <= 5


def test_pictures_are_those_of_the_world_in_red_green_blue(folder):
    shelf = stock(folder, KEPT, 12, (3, 5))[0]
    number = int(shelf.files[0].stem.split("_")[1])
    scene = World("train", WorldConfig(min_objects=3, max_objects=5)).scene([KEPT, number])
    assert shelf.objects[0] == scene.objects
    difference = np.abs(shelf.read([0]).pixels[0].astype(float) - scene.image)
    assert difference.mean() < 4  # JPEG


def test_they_are_rendered_once(folder):
    before = {f: f.stat().st_mtime_ns for f in folder.glob("*/images/*")}
    said = []
    stock(folder, KEPT, 12, (3, 5), progress=lambda done, total: said.append(done))
    assert not said and {f: f.stat().st_mtime_ns for f in folder.glob("*/images/*")} == before


def test_of_two_runs_one_renders_and_the_other_waits(tmp_path):
    said, waited, noticed = [], [], threading.Event()

    def progress(done, total):
        said.append(done)
        noticed.wait(60)

    def waiting(why):
        waited.append(why)
        noticed.set()

    arguments = (tmp_path, KEPT, 6, (3, 5), 1, progress, waiting)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: stock(*arguments), range(2))
    assert one == other and said == [1, 2, 3, 4, 5, 6]
    assert len(waited) == 1 and "another run renders" in waited[0]


def test_other_pictures_lie_elsewhere(folder):
    stock(folder, TRAINING, 3, (3, 5), progress=lambda done, total: None)
    names = {f.name for f in folder.iterdir() if f.is_dir()}
    assert names == {f"world{WORLD_VERSION}-{s}-3-5-objects-{n}" for s, n in ((KEPT, 12), (TRAINING, 3))}


def test_what_is_damaged_is_named(tmp_path):
    shelf = stock(tmp_path, KEPT, 2, (3, 5))[0]
    shelf.files[0].write_bytes(b"no picture")
    with pytest.raises(DataError, match=f"{shelf.files[0].name} is missing or no readable picture: delete its folder"):
        shelf.read([0])
    (file,) = tmp_path.glob("*/instances.json")
    file.write_text(json.dumps({"images": []}))
    with pytest.raises(DataError, match=r"instances\.json is not in COCO's format: it should hold a list"):
        stock(tmp_path, KEPT, 2, (3, 5))
