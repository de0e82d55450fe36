import numpy as np
import pytest
from eval_parts import SQUARE, evaluation, near, question
from sklearn.metrics import precision_recall_fscore_support

from acs_core.evaluation.metrics import measure
from acs_core.evaluation.records import Group, Prediction, Run
from acs_core.geometry import Box

FAR = Box(300, 300, 340, 340)


def hand_made():
    questions = (*(question(i) for i in range(4)), question(4, truth=()), question(5, truth=()))
    hit, miss, none = Prediction((near(SQUARE, 0.8),), (0.9,)), Prediction((FAR,), (0.4,)), Prediction(reason="nothing")
    greedy = Run("Greedy", None, 1, (hit, miss, none, hit, none, none), "baseline")
    ours = Run("acs", 0.5, 10, (hit, hit, miss, hit, miss, none))
    return Group("small", "single", questions, (greedy, ours))


def test_a_table_worked_by_hand():
    measured = measure(hand_made())
    greedy, ours = measured.scores
    assert (greedy.accuracy.value, ours.accuracy.value) == (0.5, 0.75)
    assert (greedy.miou.value, ours.miou.value) == pytest.approx((0.4, 0.6))
    assert greedy.gain.value == 0 and ours.gain.value == pytest.approx(0.5)
    assert greedy.answered == 0.5 and ours.answered == pytest.approx(5 / 6)
    assert (greedy.precision.value, greedy.recall.value) == pytest.approx((2 / 3, 0.5))
    assert (ours.precision.value, ours.recall.value, ours.f1.value) == pytest.approx((3 / 5, 3 / 4, 2 / 3))
    assert (greedy.false_alarms, ours.false_alarms) == (0, 0.5)
    against = measured.against(1, 0)
    assert (against.won, against.lost, against.accuracy.value) == (1, 0, 0.25)
    assert measured.reference == 0 and measured.ours == 1


def test_precision_and_recall_are_sklearns():
    group = evaluation(30).groups[1]
    measured = measure(group)
    for run, scores in enumerate(measured.scores):
        o = measured.outcomes
        right, wrong = int(o.hits[run].sum()), int((o.told[run] - o.hits[run]).sum())
        missed = int(o.truths.sum()) - right
        truth, found = [1] * right + [0] * wrong + [1] * missed, [1] * (right + wrong) + [0] * missed
        expected = precision_recall_fscore_support(truth, found, average="binary")[:3]
        assert (scores.precision.value, scores.recall.value, scores.f1.value) == pytest.approx(expected)


def test_the_order_of_questions_does_not_change_values():
    group = evaluation(40, several=False).groups[0]
    order = np.random.default_rng(1).permutation(40)
    runs = tuple(
        Run(r.method, r.temperature, r.samples, tuple(r.answers[i] for i in order), r.kind, r.learned)
        for r in group.runs
    )
    mixed = Group(group.name, group.objects, tuple(group.questions[i] for i in order), runs)
    for there, back in zip(measure(group).scores, measure(mixed).scores, strict=True):
        assert there.accuracy.value == pytest.approx(back.accuracy.value)
        assert there.miou.value == pytest.approx(back.miou.value)


def test_the_runs_that_tables_show():
    group = evaluation(20, temperatures=(0.5, 1.0), samples=(3, 10)).groups[0]
    measured = measure(group)
    shown = [group.runs[r] for r in measured.main_runs]
    assert measured.main_samples == 10
    assert {(r.method, r.samples) for r in shown} >= {("Greedy", 1), ("acs-free", 10), ("Pass@1", 10)}
    assert not any(r.samples == 3 for r in shown)
    named = [group.runs[r] for r in measured.highlights]
    assert [r.method for r in named] == ["Greedy", "acs-free", "acs-learned"]
    best = max(measured.scores[r].accuracy.value for r in measured.main_runs if group.runs[r].method == "acs-free")
    assert measured.scores[measured.highlights[1]].accuracy.value == best
    assert group.runs[measured.ours].kind == "ours"


def test_a_method_alone_and_one_without_scores():
    questions = (question(0), question(1))
    run = Run("published", 0.5, 10, (Prediction((SQUARE,), latency_ms=100.0), Prediction(latency_ms=300.0)))
    measured = measure(Group("bag", "single", questions, (run,)))
    assert measured.reference is None and measured.ours == 0 and measured.highlights == (0,)
    assert measured.scores[0].gain is None and measured.scores[0].false_alarms is None
    assert measured.calibration(0) is None and measured.risk_coverage(0) is None
    assert measured.error_of_all(0) is None and measured.auroc(0) is None
    latency = measured.latency(0)
    assert (latency.count, latency.p50, latency.p90, latency.mean) == (2, 200, 280, 200)
    assert latency.p99 == pytest.approx(298)


def test_scores_are_judged_by_their_own_boxes():
    measured = measure(hand_made())
    assert measured.calibration(1).count == 5
    assert measured.calibration(1).error == pytest.approx(3 / 5 * 0.1 + 2 / 5 * 0.4)
    assert measured.error_of_all(1) == pytest.approx(3 / 6 * 0.1 + 2 / 6 * 0.4)  # without a box: score 0, and wrong
    assert measured.risk_coverage(1).accuracy.tolist() == pytest.approx([1, 3 / 5, 3 / 6])
    assert measured.latency(1) is None


@pytest.mark.parametrize("change", [{"objects": "many"}, {"runs": "short"}, {"runs": "twice"}])
def test_groups_that_cannot_be(change):
    group = hand_made()
    if change.get("runs") == "short":
        runs = (Run("acs", 0.5, 10, group.runs[0].answers[:2]),)
    else:
        runs = group.runs * (2 if change.get("runs") == "twice" else 1)
    with pytest.raises(ValueError, match="small"):
        Group("small", change.get("objects", "single"), group.questions, runs)
