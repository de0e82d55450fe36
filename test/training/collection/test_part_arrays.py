"""What a part's arrays and answers claim is checked before memory is taken for it, though their digests are right."""

import errno
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from numcodecs.zstd import Zstd
from store_parts import SHAPE, part

from acs_core.artifacts.json_io import Limits
from training.collection.manifest import fingerprint, read_manifest
from training.collection.part_arrays import HEAD_BYTES, MAGIC, _content_size
from training.collection.part_digests import DIGESTS, write_digests
from training.collection.store import open_store, part_folder, read_responses, read_store, write_part
from training.errors import DataError

FILES = ["rows/c/0/0", "place/c/0/0", "entropy/c/0/0/0/0", "unit/c/0/0/0", "codes/c/0/0/0/0/0"]
MANIFEST = {"model": {"num_layers": SHAPE[0], "num_heads": SHAPE[1]}, "pairs": ["1:key", "2:key"]}


def store_of(folder, written):
    open_store(folder, MANIFEST)
    write_part(folder, 0, written)
    return folder


def changed(folder, name, change):
    """Lets ``change`` make a new content of a file in the first part of ``folder``, with a right digest."""
    first = part_folder(folder, 0)
    (first / name).write_bytes(change((first / name).read_bytes()))
    (first / DIGESTS).unlink()
    write_digests(first, 0, fingerprint(read_manifest(folder)))
    return folder


def described(key, value):
    """A change of a zarr.json: ``key`` leads through its objects and lists."""

    def change(raw):
        data = json.loads(raw)
        inside = data
        for step in key[:-1]:
            inside = inside[step]
        inside[key[-1]] = value
        return json.dumps(data).encode()

    return change


GRID = ("chunk_grid", "configuration", "chunk_shape")
INNER = ("codecs", 0, "configuration")


@pytest.mark.parametrize(
    ("name", "key", "value", "said"),
    [
        ("entropy", ("shape",), [3, 4, 20000, 2000], r"not \(3, 4, 2, 3\)"),
        ("place", ("shape",), [3, 10**12], r"not \(3, 4\)"),
        ("rows", ("shape",), [10**9, 17], "claims 17,000,000,000 values"),
        ("rows", ("shape",), [10**9, 17, 1], r"not \(any, 17\)"),
        ("rows", ("shape",), [-1, 17], "senseless shape"),
        ("rows", ("shape",), "many", "senseless shape"),
        ("unit", ("shape",), [6, 2, 10**12], r"not \(6, 2, 3\)"),
        ("codes", ("shape",), [6, 2, 3, 10**6, 10**6], "a map claims"),
        ("codes", ("shape",), [6, 2, 10**9, 4, 4], r"not \(any, 2, 3, any, any\)"),
        ("codes", GRID, [10**12, 2, 3, 4, 4], "not packed in shards of whole maps|too many"),
        ("codes", GRID, [6 * 10**9, 2, 3, 4, 4], "too many"),
        ("codes", (*INNER, "chunk_shape"), [1, 1, 1, 1, 1], "not packed in shards of whole maps"),
        ("codes", (*INNER, "index_location"), "start", "not packed in shards of whole maps"),
        ("rows", GRID, [10**9, 17], "not packed as one chunk"),
        ("rows", GRID, [0, 17], "senseless chunk"),
        ("rows", ("codecs", 1, "name"), "gzip", "not packed as one chunk"),
        ("rows", ("chunk_key_encoding", "configuration", "separator"), ".", "another way than acs writes"),
    ],
)
def test_what_an_array_claims_is_checked_before_it_is_read(tmp_path, name, key, value, said):
    folder = changed(store_of(tmp_path, part(0, 3)), f"{name}/zarr.json", described(key, value))
    with pytest.raises(DataError, match=f"part_00000 is damaged .*({said})"):
        read_store(folder).maps[np.arange(3)]


def test_what_maps_claim_is_checked_without_a_model_in_the_manifest(tmp_path):
    open_store(tmp_path, {})
    write_part(tmp_path, 0, part(0, 3))
    changed(tmp_path, "codes/zarr.json", described(("shape",), [6, 20000, 2000, 4, 4]))
    with pytest.raises(DataError, match=r"part_00000 is damaged .*a map claims 640,000,000 codes"):
        read_store(tmp_path)


