"""Dependencies: their licences are listed, and the audit tells a clean bill from no answer."""

import re

import pytest
from audit import CLEAN, FOUND, UNREACHABLE, judge
from licences import PERMISSIVE, STRONG, UNKNOWN, WEAK, kind_of, pinned


def listed(repo):
    """Name -> (version, kind) of docs/licences.md."""
    found, kind = {}, ""
    for line in (repo / "docs" / "licences.md").read_text().splitlines():
        if line.startswith("## "):
            kind = line[3:].lower()
        elif row := re.fullmatch(r"\| ([\w.-]+) \| ([0-9][\w.+]*) \| (.+) \|", line):
            found[row[1]] = (row[2], kind)
    return found


def test_the_licences_are_those_of_the_locked_packages(repo):
    assert {name: version for name, (version, _) in listed(repo).items()} == pinned(), "run tools/licences.py"


def test_no_copyleft_licence_comes_in_unseen(repo):
    """docutils is public domain but for a file or two that acs does not use; tests and set-up need it, acs does not."""
    kinds = {kind: {n for n, (_, k) in listed(repo).items() if k == kind} for kind in (STRONG, WEAK, UNKNOWN)}
    assert kinds[STRONG] == {"docutils"}
    assert kinds[WEAK] == {"certifi", "hypothesis", "pathspec", "tqdm"}
    assert kinds[UNKNOWN] <= {"ros-wheels-bootstrapper"}


@pytest.mark.parametrize(
    ("licence", "kind"),
    [
        ("Apache Software License", PERMISSIVE),
        ("BSD-3-Clause", PERMISSIVE),
        ("MIT OR Apache-2.0", PERMISSIVE),
        ("MPL-2.0 AND MIT", WEAK),
        ("GNU Lesser General Public License v3 (LGPLv3)", WEAK),
        ("GPL-3.0-or-later", STRONG),
        ("AGPL-3.0", STRONG),
        ("GNU General Public License (GPL), MIT", STRONG),
        ("", UNKNOWN),
        ("see the file", UNKNOWN),
    ],
)
def test_licences_are_sorted(licence, kind):
    assert kind_of(licence) == kind


def test_sprites_bring_their_licences(repo):
    sprites = repo / "training" / "assets" / "sprites"
    for folder in (p for p in sprites.iterdir() if p.is_dir()):
        assert any(p.name.startswith("LICENSE") for p in folder.iterdir()), folder


def dependency(name, *vulnerabilities):
    return {"name": name, "version": "1", "vulns": [{"id": v, "fix_versions": ["2"]} for v in vulnerabilities]}


SKIPPED = {"name": "ros-x", "version": "1", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("report", "status", "said"),
    [
        ({"dependencies": [dependency("torch"), SKIPPED]}, CLEAN, "0 advisories for 1 packages; 1 are not on PyPI"),
        ({"dependencies": [dependency("torch"), dependency("x", "PYSEC-1")]}, FOUND, "x 1: PYSEC-1, fixed in 2"),
        ({"dependencies": [SKIPPED, {"name": "torch", "version": "1", "skip_reason": "?"}]}, UNREACHABLE, "skipped"),
        ({"error": "timed out"}, UNREACHABLE, "no answer (timed out)"),
    ],
)
def test_an_audit_without_an_answer_is_no_pass(report, status, said):
    verdict = judge([report])
    assert verdict.status == status and said in "\n".join(verdict.lines)


def test_every_lock_file_must_be_answered_for():
    clean = {"dependencies": [dependency("torch")]}
    assert judge([clean, clean]).status == CLEAN
    assert judge([clean, {"error": "duplicate requirements"}]).status == UNREACHABLE
    again = {"dependencies": [dependency("torch", "PYSEC-2")]}  # another version, in another environment
    assert judge([clean, again]).status == judge([again, clean]).status == FOUND
