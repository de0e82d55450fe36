"""What a launcher's variables in the environment do to the commands: nothing, but in Lightning's own processes."""

import os
import subprocess
import sys

import pytest
from made_up_parts import made_up
from typer.testing import CliRunner

from training.cli.main import app
from training.fitting.artifacts import output_folder
from training.fitting.processes import LAUNCHERS, STARTED_BY, first_process, is_further_process

ASK = "from training.fitting.processes import is_further_process; print(is_further_process())"
START = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ASK!r}], check=True)"


@pytest.fixture(params=["LOCAL_RANK", "NODE_RANK"])
def launched(request, monkeypatch):
    """The variable of a launcher that has nothing to do with the command."""
    monkeypatch.setenv(request.param, "1")
    return request.param


def acs_train(*words):
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_results_are_kept_whatever_the_environment_says(launched, tmp_path):
    made_up(tmp_path / "store", pairs=150)
    made_up(tmp_path / "fresh", seed=1, temperature=0.5)
    out = tmp_path / "files"
    device = ("--device", "cpu")
    acs_train("fit", "--store", tmp_path / "store", "--out", out, "--work", tmp_path / "w", "--epochs", 1, *device)
    assert (out / "regressor.safetensors").is_file() and (tmp_path / "w" / "last.ckpt").is_file()
    acs_train("analyze", "--store", tmp_path / "store", "--out", out, "--draws", 10)
    assert (out / "heads.json").is_file()
    acs_train("calibrate", "--store", tmp_path / "fresh", "--out", out)
    assert (out / "calibration-acs-free.json").is_file()
    assert os.environ[launched] == "1"


def test_an_output_folder_is_one_whatever_the_environment_says(launched, tmp_path):
    with output_folder(tmp_path / "out", "acs-train fit") as folder, folder.stage() as staged:
        (staged / "a").write_text("1")
    assert (tmp_path / "out" / "a").read_text() == "1"


@pytest.mark.parametrize(("code", "rank", "further"), [(ASK, "1", "True"), (ASK, "0", "False"), (START, "1", "False")])
def test_a_process_of_lightning_is_known_by_who_started_it(code, rank, further):
    with first_process():
        environ = {**os.environ, "LOCAL_RANK": rank}  # as its launcher starts them
        done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == further


def test_the_environment_is_as_before(monkeypatch, launched):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.delenv("GROUP_RANK", raising=False)
    before = dict(os.environ)
    with first_process():
        assert not set(LAUNCHERS) & set(os.environ) and os.environ[STARTED_BY] == str(os.getpid())
        os.environ["LOCAL_RANK"] = "0"  # as Lightning does
    assert dict(os.environ) == before


def test_a_further_process_writes_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv(STARTED_BY, str(os.getppid()))
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert is_further_process()
    with first_process():
        assert is_further_process()
        with output_folder(tmp_path / "out", "acs-train fit") as folder, folder.stage() as staged:
            (staged / "a").write_text("1")
    assert not (tmp_path / "out").exists() and not staged.exists()
