"""Loggers of a fit: CSV works as installed, the others say what they need."""

import csv

import pytest
from made_up_parts import made_up

from acs_core.errors import OutputError
from training.collection.store import read_store
from training.errors import DataError
from training.fitting import loggers
from training.fitting.fit import fit
from training.fitting.loggers import make_loggers
from training.settings import FitConfig


def test_every_epoch_is_logged_and_no_log_is_overwritten(tmp_path):
    made_up(tmp_path / "store")
    data = read_store(tmp_path / "store")
    config = FitConfig(epochs=2, validation_share=0.5, learning_rate=1e-3, batch=32, patience=1)
    for _ in range(2):
        found = fit(data, config, device="cpu", loggers=make_loggers(["csv"], tmp_path / "logs"))
    files = sorted((tmp_path / "logs").rglob("metrics.csv"))
    assert [file.parent.name for file in files] == ["version_0", "version_1"]
    with files[0].open(newline="") as file:
        logged = [float(row["val_mse"]) for row in csv.DictReader(file) if row["val_mse"]]
    assert logged == pytest.approx([row["val_mse"] for row in found.history])


def test_a_logger_without_its_package_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    for name in ("tensorboard", "wandb", "mlflow"):
        with pytest.raises(DataError, match=f"needs {name}: pip install {name}"):
            make_loggers([name], tmp_path / "logs")
    assert make_loggers([], tmp_path / "logs") == [] and not (tmp_path / "logs").exists()


def test_logs_are_not_put_among_files_of_the_user(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="acs did not"):
        make_loggers(["csv"], tmp_path)
