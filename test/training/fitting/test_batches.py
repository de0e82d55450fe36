import numpy as np
import pytest

from training.fitting import batches
from training.fitting.batches import BatchIndex, CandidateDataset


@pytest.mark.parametrize(("count", "sizes"), [(130, [64, 64, 2]), (129, [64, 64]), (5, [5])])
def test_a_lone_last_candidate_is_left_out(count, sizes):
    cut = BatchIndex(np.arange(count) + 7, 64, shuffle=True)
    found = list(cut)
    assert [len(b) for b in found] == sizes and len(cut) == len(sizes)
    assert len(set(np.concatenate(found).tolist())) == sum(sizes)


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
