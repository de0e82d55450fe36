import threading

import numpy as np
import pytest
from store_parts import part

from training.collection.maps import StoredMaps
from training.collection.part_arrays import decode
from training.collection.store import open_store, read_store, write_part
from training.errors import DataError
from training.fitting import read_ahead
from training.fitting.batches import BatchIndex
from training.fitting.read_ahead import MOST_WORKERS, ReadAhead, default_workers, prepare_maps

ORDER = BatchIndex(np.arange(40), 4, shuffle=False)


@pytest.mark.parametrize("workers", [1, 4])
def test_batches_are_read_ahead_by_other_threads_but_not_all_at_once(workers):
    read, threads, most = [], set(), 0

    def note(index):
        threads.add(threading.get_ident())
        read.append(int(index[0]))
        return int(index[0])

    used = []
    for first in ReadAhead(note, ORDER, workers):
        used.append(first)
        most = max(most, len(read) - len(used))
    assert used == list(range(0, 40, 4)) and threading.get_ident() not in threads
    assert most <= workers + 1


def test_without_workers_a_batch_is_read_when_it_is_asked_for():
    read = []
    for number, _ in enumerate(ReadAhead(read.append, ORDER, 0)):
        assert len(read) == number + 1


def test_an_error_of_a_thread_is_raised_in_its_turn():
    def fail(index):
        if index[0] == 8:
            raise DataError("part 3 is damaged")
        return index[0]

    found = iter(ReadAhead(fail, ORDER, 3))
    assert [next(found), next(found)] == [0, 4]
    with pytest.raises(DataError, match="part 3"):
        next(found)


def test_an_epoch_that_is_left_early_reads_no_further():
    read = []
    found = iter(ReadAhead(read.append, ORDER, 2))
    next(found)
    found.close()
    assert len(read) < 10 and not [t for t in threading.enumerate() if t.name.startswith("read-ahead")]


def test_the_epochs_order_is_drawn_when_the_epoch_begins():
    order = BatchIndex(np.arange(40), 4, shuffle=True)
    found = iter(ReadAhead(lambda index: index, order, 0))
    order.set_epoch(1)
    again = BatchIndex(np.arange(40), 4, shuffle=True)
    np.testing.assert_array_equal(np.concatenate(list(found)), np.concatenate(list(again)))


@pytest.mark.parametrize(
    ("cpus", "gpus", "workers"), [(1, 0, 1), (2, 0, 1), (6, 1, 5), (64, 1, MOST_WORKERS), (8, 4, 1)]
)
def test_there_are_as_many_workers_as_the_cpus_allow(monkeypatch, cpus, gpus, workers):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cpus)))
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert default_workers() == workers


def test_maps_that_fit_into_the_share_of_memory_are_kept_and_it_is_said(tmp_path, monkeypatch):
    open_store(tmp_path, {})
    for number in range(2):
        write_part(tmp_path, number, part(number, 3))
    whole = read_store(tmp_path).maps
    places = tuple(whole._place[whole.part == number] for number in range(2))
    maps = StoredMaps(whole.files, places)  # its own limit would let it keep all
    assert maps.nbytes == 12 * (2 * 3 * 4 * 4 + 4 * 2 * 3)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr(read_ahead, "free_memory", lambda: 4 * maps.nbytes - 4)
    said = prepare_maps(maps, 2)
    assert said.startswith("maps: read from disk in every epoch, 2 threads ahead") and not maps.in_memory
    maps.coded(np.arange(2))
    assert not maps.in_memory, "the limit holds for later reads too"
    assert "read from disk in every epoch, batch by batch" in prepare_maps(maps, 0)
    on_disk = maps[np.arange(6)]
    monkeypatch.setattr(read_ahead, "free_memory", lambda: 4 * maps.nbytes)
    assert prepare_maps(maps, 2).startswith("maps: all are kept in memory (0.00 GB; up to 0.00 GB, 25% of the free")
    assert maps.in_memory
    np.testing.assert_array_equal(maps[np.arange(6)], on_disk)
    first = part(0, 3)
    np.testing.assert_array_equal(maps[np.arange(3)], decode(first.codes[first.place], first.unit[first.place]))
