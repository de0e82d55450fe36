"""Loggers of Lightning for the fit of the regressor: CSV files, TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from training.errors import DataError
from training.fitting.artifacts import output_folder

NAME = "acs-fit"
# Logger: packages of which it needs one.
PACKAGES = {"csv": (), "tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "mlflow": ("mlflow",)}


def make_loggers(names: Sequence[str], folder: Path, inputs: Iterable[Path] = ()) -> list[Logger]:
    """Return the loggers ``names``, keys of ``PACKAGES``, which write below ``folder``. Each run gets a sub-folder of
    its own, so that no earlier log is overwritten.

    Raises:
        DataError: a package is not installed; the message says how to install it.
        OutputError: ``folder`` holds files that acs did not write, or is one of ``inputs``.
    """
    for name in names:
        if PACKAGES[name] and not any(find_spec(package) for package in PACKAGES[name]):
            raise DataError(f"--logger {name} needs {PACKAGES[name][0]}: pip install {PACKAGES[name][0]}")
    if not names:
        return []
    with output_folder(folder, "acs-train fit --logs", inputs=inputs):
        pass  # marks it, if it is new or empty
    made: dict[str, Logger] = {}
    for name in dict.fromkeys(names):
        if name == "csv":
            made[name] = CSVLogger(folder, NAME)
        elif name == "tensorboard":
            made[name] = TensorBoardLogger(folder, f"{NAME}-tensorboard")
        elif name == "wandb":
            made[name] = WandbLogger(project=NAME, save_dir=folder)
        else:
            made[name] = MLFlowLogger(NAME, save_dir=str(folder / "mlruns"))
    return list(made.values())
