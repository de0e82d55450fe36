"""The files for GitHub and for pre-commit can be read, and agree with the package and with make lint."""

import ast
import re
import tomllib
import xml.etree.ElementTree as ET

import pytest
import yaml

ROOMS = ("acs_core", "acs_ros", "training")


@pytest.fixture(scope="module")
def citation(repo):
    return yaml.safe_load((repo / "CITATION.cff").read_text())


def test_the_citation_is_that_of_this_version(citation, repo):
    package = ET.parse(repo / "package.xml").getroot()
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert citation["version"] == package.findtext("version")
    assert citation["license"] == package.findtext("license")
    assert citation["authors"] == [{"name": package.findtext("maintainer")}]


def test_the_paper_is_cited_as_the_readme_names_it(citation, repo):
    [paper] = citation["references"]
    readme = " ".join((repo / "README.md").read_text().split())
    first = paper["authors"][0]
    assert f"*{paper['title']}* ({first['family-names']} et al., {first['affiliation']})" in readme


def test_pre_commit_runs_what_make_lint_runs_and_downloads_nothing(repo):
    [group] = yaml.safe_load((repo / ".pre-commit-config.yaml").read_text())["repos"]
    assert group["repo"] == "local"
    assert {hook["language"] for hook in group["hooks"]} == {"system"}
    hooks = {re.sub(r" --force-exclude", "", hook["entry"]) for hook in group["hooks"]}
    [rule] = re.findall(r"^lint:.*\n((?:\t.*\n)+)", (repo / "Makefile").read_text(), re.MULTILINE)
    made = {re.sub(r"^\t@\$\(RUN\)/(.*?)(?: --check)?(?: \.)?$", r".venv/bin/\1", line) for line in rule.splitlines()}
    assert hooks == made


def test_import_linter_looks_at_every_package(repo):
    rooms = {path.parent.name for path in repo.glob("*/__init__.py")}
    config = tomllib.loads((repo / "pyproject.toml").read_text())["tool"]
    assert set(config["importlinter"]["root_packages"]) == rooms == set(config["coverage"]["run"]["source_pkgs"])


def test_a_class_name_means_one_thing(repo):
    files: dict[str, set[str]] = {}
    for file in (path for room in ROOMS for path in (repo / room).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                files.setdefault(node.name, set()).add(str(file.relative_to(repo)))
    assert len(files) > 200
    assert {name: sorted(places) for name, places in files.items() if len(places) > 1} == {}


def test_files_are_neither_chopped_nor_long(repo):
    lengths = {path: len(path.read_text().splitlines()) for room in ROOMS for path in (repo / room).rglob("*.py")}
    assert {str(path): length for path, length in lengths.items() if length > 450} == {}
    short = [path for path, length in lengths.items() if length < 60]
    assert len(short) <= len(lengths) / 8, sorted(map(str, short))
