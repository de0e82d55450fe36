from dataclasses import replace

import numpy as np
import pytest

from training.collection.maps import StoredMaps
from training.fitting import batches
from training.fitting.batches import BatchIndex, CandidateDataset, epoch_order, loader


@pytest.mark.parametrize(("count", "sizes"), [(130, [64, 64, 2]), (129, [64, 65]), (5, [5]), (1, [1])])
def test_each_epoch_has_every_candidate_once_and_no_batch_of_one(count, sizes):
    cut = BatchIndex(np.arange(count) + 7, 64, shuffle=True)
    found = list(cut)
    assert [len(b) for b in found] == sizes and len(cut) == len(sizes)
    assert sorted(np.concatenate(found).tolist()) == list(range(7, 7 + count))


def test_each_epoch_has_an_order_of_its_own_that_a_resumed_run_repeats():
    cut, again = (BatchIndex(np.arange(100), 10, shuffle=True, seed=3) for _ in range(2))
    first = np.concatenate(list(cut))
    cut.set_epoch(4)
    again.set_epoch(4)
    assert (np.concatenate(list(cut)) != first).any()
    np.testing.assert_array_equal(np.concatenate(list(cut)), np.concatenate(list(again)))


@pytest.mark.parametrize("shuffle", [True, False])
def test_processes_share_the_batches(monkeypatch, shuffle):
    seen = []
    for rank in range(3):
        monkeypatch.setattr(batches, "_place", lambda rank=rank: (rank, 3))
        seen.append(list(BatchIndex(np.arange(110), 10, shuffle)))
    together = np.concatenate([b for share in seen for b in share])
    assert len(together) == len(set(together.tolist()))
    if shuffle:
        assert {len(share) for share in seen} == {3}, "they wait for each other"
    else:
        assert len(together) == 110


def test_a_batch_holds_what_the_collection_holds(collection):
    codes, unit, boxes, iou = CandidateDataset(collection)[np.array([3, 299])]
    assert codes.shape == (2, *collection.maps.shape[1:]) and unit.shape == (2, 4, 3, 2)
    np.testing.assert_allclose(boxes.numpy(), collection.box[[3, 299]] / 100, rtol=1e-6)  # images of 100 x 100
    np.testing.assert_array_equal(iou.numpy(), collection.iou[[3, 299]])


def test_parts_are_read_one_after_the_other_in_groups_that_are_shuffled():
    part = np.repeat(np.arange(20), 50)
    order = epoch_order(part, np.random.default_rng(1), group=200)
    assert sorted(order.tolist()) == list(range(1000)), "each candidate once"
    groups = [set(part[some].tolist()) for some in np.split(order, 5)]
    assert [len(group) for group in groups] == [4] * 5 and set().union(*groups) == set(range(20))
    assert all(len(set(part[some[:60]].tolist())) == 4 for some in np.split(order, 5)), "mixed within a group"
    other = epoch_order(part, np.random.default_rng(2), group=200)
    assert [set(part[some].tolist()) for some in np.split(other, 5)] != groups


def some_batches(collection, workers):
    found = loader(collection, np.arange(7, 290), 32, True, 5, workers)
    found.sampler.set_epoch(3)
    return [[array.numpy() for array in batch] for batch in found]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_are_the_same_from_disk_and_from_memory_with_and_without_workers(collection, workers):
    kept, stored = collection.maps, collection.maps
    wanted = some_batches(collection, 0)
    assert kept.in_memory
    places = tuple(stored._place[stored.part == number] for number in range(len(stored.files)))
    on_disk = replace(collection, maps=StoredMaps(stored.files, places, memory=0))
    found = some_batches(on_disk, workers)
    assert not on_disk.maps.in_memory and sum(len(batch[2]) for batch in found) == 283
    on_disk.maps.keep(1 << 30)
    for epoch in (found, some_batches(collection, workers), some_batches(on_disk, workers)):
        for batch, other in zip(epoch, wanted, strict=True):
            for array, same in zip(batch, other, strict=True):
                np.testing.assert_array_equal(array, same)
