from dataclasses import replace

import numpy as np
import pytest
from helpers.score_parts import one_split
from store_parts import collection_of

from acs_core.artifacts.calibration import Calibration
from acs_core.artifacts.heads import Head, HeadFile
from acs_core.artifacts.presence import PresenceProbe
from acs_core.attention import AttentionNeeds
from acs_core.evaluation.records import EVEN_ATTENTION
from acs_core.geometry import Box, best_iou
from acs_core.selection.box_votes import Consensus
from acs_core.selection.decision import Overlapping
from acs_core.selection.evidence import PRESENCE
from acs_core.selection.registry import (
    AcsFree,
    AcsLearned,
    FirstResponse,
    MajorityVote,
    MeanBox,
    SmallestBox,
    make_selector,
)
from acs_core.selection.scorer import Scorer
from acs_core.types import ABSENT
from training.collection.offline_selection import calls
from training.data.pairs import Pair
from training.errors import DataError
from training.evaluation.runs import RunInput, entropy_profiles, greedy_runs, kind_of, sampled_runs, suppressed

A, B, C = Box(0, 0, 10, 10), Box(2, 0, 12, 10), Box(50, 50, 70, 70)
PASS_AT_1 = FirstResponse("pass-at-1", greedy_decoding=False, first_response_only=True)
FIRST, GREEDY = FirstResponse("first-valid", greedy_decoding=False), FirstResponse("greedy", greedy_decoding=True)


def material(said, truth, objects="single", temperature=0.5, kept=None, unsure=None):
    """``said[pair][response]``: the boxes; ``unsure``: the entropy of every token of a response."""
    pairs = [Pair(i, None, "key", tuple(t)) for i, t in enumerate(truth)]
    data = collection_of(said, truth)
    answers = [
        {
            "pair": p,
            "response": r,
            "text": "[]",
            "num_boxes": len(boxes),
            "finished": True,
            "problem": "" if boxes else ABSENT,
            "token_entropy": [(unsure or {}).get((p, r), 0.0)] * 5,
            "token_logprob": [-(unsure or {}).get((p, r), 0.0)] * 5,
        }
        for p, responses in enumerate(said)
        for r, boxes in enumerate(responses)
    ]
    chosen = frozenset(range(len(said)) if kept is None else kept)
    return RunInput(data, answers, pairs, chosen, objects, temperature)


def boxes_of(runs, method, count):
    (run,) = [r for r in runs if (r.method, r.samples) == (method, count)]
    return [a.boxes for a in run.answers]


SAID = [[[], [A], [C], [B]], [[], [], [], []], [[C], [A], [A], []]]
TRUTH = [[A], [A], [A]]


def test_all_methods_choose_from_the_same_first_responses():
    scorers = [Scorer(s, None) for s in (PASS_AT_1, FIRST, SmallestBox(), MajorityVote(), MeanBox())]
    runs, predicted = sampled_runs(material(SAID, TRUTH), scorers, (1, 4), 4, 0)
    assert predicted is None
    assert boxes_of(runs, "pass-at-1", 4) == boxes_of(runs, "pass-at-1", 1) == [(), (), (C,)]
    assert boxes_of(runs, "first-valid", 1) == [(), (), (C,)]
    assert boxes_of(runs, "first-valid", 4) == [(A,), (), (C,)]
    assert boxes_of(runs, "smallest", 4) == [(A,), (), (A,)]
    assert boxes_of(runs, "majority-vote", 4) == [(A,), (), (A,)]  # no majority of x1 and x2: the first
    ((mean,), none, _) = boxes_of(runs, "mean-box", 4)
    assert mean.as_tuple() == pytest.approx((52 / 3, 50 / 3, 92 / 3, 30)) and none == ()
    assert boxes_of(runs, "oracle", 4) == [(A,), (), (A,)] and boxes_of(runs, "oracle", 1) == [(), (), (C,)]
    assert {r.kind for r in runs if r.method in ("oracle", "random")} == {"bound"}
    assert all(r.temperature == 0.5 and len(r.answers) == 3 and not r.learned for r in runs)
    (first,) = [r for r in runs if (r.method, r.samples) == ("first-valid", 4)]
    assert first.answers[1].reason == f"no box in all 4 responses: {ABSENT}" and first.answers[0].scores == ()


