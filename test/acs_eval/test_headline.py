from eval_parts import SQUARE, evaluation, question

from acs_eval.headline import headlines_of
from acs_eval.records import Answer, Evaluation, Group, Run
from acs_eval.tables import assess, tables_of


def test_headlines_are_the_numbers_of_the_table():
    assessed = assess(evaluation(40), draws=100)
    lines = headlines_of(assessed)
    assert [line.title.split(" τ")[0] for line in lines] == ["Greedy", "acs-free", "acs-learned", "Greedy", "acs-free"]
    table = tables_of(assessed)[0]
    greedy = table.rows[0].cells[2]
    assert lines[0].value == f"{greedy.value:.1f} %" and f"{greedy.low:.1f} to {greedy.high:.1f}" in lines[0].text
    assert "on greedy, p " in lines[1].text and "F1, several" in lines[3].text


def test_a_run_alone_has_one_headline():
    run = Run("published", None, 1, (Answer((SQUARE,)),))
    (line,) = headlines_of(assess(Evaluation("t", (Group("bag", "single", (question(0),), (run,)),)), draws=100))
    assert (line.title, line.value) == ("published", "100.0 %") and "greedy" not in line.text
