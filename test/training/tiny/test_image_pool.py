import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from training.errors import DataError
from training.tiny.image_pool import image_pools, render
from training.world.scene import KEPT, TRAINING, WORLD_VERSION, WorldConfig
from training.world.world import World


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    image_pools(folder, KEPT, 12, (3, 5))
    return folder


def test_every_picture_stands_on_the_shelf_of_its_size(folder):
    pools = image_pools(folder, KEPT, 12, (3, 5))
    assert sum(len(s.files) for s in pools) == 12 and {s.size for s in pools} <= set(WorldConfig().shapes)
    counts = [len(s.files) for s in pools]
    assert counts == sorted(counts, reverse=True)
    for pool in pools:
        pictures = pool.read([len(pool.files) - 1])
        assert pictures.size == pool.size and pictures.objects == pool.objects[-1:]
        assert 1 <= len(pictures.objects[0]) <= 5


def test_pictures_are_those_of_the_world_in_red_green_blue(folder):
    pool = image_pools(folder, KEPT, 12, (3, 5))[0]
    number = int(pool.files[0].stem.split("_")[1])
    scene = World("train", WorldConfig(min_objects=3, max_objects=5)).scene([KEPT, number])
    assert pool.objects[0] == scene.objects
    difference = np.abs(pool.read([0]).pixels[0].astype(float) - scene.image)
    assert difference.mean() < 4  # JPEG


def test_they_are_rendered_once(folder):
    before = {f: f.stat().st_mtime_ns for f in folder.glob("*/images/*")}
    said = []
    image_pools(folder, KEPT, 12, (3, 5), progress=lambda done, total: said.append(done))
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
        one, other = pool.map(lambda _: image_pools(*arguments), range(2))
    assert one == other and said == [1, 2, 3, 4, 5, 6]
    assert len(waited) == 1 and "another run renders" in waited[0]


def test_other_pictures_lie_elsewhere(folder):
    image_pools(folder, TRAINING, 3, (3, 5), progress=lambda done, total: None)
    painted = image_pools(folder, KEPT, 3, (6, 9), lookalikes=0.8, colours=1.0)
    assert all(len({o.colour for o in objects}) > 2 for pool in painted for objects in pool.objects)
    names = {f.name for f in folder.iterdir() if f.is_dir()}
    kinds = {f"{KEPT}-3-5-objects-12", f"{TRAINING}-3-5-objects-3", f"{KEPT}-6-9-objects-0.8-alike-1-coloured-3"}
    assert names == {f"world{WORLD_VERSION}-{kind}" for kind in kinds}


def test_what_is_damaged_is_named(tmp_path):
    pool = image_pools(tmp_path, KEPT, 2, (3, 5))[0]
    pool.files[0].write_bytes(b"no picture")
    with pytest.raises(DataError, match=f"{pool.files[0].name} is not a picture .*: delete its folder"):
        pool.read([0])
    (file,) = tmp_path.glob("*/instances.json")
    file.write_text(json.dumps({"images": []}))
    with pytest.raises(DataError, match=r"instances\.json is not in COCO's format: it should hold a list"):
        image_pools(tmp_path, KEPT, 2, (3, 5))


@pytest.fixture(scope="module")
def pictures():
    return render(World("train"), TRAINING, range(3), (360, 360), (4, 6))


def test_pictures_are_known_by_their_numbers(pictures):
    again, kept = (render(World("train"), stream, [1], (360, 360), (4, 6)) for stream in (TRAINING, KEPT))
    assert (again.pixels[0] == pictures.pixels[1]).all() and again.objects[0] == pictures.objects[1]
    assert (kept.pixels[0] != pictures.pixels[1]).any()
    assert pictures.size == (360, 360) and all(1 <= len(o) <= 6 for o in pictures.objects)
