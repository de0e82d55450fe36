import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from acs_core.artifacts.heads import Head, HeadFile
from acs_core.attention import AttentionNeeds, AttentionRecord
from acs_core.generation.candidates import parse_response
from acs_core.geometry import Box
from acs_core.lvlm.instruction import PROMPT
from acs_core.selection.registry import AcsFree
from acs_core.selection.scorer import Scorer
from acs_core.types import Candidate, Response
from training.collection.offline_selection import Call, calls, choose_offline, drawn_by_auto


def test_a_head_that_knows_picks_almost_the_best(collection, identity, telling_head):
    choices = choose_offline(AcsFree(HeadFile(identity, "heads", ((Head(*telling_head),),) * 4)), collection)
    assert (choices.iou <= choices.oracle).all()
    assert choices.iou.mean() > 0.9 * choices.oracle.mean() > 0.9 * collection.iou.mean()
    assert (choices.candidates == 5).all()


def test_a_call_of_fewer_responses_is_a_part_of_the_whole(collection):
    whole = next(calls(collection, maps=True))
    part = whole.first(2)
    assert [c.response for c in part.candidates] == [0, 1] and part.candidates == whole.candidates[:2]
    assert part.record.maps.shape == (2, *whole.record.maps.shape[1:])
    assert (part.record.entropy == whole.record.entropy[:2]).all()
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


def boxes(*labels):
    return json.dumps([{"bbox_2d": [i, i, i + 9, i + 9], "label": label} for i, label in enumerate(labels)])


@pytest.mark.parametrize(
    ("text", "num_boxes", "finished", "label"),
    [
        (boxes("dog"), 1, True, "dog"),
        (boxes("dog", "dog"), 1, True, "dog"),  # one lies outside the picture: it does not matter which
        (boxes("dog", "key"), 1, True, ""),
        (boxes("dog") + " [1, 2, 3, 4", 1, False, "dog"),  # the second box may be cut off
        ("[1, 2, 3, 4]", 1, True, ""),
    ],
)
def test_labels_come_from_the_responses(collection, text, num_boxes, finished, label):
    answer = {"response": 0, "text": text, "num_boxes": num_boxes, "finished": finished, "problem": ""}
    answers = [{"pair": p, "token_entropy": [0.0] * 9, "token_logprob": [0.0] * 9, **answer} for p in collection.pairs]
    one = next(calls(replace(collection, response=0 * collection.response), False, answers))
    assert (one.phrase, one.candidates[0].label) == ("key", label)
    assert one.first(1).phrase == "key"


EXAMPLES = [list(box.values) for box in parse_response(PROMPT)][:1]


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        (("key",), 1),
        (("key", "key", "key"), 1),
        (("dog", "key", "key"), 2),  # what is labelled as something else does not end the response
        (("dog", "cat"), 2),
    ],
)
def test_a_response_ends_with_its_first_box(labels, kept):
    call = call_of(boxes(*labels), len(labels))
    seen = call.first_boxes()
    assert [c.order for c in seen.candidates] == [*range(kept), 0]
    assert len(seen.index) == len(seen.record.entropy) == kept + 1 and seen.record.num_responses == 2
    assert [r.num_boxes for r in seen.responses] == [kept, 1]
    assert (seen is call) == (len(labels) == 1)


def test_a_box_after_an_example_of_the_prompt_does_not_end_the_response():
    first = json.dumps([{"bbox_2d": EXAMPLES[0], "label": "key"}, {"bbox_2d": [1, 2, 30, 40], "label": "key"}])
    later = json.dumps([{"bbox_2d": [1, 2, 30, 40], "label": "key"}, {"bbox_2d": EXAMPLES[0], "label": "key"}])
    assert [len(call_of(text, 2).first_boxes().candidates) for text in (first, later)] == [3, 2]


@pytest.mark.parametrize(
    ("needs", "multiple", "whole"),
    [
        (AttentionNeeds(), False, False),
        (AttentionNeeds(), True, True),
        (AttentionNeeds(whole_responses=True), False, True),
        (AttentionNeeds(token_statistics=True), False, True),
    ],
)
def test_what_follows_the_first_box_is_seen_by_selectors_that_read_it(needs, multiple, whole):
    call = call_of(boxes("key", "key"), 2)
    assert len(call.seen_by(SimpleNamespace(needs=needs), multiple).candidates) == (3 if whole else 2)


def call_of(text, num_boxes):
    """A call of two responses: ``text`` with ``num_boxes`` boxes, and one box."""
    rows = [(0, k, label) for k, label in enumerate(label.label for label in parse_response(text))] + [(1, 0, "key")]
    candidates = tuple(Candidate(Box(k, k, k + 9, k + 9), label, r, k, (1, 2, 3, 4)) for r, k, label in rows)
    responses = Response(text, num_boxes, True), Response(boxes("key"), 1, True)
    record = AttentionRecord(np.zeros((len(rows), 4, 1, 1)), None, (4, 4), num_responses=2)
    return Call(0, np.arange(len(rows)), candidates, record, (100, 100), responses, phrase="key")


def test_boxes_labelled_as_something_else_rank_below_the_others(collection, identity, telling_head):
    """As in a grounding call: the best candidate of every pair is called a dog, and a key is asked for."""
    selector = AcsFree(HeadFile(identity, "heads", ((Head(*telling_head),),) * 4))
    best = {c.pair: c.decided(Scorer(selector, None)).detections[0].candidate for c in calls(collection, False)}
    answers = [
        {
            "pair": int(pair),
            "response": r,
            "text": boxes("dog" if r == best[pair] else "keys"),
            "num_boxes": 1,
            "finished": True,
            "problem": "",
            "token_entropy": [0.0] * 9,
            "token_logprob": [0.0] * 9,
        }
        for pair in collection.pairs
        for r in range(5)
    ]
    for call in calls(collection, False, answers):
        decision = call.decided(Scorer(selector, None))
        assert decision.detections[0].candidate != best[call.pair]
        assert "labelled 'dog', which is not what was asked for" in decision.candidates[best[call.pair]].reason
    unlabelled, labelled = (choose_offline(selector, collection, answers=a) for a in ((), answers))
    assert labelled.iou.mean() < unlabelled.iou.mean()
    again = choose_offline(selector, collection, answers=[a | {"text": boxes("dog")} for a in answers])
    np.testing.assert_array_equal(again.iou, unlabelled.iou)  # all are labelled so: none ranks below another
