import errno
import threading

import numpy as np
import pytest
from store_parts import part

from training.collection import part_writer
from training.collection.part import DistinctMaps, PartDraft, quantise_now
from training.collection.part_arrays import encode
from training.collection.part_writer import MOST_WAITING, PartWriter
from training.collection.store import open_store, part_files, read_store, write_part
from training.errors import DataError


def draft(number, quantise=quantise_now):
    """A draft of part ``number`` with the content of :func:`store_parts.part`, and other maps."""
    whole = part(number, 2)
    maps = np.random.default_rng(number).random((4, *whole.codes.shape[1:])).astype(np.float32)
    found = DistinctMaps(quantise(maps), 4, whole.place, whole.entropy)
    return PartDraft((found,), (whole.rows,), whole.pairs, {}, whole.answers)


def test_parts_are_those_that_are_written_at_once(tmp_path):
    for name in ("beside", "at once"):
        open_store(tmp_path / name, {})
    with PartWriter() as writer:
        for number in range(3):
            writer.write(tmp_path / "beside", number, draft(number, writer.quantise))
    for number in range(3):
        write_part(tmp_path / "at once", number, draft(number).finish())
    one, other = (read_store(tmp_path / name) for name in ("beside", "at once"))
    np.testing.assert_array_equal(one.maps[np.arange(6)], other.maps[np.arange(6)])
    assert [file.name for file in part_files(tmp_path / "beside")] == [f"part_{n:05d}" for n in range(3)]
    for file in part_files(tmp_path / "at once"):
        assert (file / "digests.json").read_bytes() == (tmp_path / "beside" / file.name / "digests.json").read_bytes()


def test_the_maps_are_quantised_in_another_thread(monkeypatch):
    threads = []
    monkeypatch.setattr(part_writer, "encode", lambda maps: threads.append(threading.get_ident()) or encode(maps))
    with PartWriter() as writer:
        codes, _ = writer.quantise(np.ones((2, 3, 3), np.float32))()
    assert codes.shape == (2, 3, 3) and threads != [threading.get_ident()]


def test_a_full_disk_is_told_by_the_next_call_and_what_was_written_is_kept(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    open_store(tmp_path, {})
    with pytest.raises(DataError, match="disk is full: part 1"), PartWriter() as writer:
        writer.write(tmp_path, 0, draft(0))
        writer.quantise(np.ones((1, 2, 2), np.float32))()  # part 0 is written then
        monkeypatch.setattr("training.collection.store._write", full)
        writer.write(tmp_path, 1, draft(1))
        done = threading.Event()
        writer._pool.submit(done.set)
        assert done.wait(20)
        writer.quantise(np.ones((1, 2, 2), np.float32))
        raise AssertionError("the call before raises")
    assert [file.name for file in tmp_path.iterdir() if file.is_dir()] == ["part_00000"]


def test_the_last_parts_error_is_raised_at_the_end(tmp_path, monkeypatch):
    open_store(tmp_path, {})
    monkeypatch.setattr(part_writer, "write_part", lambda *_: (_ for _ in ()).throw(DataError("no")))
    with pytest.raises(DataError, match="no"), PartWriter() as writer:
        writer.write(tmp_path, 0, draft(0))


def test_an_interrupt_loses_no_part_that_the_model_has_made(tmp_path, monkeypatch):
    go = threading.Event()
    monkeypatch.setattr(part_writer, "write_part", lambda *a: go.wait(20) and write_part(*a))
    open_store(tmp_path, {})
    with pytest.raises(KeyboardInterrupt), PartWriter() as writer:
        writer.write(tmp_path, 0, draft(0))
        threading.Timer(0.1, go.set).start()
        raise KeyboardInterrupt
    assert read_store(tmp_path).pairs.tolist() == [0]


@pytest.mark.parametrize("ended_by", [KeyboardInterrupt, RuntimeError])
def test_an_error_of_the_last_parts_is_told_when_something_else_ends_the_collection(
    tmp_path, monkeypatch, caplog, ended_by
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("training.collection.store._write", full)
    open_store(tmp_path, {})
    with pytest.raises(ended_by), PartWriter() as writer:
        writer.write(tmp_path, 0, draft(0))
        raise ended_by
    (told,) = caplog.records
    assert told.levelname == "ERROR" and "the disk is full: part 0" in told.message
    assert "run the same command again" in told.message


def test_an_error_that_ends_the_collection_is_not_told_twice(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(part_writer, "write_part", lambda *_: (_ for _ in ()).throw(DataError("no")))
    with pytest.raises(DataError, match="the first"), PartWriter() as writer:
        writer.write(tmp_path, 0, draft(0))
        raise DataError("the first")
    assert caplog.records == []


def test_calls_wait_where_the_thread_falls_behind(monkeypatch):
    go, begun = threading.Event(), []
    monkeypatch.setattr(part_writer, "encode", lambda maps: go.wait(20))
    with PartWriter() as writer:

        def many():
            for number in range(MOST_WAITING + 1):
                writer.quantise(np.ones((1, 2, 2), np.float32))
                begun.append(number)

        caller = threading.Thread(target=many)
        caller.start()
        caller.join(0.5)
        assert caller.is_alive() and len(begun) == MOST_WAITING
        go.set()
        caller.join(20)
    assert len(begun) == MOST_WAITING + 1
