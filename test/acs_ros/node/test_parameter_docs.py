from __future__ import annotations

import pytest

from acs_ros.node.parameter_docs import main, parameter_tables, renewed
from acs_ros.node.parameter_table import GROUPS, SPECS


def test_the_documentation_has_the_parameters_as_they_are(repo):
    text = (repo / "docs" / "node.md").read_text()
    assert renewed(text) == text, "run python -m acs_ros.node.parameter_docs docs/node.md"


def test_every_parameter_has_a_row_with_its_range_and_time():
    rows = [line for line in parameter_tables().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [s.name for s in SPECS]
    assert "| `samples` | integer | `10` | 1 to 256 | any time |" in parameter_tables()
    assert "| `image_transport` | string | `raw` | `raw`, `compressed` | unconfigured |" in parameter_tables()
    assert "| `heads` | string | empty |  | unconfigured |" in parameter_tables()
    assert set(GROUPS) == {"Model", "Asking", "Inputs", "Outputs", "Diagnostics", "Node"}


def test_files_are_renewed_in_place_and_wrong_ones_named(tmp_path, capsys):
    good, bad = tmp_path / "good.md", tmp_path / "bad.md"
    begin = "<!-- parameters: written by python -m acs_ros.node.parameter_docs docs/node.md -->"
    good.write_text(f"before\n{begin}\nwhat stood there\n<!-- end of parameters -->\nafter\n")
    bad.write_text("nothing here\n")
    assert main([str(good)]) == 0
    text = good.read_text()
    assert text.startswith("before\n") and text.endswith("-->\nafter\n") and "`samples`" in text and "stood" not in text
    assert main([str(bad)]) == 1 and "bad.md" in capsys.readouterr().err
    assert main([]) == 2
    with pytest.raises(ValueError, match="must both be in the file"):
        renewed(begin)
