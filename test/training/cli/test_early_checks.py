"""A command takes its output folder before its work: one that it may not write is no news after hours."""

import pytest
from eval_parts import evaluation
from made_up_parts import made_up
from typer.testing import CliRunner

from acs_core.artifacts.heads import Head, HeadFile
from acs_core.errors import OutputError
from acs_core.evaluation.storage import save
from acs_core.output_folder import OutputFolder
from training.cli.main import app


@pytest.fixture
def no_work(monkeypatch):
    """Makes the functions of the given names end the test."""

    def forbid(*names):
        for name in names:
            monkeypatch.setattr(name, lambda *_, **__: pytest.fail("the work begins before the folder is taken"))

    return forbid


def refused(*words):
    with pytest.raises(OutputError) as error:
        CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    return str(error.value)


def test_calibrate_takes_its_folder_before_it_looks_again(identity, tmp_path, no_work):
    no_work("training.cli.files._look_again", "training.fitting.steps.calibrate")
    made_up(tmp_path / "store")
    out = tmp_path / "files"
    words = ["calibrate", "--store", tmp_path / "store", "--out", out, "--second-look", "acs-free"]
    words += ["--model", "tiny-internvl", "--data", tmp_path / "none.json"]
    with OutputFolder(out, "acs-train analyze"):
        HeadFile(identity, "heads", ((Head(1, 0),),) * 4).save(out / "heads.json")
        assert "is being written by acs-train analyze" in refused(*words)


def test_report_takes_its_folder_before_it_draws_samples(tmp_path, no_work):
    no_work("acs_core.evaluation.tables.assess", "acs_core.evaluation.compare.compare")
    save(evaluation(5), tmp_path / "evaluation.json")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "mine.txt").touch()
    for more in ([], [tmp_path / "evaluation.json", "--compare"]):
        words = ["report", tmp_path / "evaluation.json", *more, "--tables", tmp_path / "tables"]
        assert "acs did not make it" in refused(*words)


def test_tiny_eval_takes_its_folder_before_it_renders(tmp_path, no_work):
    no_work("training.cli.tiny._world")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "mine.txt").touch()
    words = ["tiny-eval", "--work", tmp_path / "work", "--pictures", tmp_path / "pictures"]
    assert "acs did not make it" in refused(*words)
