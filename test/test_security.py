"""Every protection that docs/security.md, reliability.md and defects.md claim names tests, and they exist."""

import ast
import re

import pytest


@pytest.fixture(scope="module")
def rows(repo):
    """The tables of threats: threat, mitigation, names of tests."""
    text = (repo / "docs" / "security.md").read_text().partition("## Threats")[2].partition("\n## ")[0]
    lines = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("| ")
    ]
    return [(threat, done, re.findall(r"`(test_\w+)`", tests)) for threat, done, tests in lines if threat != "threat"]


@pytest.fixture(scope="module")
def there(repo):
    """The names of all tests."""
    return {
        node.name
        for file in (repo / "test").rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef)
    }


def test_every_line_has_a_test_and_every_test_exists(rows, there):
    assert len(rows) >= 50
    for threat, done, tests in rows:
        assert done and tests, f"no test shows what is done against: {threat}"
        assert set(tests) <= there, f"{set(tests) - there} of {threat!r} do not exist"


@pytest.mark.parametrize(("page", "least"), [("reliability.md", 15), ("defects.md", 40)])
def test_every_test_that_a_page_of_reliability_names_exists(repo, there, page, least):
    named = set(re.findall(r"`(test_\w+)`", (repo / "docs" / page).read_text()))
    assert len(named) >= least
    assert named <= there, f"{named - there} do not exist"


def test_every_fixed_defect_names_its_test(repo):
    text = (repo / "docs" / "defects.md").read_text().partition("## By earlier soaks")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.endswith("| test |")]
    assert len(rows) > 30
    assert [row for row in rows if "`test_" not in row and not row.endswith("| the same |")] == []


def test_the_limits_that_are_named_are_parameters(rows):
    from acs_ros.node.parameter_table import SPECS

    named = {name for _, done, _ in rows for name in re.findall(r"`((?:max|accept)_\w+)`", done)}
    assert {"max_image_pixels", "max_queries", "accept_tiff", "max_goals"} <= named <= {s.name for s in SPECS}