def test_a_random_pick_is_the_same_for_a_seed_and_one_of_the_candidates():
    said = [[[A], [B], [C]] for _ in range(40)]
    drawn = [
        boxes_of(sampled_runs(material(said, [[A]] * 40), [], (3,), 3, seed)[0], "random", 3) for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert {b for boxes in drawn[0] for b in boxes} == {A, B, C}


def test_token_entropies_come_from_the_stored_answers():
    found = material([[[C], [A], [B]]], [[A]], unsure={(0, 0): 0.9, (0, 1): 0.2, (0, 2): 0.5})
    runs, _ = sampled_runs(found, [Scorer(make_selector("token-entropy", None), None)], (1, 3), 3, 0)
    assert boxes_of(runs, "token-entropy", 1) == [(C,)] and boxes_of(runs, "token-entropy", 3) == [(A,)]


def test_pairs_that_are_not_kept_are_not_answered():
    runs, _ = sampled_runs(material(SAID, TRUTH, kept=[2]), [Scorer(FIRST, None)], (4,), 4, 0)
    assert boxes_of(runs, "first-valid", 4) == [(C,)]


def test_several_objects_are_answered_by_clusters():
    said = [[[A, C], [B, C], [C]]]
    runs, _ = sampled_runs(material(said, [[A, C]], "several"), [Scorer(FIRST, None)], (1, 3), 3, 0)
    assert {r.method for r in runs} == {"first-valid"}  # no bounds
    assert boxes_of(runs, "first-valid", 3) == [(A, C)] and boxes_of(runs, "first-valid", 1) == [(A, C)]


def test_greedy_lists_its_boxes_with_and_without_suppression():
    said = [[[A, B, A, C]], [[]]]
    runs = greedy_runs(material(said, [[A, C], [A]], "several", None), Scorer(GREEDY, None))
    assert boxes_of(runs, "greedy", 1) == [(A, B, A, C), ()]
    assert boxes_of(runs, "greedy + NMS 0.5", 1) == [(A, C), ()]  # A and B: IoU 2/3
    assert boxes_of(runs, "greedy + NMS 0.8", 1) == [(A, B, C), ()]
    (single,) = greedy_runs(material(said, [[A, C], [A]], "single", None), Scorer(GREEDY, None))
    assert [a.boxes for a in single.answers] == [(A,), ()] and single.temperature is None
    assert single.answers[1].reason == f"no box in the response: {ABSENT}"


@pytest.mark.parametrize(
    ("boxes", "iou", "kept"),
    [([], 0.5, ()), ([A], 0.5, (A,)), ([A, A], 0.5, (A,)), ([B, A, C], 0.5, (B, C)), ([B, A, C], 0.7, (B, A, C))],
)
def test_the_first_of_overlapping_boxes_is_kept(boxes, iou, kept):
    assert suppressed(boxes, iou) == kept


@pytest.mark.parametrize(
    ("method", "kind"),
    [("greedy", "baseline"), ("mean-box", "baseline"), ("acs-free", "ours"), ("new", "ours"), ("oracle", "bound")],
)
def test_methods_have_a_kind(method, kind):
    assert kind_of(method) == kind


class Stated:
    """A regressor that reads the IoU off the maps and counts what it is shown."""

    shown = 0

    def eval(self):
        return self

    def parameters(self):
        yield np.zeros(1)

    def __call__(self, maps):
        Stated.shown += len(maps)
        return maps[:, 0, 1, 0, 1, 2].clamp(0, 1)


@pytest.fixture
def learned(monkeypatch):
    import torch

    monkeypatch.setattr(Stated, "parameters", lambda self: iter([torch.zeros(1)]))
    monkeypatch.setattr(Stated, "shown", 0)
    return AcsLearned(Stated(), (4, 4))


def test_a_regressor_sees_each_candidate_once_and_is_compared_with_the_truth(learned, collection, identity):
    pairs = [Pair(i, None, "key", ()) for i in range(60)]
    found = RunInput(collection, (), pairs, frozenset(range(50)), "single", 1.0)
    curve = Calibration(
        identity, "acs-learned", "predicted_iou", (0.0, 1.0), (0.1, 0.9), iou_x=(0.0, 1.0), iou_y=(0, 1)
    )
    runs, predicted = sampled_runs(found, [Scorer(learned, curve)], (1, 2, 5), 5, 0)
    assert Stated.shown == len(predicted.truth) == len(predicted.predicted) == 250
    assert np.corrcoef(predicted.predicted, predicted.truth)[0, 1] > 0.8
    (run,) = [r for r in runs if (r.method, r.samples) == ("acs-learned", 5)]
    assert run.learned and run.kind == "ours"
    assert all(0.1 <= a.scores[0] <= 0.9 and a.expected_iou is not None for a in run.answers)
    chosen = [
        best_iou(a.boxes[0], [Box(*b) for b in collection.box[collection.pair == i]]) for i, a in enumerate(run.answers)
    ]
    assert chosen == [1.0] * 50


def test_attention_of_another_step_is_refused(collection):
    pairs = [Pair(i, None, "key", ()) for i in range(60)]
    later = Scorer(replace(SmallestBox(), needs=AttentionNeeds(step="consuming")), None)
    with pytest.raises(DataError, match=r"smallest looks at the consuming step, the collection holds .* emitting"):
        sampled_runs(RunInput(collection, (), pairs, frozenset(), "single", 1.0), [later], (5,), 5, 0)
    other = replace(collection, manifest={**collection.manifest, "step": "consuming"})
    runs, _ = sampled_runs(RunInput(other, (), pairs, frozenset(range(60)), "single", 1.0), [later], (5,), 5, 0)
    assert len(runs) == 3


def test_entropies_are_told_by_group_of_iou_and_coordinate(collection):
    profiles = entropy_profiles(collection)
    assert [(p.coordinate, p.iou_group) for p in profiles[:4]] == [
        ("x1", "IoU > 0.7"),
        ("x1", "0 < IoU ≤ 0.3"),
        ("x1", "IoU = 0"),
        ("y1", "IoU > 0.7"),
    ]
    high, low, none = profiles[:3]
    assert (high.count, none.count) == (int((collection.iou > 0.7).sum()), int((collection.iou == 0).sum()))
    assert len(high.by_layer) == 3 and high.by_layer[1] < low.by_layer[1] < none.by_layer[1]  # the layer that knows


def test_maps_of_another_size_are_refused(learned, collection):
    learned.needs = AcsLearned(Stated(), (6, 6)).needs
    pairs = [Pair(i, None, "key", ()) for i in range(60)]
    with pytest.raises(DataError, match="reads maps of 6 x 6 cells, the collection holds 4 x 4"):
        sampled_runs(RunInput(collection, (), pairs, frozenset(), "single", 1.0), [Scorer(learned, None)], (5,), 5, 0)


@pytest.mark.parametrize("second", [False, True])
def test_collections_without_the_hidden_states_that_a_calibration_reads_are_refused(identity, second):
    model = one_split(PRESENCE, [PRESENCE], threshold=0.0)
    curve = Calibration(identity, "consensus", "agreement", (0.0, 1.0), (0.0, 1.0), score_model=model)
    curve = replace(curve, presence=PresenceProbe((1.0, 0.0), 0.0))
    scorer = Scorer(Consensus(), None, curve) if second else Scorer(Consensus(), curve)
    found = material([[[A]], [[B]], [[]]], TRUTH)
    whole = [answer | {"hidden": [3.0, 0.0]} for answer in found.answers]
    for pair in (0, 1):
        some = [answer for answer in whole if answer["pair"] != pair] + [found.answers[pair]]
        with pytest.raises(DataError, match=r"scores of consensus need the hidden states .* 1 of 2 .* another --work"):
            sampled_runs(replace(found, answers=some), [scorer], (1,), 1, 0)
    without_box = [*whole[:2], found.answers[2]]  # no score is published there
    runs, _ = sampled_runs(replace(found, answers=without_box), [scorer], (1,), 1, 0)
    (run,) = (run for run in runs if run.method == "consensus")
    assert [len(answer.boxes) for answer in run.answers] == [1, 1, 0]


def test_on_even_attention_nothing_tells_the_candidates_apart(collection, identity):
    """The made-up attention knows the IoU: with it the best box is chosen, without it none is better than another."""
    pairs = [Pair(i, None, "key", ()) for i in range(60)]
    found = RunInput(collection, (), pairs, frozenset(range(60)), "single", 1.0)
    heads = HeadFile(identity, "heads", ((Head(1, 0),),) * 4)
    scorers = [Scorer(AcsFree(heads), None), Scorer(AcsLearned(Stated(), (4, 4)), None), Scorer(SmallestBox(), None)]
    runs, _ = sampled_runs(found, scorers, (2, 5), 5, 0, without_attention=True)
    made = {(r.method, r.samples): r for r in runs}
    even, learned = made["acs-free" + EVEN_ATTENTION, 5], made["acs-learned" + EVEN_ATTENTION, 5]
    assert {m for m, _ in made if EVEN_ATTENTION in m} == {even.method, learned.method}
    assert (even.kind, even.learned) == ("bound", False)
    first = {c.pair: c.candidates for c in calls(collection, False)}
    neighbours = {p: Overlapping.of(candidates).neighbours for p, candidates in first.items()}
    expected = [
        (first[p][int(np.argmax(neighbours[p]))].box,) for p in range(60)
    ]  # ties go to the one others agree with
    for run in (even, learned):
        assert [a.boxes for a in run.answers] == expected
        assert run.answers != made[run.method.removesuffix(EVEN_ATTENTION), 5].answers


def test_without_the_flag_there_is_no_run_on_even_attention(collection, identity):
    pairs = [Pair(i, None, "key", ()) for i in range(60)]
    heads = HeadFile(identity, "heads", ((Head(1, 0),),) * 4)
    found = RunInput(collection, (), pairs, frozenset(range(60)), "single", 1.0)
    runs, _ = sampled_runs(found, [Scorer(AcsFree(heads), None)], (5,), 5, 0)
    assert not [r for r in runs if r.method.endswith(EVEN_ATTENTION)]
