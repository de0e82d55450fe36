from dataclasses import replace

import numpy as np

from acs_core.heads import Head, HeadFile
from acs_core.selection import AcsFree
from training.offline_choice import calls, choose_offline, drawn_by_auto


def test_a_head_that_knows_picks_almost_the_best(collection, identity, telling_head):
    choices = choose_offline(AcsFree(HeadFile(identity, "heads", ((Head(*telling_head),),) * 4)), collection)
    assert (choices.iou <= choices.oracle).all()
    assert choices.iou.mean() > 0.9 * choices.oracle.mean() > 0.9 * collection.iou.mean()
    assert (choices.candidates == 5).all()


def test_a_call_of_fewer_responses_is_a_part_of_the_whole(collection):
    whole = next(calls(collection, maps=True))
    part = whole.first(2)
    assert [c.response for c in part.candidates] == [0, 1] and part.candidates == whole.candidates[:2]
    assert part.evidence.maps.shape == (2, *whole.evidence.maps.shape[1:])
    assert (part.evidence.entropy == whole.evidence.entropy[:2]).all()
    assert whole.first(5) is whole and whole.first(0).candidates == () and whole.first(0).image_size is None


def test_a_pair_without_candidates_counts_as_zero(collection, identity, telling_head):
    more = replace(collection, pairs=np.append(collection.pairs, 99))
    choices = choose_offline(AcsFree(HeadFile(identity, "heads", ((Head(*telling_head),),) * 4)), more)
    assert choices.iou[-1] == 0 and np.isnan(choices.confidence[-1]) and choices.candidates[-1] == 0


def test_auto_stops_where_the_first_responses_agree(collection):
    index = np.flatnonzero(np.isin(collection.pair, collection.pairs[:2]))
    first, second = collection.pairs[:2]
    apart = 50.0 * np.arange(len(index))[:, None] + np.array([0.0, 0.0, 10.0, 10.0])
    here = collection.pair[index] == first
    data = replace(
        collection,
        pair=collection.pair[index],
        pairs=collection.pairs[:2],
        box=np.where(here[:, None], np.array([0.0, 0.0, 10.0, 10.0]), apart),
        response=np.concatenate([np.arange(np.sum(here)), np.arange(np.sum(~here))]),
        order=collection.order[index],
        tokens=collection.tokens[index],
        entropy=collection.entropy[index],
        grid=collection.grid[index],
    )
    answers = [
        {"pair": int(p), "response": r, "num_boxes": int(r < np.sum(data.pair == p))}
        for p in (first, second)
        for r in range(10)
    ]
    assert drawn_by_auto(data, answers, 10).tolist() == [5, 10]


def test_responses_that_were_not_drawn_are_not_chosen(collection, identity, telling_head):
    selector = AcsFree(HeadFile(identity, "heads", ((Head(*telling_head),),) * 4))
    none = choose_offline(selector, collection, np.zeros(len(collection.pairs), int))
    assert (none.candidates == 0).all() and (none.iou == 0).all()
    every = choose_offline(selector, collection, np.full(len(collection.pairs), 99))
    np.testing.assert_array_equal(every.iou, choose_offline(selector, collection).iou)
