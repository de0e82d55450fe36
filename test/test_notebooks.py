"""Every cell of the notebooks runs, in one process for both: no notebook server is needed."""

import ast
import json
import shutil

import pytest


def run_cells(file):
    """Execute the code of a notebook as a notebook does; returns the values of the last expressions of its cells."""
    space, values = {"__name__": "__main__"}, []
    for cell in json.loads(file.read_text())["cells"]:
        if cell["cell_type"] == "code":
            tree = ast.parse("".join(cell["source"]))
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, file.name, "exec"), space)
            if last is not None:
                values.append(eval(compile(ast.Expression(last.value), file.name, "eval"), space))
    return values, space


@pytest.fixture
def notebooks(repo, tmp_path, monkeypatch):
    """A copy of the notebooks and of the picture that they read, as the working folder."""
    shutil.copytree(repo / "docs/notebooks", tmp_path / "notebooks")
    shutil.copy(repo / "docs/sample.png", tmp_path)
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path / "notebooks"


def test_library(notebooks, capsys):
    values, space = run_cells(notebooks / "library.ipynb")
    assert [type(value).__name__ for value in values[:3]] == ["Grounder", "GroundingResult", "Image"]
    assert (notebooks / "answer.png").is_file() and (notebooks / "answer.json").is_file()
    assert len(space["refused"]) == 0 and "is below 0.99" in capsys.readouterr().out


def test_training(notebooks):
    values, space = run_cells(notebooks / "training.ipynb")
    assert space["result"].selector == "acs-learned" and len(space["result"].responses) == 4
    assert values[-2] if isinstance(values[-2], list) else values[-1] is None


def test_notebooks_hold_no_outputs(repo):
    for file in (repo / "docs/notebooks").glob("*.ipynb"):
        code = [cell for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "code"]
        assert code and all(not cell["outputs"] and cell["execution_count"] is None for cell in code), file.name
