from dataclasses import replace

import numpy as np

from acs_core.heads import Head, HeadFile
from acs_core.selection import AcsFree
from training.offline_choice import choose_offline


def test_a_head_that_knows_picks_almost_the_best(collection, identity, telling_head):
    choices = choose_offline(AcsFree(HeadFile(identity, "heads", ((Head(*telling_head),),) * 4)), collection)
    assert (choices.iou <= choices.oracle).all()
    assert choices.iou.mean() > 0.9 * choices.oracle.mean() > 0.9 * collection.iou.mean()
    assert (choices.candidates == 5).all()


def test_a_pair_without_candidates_counts_as_zero(collection, identity, telling_head):
    more = replace(collection, pairs=np.append(collection.pairs, 99))
    choices = choose_offline(AcsFree(HeadFile(identity, "heads", ((Head(*telling_head),),) * 4)), more)
    assert choices.iou[-1] == 0 and np.isnan(choices.confidence[-1]) and choices.candidates[-1] == 0
