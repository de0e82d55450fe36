import errno
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from store_parts import SHAPE, part

from training.collection import store
from training.collection.manifest import fingerprint
from training.collection.maps import StoredMaps
from training.collection.offline_selection import hidden_of
from training.collection.part_arrays import decode
from training.collection.store import (
    open_store,
    part_folder,
    read_responses,
    read_skipped,
    read_store,
    write_part,
)
from training.errors import DataError


def test_hidden_states_are_read_as_arrays(tmp_path):
    """Lists would take several times as much memory."""
    open_store(tmp_path, {"model": "m"})
    made = part(0, 3)
    write_part(tmp_path, 0, replace(made, answers=({**made.answers[0], "hidden": [0.25, -1.5e-3, 12]},)))
    write_part(tmp_path, 1, part(1, 2))
    first, earlier = read_responses(tmp_path)
    assert first["hidden"].dtype == np.float32 and first["hidden"].tolist() == [0.25, np.float32(-1.5e-3), 12.0]
    assert hidden_of(first) is first["hidden"] and hidden_of(earlier) is None


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
    on_disk = StoredMaps(kept.files, tuple(np.split(kept._place, 3)), memory=0)
    index = np.array([11, 0, 5, 5, 8])
    np.testing.assert_array_equal(kept[index], on_disk[index])


def test_a_store_of_other_settings_is_not_mixed_in(tmp_path):
    open_store(tmp_path, {"model": "m", "seed": 1, "versions": {"torch": "1"}})
    open_store(tmp_path, {"model": "m", "seed": 1, "versions": {"torch": "2"}})
    with pytest.raises(DataError, match="seed 1, not 2"):
        open_store(tmp_path, {"model": "m", "seed": 2})


def test_a_store_of_an_earlier_version_goes_on(tmp_path):
    """Its model has no hidden size; the fingerprint, which its parts carry, is the same."""
    older, newer = ({"model": {"model": "m"} | width, "seed": 1} for width in ({}, {"hidden_size": 64}))
    open_store(tmp_path, older)
    write_part(tmp_path, 0, part(0, 2))
    open_store(tmp_path, newer)
    assert fingerprint(older) == fingerprint(newer) != fingerprint(newer | {"model": {"model": "other"}})
    assert read_store(tmp_path).pairs.tolist() == [0]


def test_a_part_is_whole_or_not_there(tmp_path, monkeypatch):
    def full(place, *_):
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


def test_what_only_looks_like_a_killed_runs_part_stays(tmp_path):
    foreign = ["photos.partial", "part_00000.partial", "part_00000.partial-1.bak", "part_1.partial-1", "a.partial-1"]
    for name in foreign:
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.jpg").touch()
    (tmp_path / "part_00000.partial-2").touch()  # a file
    (tmp_path / "part_00000.partial-3").symlink_to(tmp_path / "photos.partial")
    (tmp_path / "part_00000.partial-4").mkdir()
    before = {file.name for file in tmp_path.iterdir()}
    open_store(tmp_path, {})
    assert before - {file.name for file in tmp_path.iterdir()} == {"part_00000.partial-4"}
    assert all((tmp_path / name / "mine.jpg").is_file() for name in foreign)


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
