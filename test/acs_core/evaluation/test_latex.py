"""LaTeX of tables: no text is a command, environments and braces match, marks and groups are there."""

import re

from eval_parts import evaluation
from hypothesis import given
from hypothesis import strategies as st

from acs_core.evaluation.latex import escaped, to_latex
from acs_core.evaluation.overview import tables_of_all
from acs_core.evaluation.table import Cell, Column, Table, TableRow
from acs_core.evaluation.tables import assess


@given(st.text())
def test_escaped_text_holds_no_character_with_a_meaning(text):
    plain = re.sub(r"\\text[a-z]+\{\}|\$\\[a-z]+\$|\\[&%$#_{}]", "", escaped(text))
    assert not set("\\~^&%$#_{}\n") & set(plain)


def test_every_table_is_balanced_and_has_its_cells():
    tables = tables_of_all([assess(evaluation(12, title=t), draws=100) for t in ("a_1 & b", "c%")])
    for table in tables:
        text = to_latex(table)
        bare = text.replace("\\{", "").replace("\\}", "")
        assert bare.count("{") == bare.count("}")
        assert re.findall(r"\\(begin|end)\{(\w+)\}", text) == [
            ("begin", "table"), ("begin", "tabular"), ("end", "tabular"), ("end", "table"),
        ]  # fmt: skip
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert len(rows) == len(table.rows) + 1 + bool(table.head)
        assert all(len(re.findall(r"(?<!\\)&", row)) == len(table.columns) - 1 for row in rows[bool(table.head) :])


def test_best_cells_intervals_and_groups():
    columns = Column("Method"), Column("Acc", "percent", "COCO"), Column("mIoU", "percent", "COCO")
    cells = Cell("[x] 50 %"), Cell(61.4, 60.0, 62.0, best=True, best_free=True), Cell(None)
    text = to_latex(Table("t", "T", columns, (TableRow(cells),), ("A note.",)))
    assert "{}[x] 50 \\% & \\underline{\\textbf{61.4}} {\\tiny [60.0, 62.0]} & -- \\\\" in text
    assert "\\multicolumn{1}{c}{} & \\multicolumn{2}{c}{COCO} \\\\\n\\cmidrule(lr){2-3}" in text
    assert "A note." in text
    wide = Table("t", "T", (*columns, *(Column(str(k)) for k in range(9))), (TableRow((*cells, *[Cell("")] * 9)),))
    assert "tiny" not in to_latex(wide)
