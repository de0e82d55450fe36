import errno
import json
import shutil

import numpy as np
import pytest

from training import store
from training.errors import DataError
from training.maps import StoredMaps
from training.quantise import decode, encode
from training.store import (
    Part,
    open_store,
    part_folder,
    read_responses,
    read_skipped,
    read_store,
    sole_writer,
    write_part,
)

SHAPE = (2, 3, 4, 4)


def part(first, count, skipped=None):
    rng = np.random.default_rng(first)
    maps = rng.random((2 * count, *SHAPE)).astype(np.float32)
    codes, unit = encode(maps)
    place = rng.integers(0, max(1, 2 * count), (count, 4)).astype(np.int32)
    rows = np.full((count, 17), float(first))
    entropy = np.ones((count, 4, *SHAPE[:2]), np.float32)
    return Part(codes, unit, place, entropy, rows, (first,), skipped or {}, ({"pair": first},))


def test_parts_read_back_as_one_and_pairs_without_candidates_are_kept(tmp_path):
    open_store(tmp_path, {"model": "m"})
    parts = [part(0, 3), part(1, 0, {7: "no picture"}), part(2, 2)]
    for number, written in enumerate(parts):
        write_part(tmp_path, number, written)
    data = read_store(tmp_path)
    assert data.maps.shape == (5, 4, *SHAPE)
    assert data.pair.tolist() == [0, 0, 0, 2, 2] and data.pairs.tolist() == [0, 1, 2]
    assert data.manifest["model"] == "m"
    assert [r["pair"] for r in read_responses(tmp_path)] == [0, 1, 2]
    assert read_skipped(tmp_path) == {7: "no picture"}
    for number, start, count in ((0, 0, 3), (2, 3, 2)):
        expected = decode(parts[number].codes[parts[number].place], parts[number].unit[parts[number].place])
        np.testing.assert_array_equal(data.maps[np.arange(start, start + count)], expected)


def test_maps_are_the_same_from_disk_and_from_memory(tmp_path):
    open_store(tmp_path, {})
    for number in range(3):
        write_part(tmp_path, number, part(number, 4))
    kept = read_store(tmp_path).maps
    on_disk = StoredMaps(kept._files, tuple(np.split(kept._place, 3)), memory=0)
    index = np.array([11, 0, 5, 5, 8])
    np.testing.assert_array_equal(kept[index], on_disk[index])


def test_a_store_of_other_settings_is_not_mixed_in(tmp_path):
    open_store(tmp_path, {"model": "m", "seed": 1, "versions": {"torch": "1"}})
    open_store(tmp_path, {"model": "m", "seed": 1, "versions": {"torch": "2"}})
    with pytest.raises(DataError, match="seed 1, not 2"):
        open_store(tmp_path, {"model": "m", "seed": 2})


def test_a_part_is_whole_or_not_there(tmp_path, monkeypatch):
    def full(place, written):
        place.mkdir()
        (place / "half").write_text("...")
        raise OSError(errno.ENOSPC, "No space left on device")

    open_store(tmp_path, {})
    write_part(tmp_path, 0, part(0, 2))
    monkeypatch.setattr(store, "_write", full)
    with pytest.raises(DataError, match="disk is full"):
        write_part(tmp_path, 1, part(1, 2))
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["part_00000"]
    assert read_store(tmp_path).pairs.tolist() == [0], "what was written before is kept"


def test_what_a_killed_run_left_is_removed_and_a_part_that_is_there_stays(tmp_path):
    open_store(tmp_path, {})
    write_part(tmp_path, 0, part(0, 2))
    (tmp_path / "part_00001.partial-1").mkdir()
    open_store(tmp_path, {})
    write_part(tmp_path, 0, part(5, 2))
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["part_00000"]
    assert read_store(tmp_path).pairs.tolist() == [0]


def test_two_runs_do_not_write_into_one_store(tmp_path):
    with sole_writer(tmp_path), pytest.raises(DataError, match="another run"), sole_writer(tmp_path):
        pass


@pytest.mark.parametrize("broken", ["rows", "codes", "zarr.json"])
def test_a_damaged_part_is_named(tmp_path, broken):
    open_store(tmp_path, {})
    write_part(tmp_path, 0, part(0, 2))
    target = part_folder(tmp_path, 0) / broken
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.write_text("{")
    with pytest.raises(DataError, match="part_00000 is damaged"):
        read_store(tmp_path)


def test_a_folder_without_a_collection(tmp_path):
    with pytest.raises(DataError, match="acs-train collect"):
        read_store(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps([1]))
    with pytest.raises(DataError, match="damaged"):
        read_store(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(DataError, match="another version"):
        read_store(tmp_path)


def test_a_collection_without_one_box_is_said(tmp_path):
    open_store(tmp_path, {})
    write_part(tmp_path, 0, part(0, 0))
    with pytest.raises(DataError, match="not one box"):
        read_store(tmp_path)
