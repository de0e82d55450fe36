import json

import numpy as np
import pytest

from training.errors import DataError
from training.store import open_store, read_responses, read_store, shard_file, write_shard


def arrays(first, count):
    return {
        "maps": np.full((count, 4, 1, 1, 2, 2), 0.25, np.float16),
        "entropy": np.ones((count, 4, 1, 1), np.float32),
        "iou": np.linspace(0, 1, count).astype(np.float32),
        "box": np.ones((count, 4)),
        **{k: np.full(count, first) for k in ("pair", "image", "response", "order")},
        **{k: np.ones((count, 2), int) for k in ("image_size", "grid")},
        "pairs": np.array([first]),
    }


def test_shards_read_back_as_one_and_pairs_without_candidates_are_kept(tmp_path):
    open_store(tmp_path, {"model": "m"})
    for number, count in enumerate((3, 0, 2)):
        write_shard(tmp_path, number, arrays(number, count), [{"text": "[]"}])
    data = read_store(tmp_path)
    assert data.maps.shape == (5, 4, 1, 1, 2, 2)
    assert data.pair.tolist() == [0, 0, 0, 2, 2] and data.pairs.tolist() == [0, 1, 2]
    assert data.manifest == {"model": "m"}
    assert read_responses(tmp_path) == [{"text": "[]"}] * 3


def test_a_store_of_other_settings_is_not_mixed_in(tmp_path):
    open_store(tmp_path, {"model": "m", "seed": 1})
    open_store(tmp_path, {"model": "m", "seed": 1})
    with pytest.raises(DataError, match="seed 1, not 2"):
        open_store(tmp_path, {"model": "m", "seed": 2})


def test_an_interrupted_write_leaves_no_shard(tmp_path):
    class Broken:
        def __array__(self, *args, **kwargs):
            raise KeyboardInterrupt

    open_store(tmp_path, {})
    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path, 0, {**arrays(0, 1), "iou": Broken()}, [])
    assert not shard_file(tmp_path, 0).exists()
    with pytest.raises(DataError, match="no collected candidates"):
        read_store(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip"])
def test_a_damaged_shard_is_named(tmp_path, content):
    open_store(tmp_path, {})
    shard_file(tmp_path, 0).write_bytes(content)
    with pytest.raises(DataError, match="shard_00000"):
        read_store(tmp_path)


def test_a_folder_without_a_collection(tmp_path):
    with pytest.raises(DataError, match="acs-train collect"):
        read_store(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps([1]))
    with pytest.raises(DataError, match="damaged"):
        read_store(tmp_path)
