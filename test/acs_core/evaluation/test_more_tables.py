from dataclasses import replace

import pytest
from eval_parts import SQUARE, column, evaluation, question, tables_by_name

from acs_core.evaluation.metrics import FEW, measure
from acs_core.evaluation.page import headlines_of
from acs_core.evaluation.records import EVEN_ATTENTION, Evaluation, Group, Prediction, Run
from acs_core.evaluation.tables import assess, tables_of


def test_significance_is_also_against_the_best_free_baseline():
    table = tables_by_name()["small-significance-free"]
    accuracy = column(tables_by_name()["small-accuracy"], "Acc@0.5 %")
    top = max(cell.value for (method, _), cell in accuracy.items() if method in ("Pass@1", "MajVote"))
    name, tau = table.title.removeprefix("Against the best free baseline, ").split(":")[0].split(" τ ")
    assert accuracy[name, float(tau)].value == top
    assert {row.cells[0].value for row in table.rows} == {"acs-free", "acs-learned"}  # neither bounds nor baselines
    best = table.title.split(", ")[1].split(":")[0]
    assert all(best in note for note in table.notes[:2]) and "chosen as the best" in table.notes[-1]
    against_greedy = column(tables_by_name()["small-significance"], "won")
    assert any(row.cells[3] != against_greedy[row.cells[0].value, row.cells[1].value] for row in table.rows)


def test_ours_are_compared_with_consensus_on_the_same_responses():
    group = evaluation(30, several=False).groups[0]
    perfect = tuple(Prediction(q.truth) for q in group.questions)
    nothing = tuple(Prediction(reason="no box") for _ in group.questions)
    more = [
        Run("consensus", 0.5, 10, nothing, "baseline"),
        Run("consensus + second look", 0.5, 10, perfect, "baseline"),
        Run("acs-free + second look", 0.5, 10, nothing, "ours"),
    ]
    whole = Evaluation("t", (replace(group, runs=(*group.runs, *more)),), {})
    table = {t.name: t for t in tables_of(assess(whole, draws=100))}["significance-consensus"]
    gains = column(table, "Acc@0.5, points")
    accuracy = column({t.name: t for t in tables_of(assess(whole, draws=100))}["accuracy"], "Acc@0.5 %")
    # there is no consensus at temperature 1.0
    assert set(gains) == {("acs-free", 0.5), ("acs-learned", 0.5), ("acs-free + second look", 0.5)}
    assert gains["acs-free", 0.5].value == pytest.approx(accuracy["acs-free", 0.5].value)
    assert gains["acs-free + second look", 0.5].value == -100


def test_methods_are_compared_with_themselves_on_even_attention():
    group = evaluation(30, several=False).groups[0]
    nothing = tuple(Prediction(reason="no box") for _ in group.questions)
    runs = (*group.runs, Run("acs-free" + EVEN_ATTENTION, 0.5, 10, nothing, "bound"))
    whole = Evaluation("t", (replace(group, runs=runs),), {})
    tables = {t.name: t for t in tables_of(assess(whole, draws=100))}
    table, accuracy = tables["without-attention"], column(tables["accuracy"], "Acc@0.5 %")
    assert [row.cells[0].value for row in table.rows] == ["acs-free"]
    assert column(table, "gain, points")["acs-free", 0.5].value == accuracy["acs-free", 0.5].value
    assert column(table, "on even attention %")["acs-free", 0.5].value == 0
    assert column(table, "lost")["acs-free", 0.5].value == 0
    others = [row for t in tables.values() if t is not table for row in t.rows]
    assert not any(EVEN_ATTENTION in str(cell.value) for row in others for cell in row.cells)


def test_without_runs_on_even_attention_there_is_no_table_of_them():
    assert "small-without-attention" not in tables_by_name()


def test_without_consensus_nothing_is_compared_with_it():
    assert "small-significance-consensus" not in tables_by_name()


def test_a_second_look_is_no_free_baseline():
    group = evaluation(30, several=False).groups[0]
    perfect = tuple(Prediction(q.truth) for q in group.questions)
    looked = Run("consensus + second look", 0.5, 10, perfect, "baseline")
    measured = measure(replace(group, runs=(*group.runs, looked)), 100)
    assert measured.group.runs[measured.best_free].method in ("Pass@1", "MajVote")


def test_few_questions_have_no_gain_and_no_p_values():
    for count, few in ((FEW - 1, True), (FEW, False)):
        tables = {t.name: t for t in tables_of(assess(evaluation(count, several=False), draws=100))}
        assert ("significance" not in tables and "significance-free" not in tables) is few
        assert any(c.title == "gain on greedy %" for c in tables["accuracy"].columns) is not few
        assert ("too few to compare methods" in tables["accuracy"].notes[0]) is few
        assert [line.value.endswith(" %") for line in headlines_of(assess(evaluation(count, several=False)))] == [
            not few
        ] * 3


def test_significance_is_against_greedy():
    table = tables_by_name()["small-significance"]
    assert ("Greedy", None) not in column(table, "won")
    points, accuracy = column(table, "Acc@0.5, points"), column(tables_by_name()["small-accuracy"], "Acc@0.5 %")
    for key, cell in points.items():
        assert cell.value == pytest.approx(accuracy[key].value - accuracy[("Greedy", None)].value)
    corrected = column(table, "p (Holm)")
    assert corrected[("best of N", 0.5)].value is None
    assert all(corrected[key].value >= cell.value for key, cell in column(table, "p").items() if corrected[key].value)


def test_sizes_and_categories_count_each_question_once():
    tables = tables_by_name()
    assert sum(int(cell.value) for cell in tables["small-size"].rows[-1].cells[2:]) == 40
    assert sum(row.cells[1].value for row in tables["small-category"].rows) == 40
    shown = [c.title for c in tables["small-category"].columns]
    assert shown[:3] == ["Category", "questions", "Greedy"] and len(shown) == 5


def test_reasons_are_counted():
    answers = (
        [Prediction(reason="cut off")] * 2 + [Prediction(reason=f"rare {c}") for c in "abcde"] + [Prediction((SQUARE,))]
    )
    group = Group("g", "single", tuple(question(i) for i in range(8)), (Run("m", None, 1, tuple(answers)),))
    table = tables_of(assess(Evaluation("t", (group,))))[-1]
    assert [c.title for c in table.columns][2:] == ["cut off", "rare a", "rare b", "rare c", "rare d", "other"]
    assert [cell.value for cell in table.rows[0].cells[2:]] == [2, 1, 1, 1, 1, 1]


def test_reasons_that_differ_in_numbers_alone_are_one():
    answers = tuple(Prediction(reason=f"{n} x no box, {10 - n} x cut off") for n in (3, 4, 5))
    group = Group("g", "single", tuple(question(i) for i in range(3)), (Run("m", None, 1, answers),))
    table = tables_of(assess(Evaluation("t", (group,))))[-1]
    assert [c.title for c in table.columns][2:] == ["N x no box, N x cut off"]
    assert table.rows[0].cells[2].value == 3
