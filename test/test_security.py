"""Every protection that docs/security.md claims names the tests that show it, and they exist."""

import ast
import re

import pytest


@pytest.fixture(scope="module")
def rows(repo):
    """The table of threats: threat, mitigation, names of tests."""
    text = (repo / "docs" / "security.md").read_text().partition("## Threats")[2].partition("\n## ")[0]
    lines = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("| ")
    ]
    return [(threat, done, re.findall(r"`(test_\w+)`", tests)) for threat, done, tests in lines[1:]]


def test_every_line_has_a_test_and_every_test_exists(rows, repo):
    there = {
        node.name
        for file in (repo / "test").rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    assert len(rows) >= 20
    for threat, done, tests in rows:
        assert done and tests, f"no test shows what is done against: {threat}"
        assert set(tests) <= there, f"{set(tests) - there} of {threat!r} do not exist"


def test_the_limits_that_are_named_are_parameters(rows):
    from acs_ros.parameter_table import SPECS

    named = {name for _, done, _ in rows for name in re.findall(r"`((?:max|accept)_\w+)`", done)}
    assert {"max_image_pixels", "max_queries", "accept_tiff", "max_goals"} <= named <= {s.name for s in SPECS}
