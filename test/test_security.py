"""Every protection that docs/security.md and docs/reliability.md claim names tests that show it, and they exist."""

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
    assert len(rows) >= 20
    for threat, done, tests in rows:
        assert done and tests, f"no test shows what is done against: {threat}"
        assert set(tests) <= there, f"{set(tests) - there} of {threat!r} do not exist"


def test_every_test_that_the_page_of_reliability_names_exists(repo, there):
    named = set(re.findall(r"`(test_\w+)`", (repo / "docs" / "reliability.md").read_text()))
    assert len(named) > 30
    assert named <= there, f"{named - there} do not exist"


def test_the_limits_that_are_named_are_parameters(rows):
    from acs_ros.node.parameter_table import SPECS

    named = {name for _, done, _ in rows for name in re.findall(r"`((?:max|accept)_\w+)`", done)}
    assert {"max_image_pixels", "max_queries", "accept_tiff", "max_goals"} <= named <= {s.name for s in SPECS}