def bomb(size, stated):
    """A zstd frame of ``size`` zeros, which is far smaller; or the header of one that does not state its size."""
    return Zstd().encode(bytes(size)) if stated else MAGIC + bytes([0, 0x58]) + bytes(12)


def shard(packed):
    """A shard of codes whose only chunk is ``packed``. The checksum of its index is wrong: nobody gets there."""
    return packed + np.array([[0, len(packed)]], "<u8").tobytes() + bytes(4)


@pytest.mark.parametrize(("stated", "said"), [(True, "200,000,000 bytes"), (False, "any bytes")])
@pytest.mark.parametrize(
    "name", ["rows/c/0/0", "place/c/0/0", "entropy/c/0/0/0/0", "unit/c/0/0/0", "codes/c/0/0/0/0/0"]
)
def test_a_frame_that_would_unpack_to_more_than_its_chunk_is_refused(tmp_path, name, stated, said):
    made = part(0, 3)
    made.place[0, 0] = 1  # an array of zeros has no file
    packed = bomb(200_000_000, stated)
    folder = changed(store_of(tmp_path, made), name, lambda raw: shard(packed) if "codes" in name else packed)
    with pytest.raises(DataError, match=f"part_00000 is damaged .*would unpack to {said}"):
        read_store(folder).maps[np.arange(3)]


def test_a_shards_index_stays_within_it(tmp_path):
    index = np.array([[10**6, 100]], "<u8").tobytes() + bytes(4)
    for content, said in ((index, "names a place outside it"), (b"short", "shorter than its index")):
        shutil.rmtree(tmp_path, ignore_errors=True)
        folder = changed(store_of(tmp_path, part(0, 3)), "codes/c/0/0/0/0/0", lambda raw, made=content: made)
        with pytest.raises(DataError, match=f"part_00000 is damaged .*{said}"):
            read_store(folder).maps[np.arange(3)]


@pytest.mark.parametrize("size", [0, 255, 256, 65_791, 65_792, 3_000_000])
def test_a_frame_states_its_size(size):
    assert _content_size(bomb(size, True)[:HEAD_BYTES]) == size


@pytest.mark.parametrize("limits", [Limits(50, 1000), Limits(10**6, 5)])
def test_answers_are_read_within_limits(tmp_path, monkeypatch, limits):
    folder = store_of(tmp_path, part(0, 3))
    monkeypatch.setattr("training.collection.part_reading.ANSWERS_LIMITS", limits)
    with pytest.raises(DataError, match=r"part_00000 is damaged .*which no such file needs"):
        read_responses(folder)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("codes", (1, 64, 64, 65, 64)),
        ("entropy", (100_000, 4, 28, 28)),
        ("unit", (1 << 29, 1, 1)),
        ("rows", (100_001, 17)),
    ],
)
def test_what_could_not_be_read_again_is_not_written(tmp_path, name, shape):
    array = np.broadcast_to(np.zeros((), np.float32), shape)
    open_store(tmp_path, MANIFEST)
    with pytest.raises(DataError, match=f"{name} of the shape .*collect fewer responses or smaller maps"):
        write_part(tmp_path, 0, replace(part(0, 3), **{name: array}))
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("limits", [Limits(50, 1000), Limits(10**6, 5)])
def test_answers_that_could_not_be_read_again_are_not_written(tmp_path, monkeypatch, limits):
    monkeypatch.setattr("training.collection.store.ANSWERS_LIMITS", limits)
    with pytest.raises(DataError, match="answers of part 0 cannot be kept"):
        store_of(tmp_path, part(0, 3))
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("name", ["zarr.json", "answers.json", "rows/zarr.json"])
def test_a_description_that_cannot_be_read_now_is_not_called_damaged(tmp_path, monkeypatch, name):
    folder = store_of(tmp_path, part(0, 3))
    real, broken = os.open, str(part_folder(folder, 0) / name)

    def fail(path, *more, **options):
        if str(path) == broken:
            raise OSError(errno.EIO, "Input/output error")
        return real(path, *more, **options)

    monkeypatch.setattr("acs_core.artifacts.json_io.os.open", fail)
    with pytest.raises(DataError, match=r"part_00000 cannot be read \(") as refused:
        read_responses(folder) if name == "answers.json" else read_store(folder)
    assert "delete" not in str(refused.value)
