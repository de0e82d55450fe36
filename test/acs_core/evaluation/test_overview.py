from eval_parts import evaluation

from acs_core.evaluation.overview import overview_table, tables_of_all
from acs_core.evaluation.tables import assess, tables_of

FIRST, SECOND = evaluation(20), evaluation(20, temperatures=(0.5,), seed=1, title="B")
ASSESSED = [assess(e, draws=100) for e in (FIRST, SECOND)]


def test_the_overview_has_the_columns_of_all_evaluations():
    table = overview_table(ASSESSED)
    assert table.head == [("", 2), ("tiny on made-up", 2), ("B", 2)]
    own = {tuple(c.value for c in row.cells[:2]): row.cells[2] for row in tables_of(ASSESSED[0])[0].rows}
    for row in table.rows:
        assert row.cells[2].value == own[tuple(c.value for c in row.cells[:2])].value
    missing = [row for row in table.rows if row.cells[1].value == 1.0]
    assert missing and all(row.cells[4].value is None for row in missing)
    assert overview_table(ASSESSED[:1]) is None


def test_tables_of_several_evaluations_have_names_of_their_own():
    tables = tables_of_all(ASSESSED)
    assert [t.name for t in tables][:3] == ["overview", "critical-layers", "1-small-accuracy"]
    assert len({t.name for t in tables}) == len({t.title for t in tables}) == len(tables)
    assert tables[2].title == "Accuracy: small (tiny on made-up)"
    assert sum(t.name.endswith("critical-layers") for t in tables) == 1
    assert tables_of_all(ASSESSED[:1]) == tables_of(ASSESSED[0])
