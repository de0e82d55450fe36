import json
import sys

import numpy as np
import pytest
from eval_parts import evaluation
from PIL import Image

from acs_core.evaluation.storage import save
from training.cli import main


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs `acs-train report` with these words, in this process: the exit code and what was printed."""

    def go(*words):
        monkeypatch.setattr(sys, "argv", ["acs-train", "report", *map(str, words), "--draws", "100"])
        with pytest.raises(SystemExit) as ended:
            main.main()
            sys.exit(0)
        seen = capsys.readouterr()
        return ended.value.code, " ".join(seen.out.split()), " ".join(seen.err.split())

    return go


@pytest.fixture
def files(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(12):
        Image.fromarray(np.full((48, 64, 3), 20 * number, np.uint8)).save(tmp_path / "images" / f"{number:04d}.png")
    for name, seed in (("a.json.gz", 0), ("b.json", 1)):
        save(evaluation(24, seed=seed, title=name), tmp_path / name)
    return tmp_path / "a.json.gz", tmp_path / "b.json"


def test_tables_page_csv_and_json_of_one_evaluation(run, files, tmp_path):
    page, tables, listed = tmp_path / "page" / "r.html", tmp_path / "tables", tmp_path / "all.json"
    code, out, _ = run(files[0], "--out", page, "--tables", tables, "--json", listed)
    assert code == 0
    for words in ("Accuracy: small", "Precision and recall: several", "Against greedy: small", "wrote"):
        assert words in out
    text = page.read_text()
    assert "data:image/webp" in text and "No picture:" not in text  # found beside the evaluation
    assert json.loads(listed.read_text())["tables"] == json.loads((tables / "tables.json").read_text())
    assert len(list(tables.glob("*.csv"))) == len(json.loads(listed.read_text())["tables"])


def test_two_evaluations_make_one_page_and_files_of_both(run, files, tmp_path):
    page, tables = tmp_path / "r.html", tmp_path / "tables"
    code, out, _ = run(*files, "--out", page, "--title", "Both <sides>", "--pictures", "4", "--tables", tables)
    assert code == 0 and "a.json.gz" in out and "b.json" in out
    assert "<h1>Both &lt;sides&gt;</h1>" in page.read_text()
    names = [t["name"] for t in json.loads((tables / "tables.json").read_text())]
    assert len(set(names)) == len(names) == len(list(tables.glob("*.csv")))
    assert {"1-small-accuracy", "2-small-accuracy", "1-regression"} <= set(names)


def test_a_method_may_be_chosen_for_the_pictures(run, files, tmp_path):
    page = tmp_path / "r.html"
    code, _, err = run(files[0], "--out", page, "--method", "acs-free", "--temperature", "1.0")
    assert code == 0, err
    assert "acs-free τ 1" in page.read_text()
    code, _, err = run(files[0], "--out", page, "--method", "magic")
    assert code == 1 and "no run of magic" in err and "acs-free" in err


def test_a_comparison_prints_and_writes_what_changed(run, files, tmp_path):
    listed = tmp_path / "c.json"
    code, out, _ = run("--compare", files[0], files[0], "--json", listed)
    assert code == 0 and "B - A" in out and "24 questions in both" in out
    assert json.loads(listed.read_text())["tables"][0]["rows"][0]["B - A"]["value"] == 0
    code, _, err = run("--compare", *files)
    assert code == 1 and "true boxes of every question differ" in err


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ((), 2, "EVALUATION"),
        (("none.json",), 1, "does not exist"),
        (("--compare", "A"), 2, "two evaluations"),
        (("--compare", "A", "B", "--out", "x.html"), 2, "no page"),
        (("A", "--temperature", "0.5"), 2, "--method"),
        (("A", "--json", "no/such/folder/x.json"), 2, "does not exist"),
        (("A", "--pictures", "-1"), 2, "--pictures"),
    ],
)
def test_wrong_usage_is_2_and_a_failure_1(run, files, words, code, told):
    given = {"A": files[0], "B": files[1]}
    ended, _, err = run(*(given.get(word, word) for word in words))
    assert ended == code and told in err
