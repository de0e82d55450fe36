from collections import Counter

from eval_parts import CATEGORIES, SQUARE, evaluation, near, question
from hypothesis import given, settings
from hypothesis import strategies as st

from acs_core.evaluation.cases import choose_cases
from acs_core.evaluation.metrics import measure
from acs_core.evaluation.records import Group, Prediction, Run
from acs_core.geometry import Box

FAR = Box(300, 300, 340, 340)
HIT, MISS = Prediction((near(SQUARE, 0.8),)), Prediction((FAR,))
MEASURED = measure(evaluation(200, several=False).groups[0], 100)


def two(greedy, ours, objects="single", questions=None):
    questions = questions or tuple(question(i) for i in range(len(greedy)))
    runs = Run("Greedy", None, 1, tuple(greedy), "baseline"), Run("acs", 0.5, 10, tuple(ours))
    return measure(Group("g", objects, questions, runs), 100)


def test_outcomes_by_hand():
    questions = (*(question(i) for i in range(4)), question(4, truth=()))
    greedy, ours = [MISS, HIT, MISS, HIT, MISS], [HIT, MISS, Prediction(), HIT, Prediction()]
    cases = choose_cases(two(greedy, ours, questions=questions), 10)
    assert {c.question.key.split(":")[0]: c.outcome for c in cases.shown} == {
        "0": "won",
        "1": "lost",
        "2": "wrong",
        "3": "right",
        "4": "won",  # nothing is there, and greedy says there is
    }
    assert cases.totals == {"won": 2, "lost": 1, "wrong": 1, "right": 1} and cases.compared
    assert [p.name for p in cases.shown[0].panels] == ["Greedy", "acs τ 0.5"]
    assert [p.right for p in cases.shown[0].panels] == [False, True]


def test_several_objects_are_won_by_what_is_found():
    both = (question(0, truth=(SQUARE, FAR)),)
    one, every, many = Prediction((SQUARE,)), Prediction((SQUARE, FAR)), Prediction((SQUARE, FAR, FAR))
    answers = [(one, every), (every, one), (every, many), (every, every), (one, one)]
    outcomes = [choose_cases(two([a], [b], "several", both), 1).shown[0].outcome for a, b in answers]
    assert outcomes == ["won", "lost", "lost", "right", "wrong"]


def test_a_run_alone_is_right_or_wrong():
    run = Run("published", 0.5, 10, (HIT, MISS))
    cases = choose_cases(measure(Group("g", "single", (question(0), question(1)), (run,)), 100), 5)
    assert not cases.compared and Counter(c.outcome for c in cases.shown) == {"right": 1, "wrong": 1}
    assert all(len(c.panels) == 1 for c in cases.shown)


@given(st.integers(0, 250))
@settings(max_examples=20)
def test_as_many_as_wanted_and_as_there_are(count):
    cases = choose_cases(MEASURED, count)
    assert len(cases.shown) == min(count, 200) and sum(cases.totals.values()) == 200
    assert len({c.question.key for c in cases.shown}) == len(cases.shown)


def test_the_choice_is_mixed_and_in_order():
    cases = choose_cases(MEASURED, 40)
    outcomes = [c.outcome for c in cases.shown]
    assert outcomes == sorted(outcomes, key=["won", "lost", "wrong", "right"].index)
    assert set(outcomes) == {"won", "lost", "wrong", "right"}
    assert {c.question.category for c in cases.shown if c.outcome == "won"} == set(CATEGORIES)


def test_the_largest_changes_of_each_category_come_first():
    shown = [c for c in choose_cases(MEASURED, 60).shown if c.outcome == "won"]
    for category in CATEGORIES:
        change = [c.panels[1].iou - c.panels[0].iou for c in shown if c.question.category == category]
        assert change == sorted(change, reverse=True)


def test_another_run_may_be_asked_for():
    runs = MEASURED.group.runs
    wanted = next(r for r, run in enumerate(runs) if run.method == "MajVote")
    assert choose_cases(MEASURED, 5, wanted).shown[0].panels[1].name.startswith("MajVote")
    alone = choose_cases(MEASURED, 5, MEASURED.reference)
    assert not alone.compared and alone.shown[0].panels[0].name == "Greedy"
    assert choose_cases(MEASURED, 5).shown[0].panels[1].name.startswith("acs-learned")
