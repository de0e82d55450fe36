"""Fits a regressor to collected candidates, as appendix A.2 does the attention-IoU regressor (paper equation 1), with
Lightning."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import Logger

from acs_core.artifacts.sealed import read_sealed, seal
from acs_core.errors import with_file
from acs_core.output import write_text
from acs_core.selection.regressor import AttentionIoURegressor
from acs_core.selection.regressor_files import MapRegressor
from training.checkpoint_file import read_state
from training.collection.store import Collection
from training.data.pairs import ABSENT
from training.errors import DataError
from training.fitting.artifacts import output_folder
from training.fitting.batches import Batch, boxes_of, loader
from training.fitting.metrics import Agreement, agreement
from training.fitting.processes import first_process
from training.fitting.read_ahead import ReadAhead
from training.fitting.regression import (
    BestInMemory,
    CheckedCheckpoints,
    EpochLog,
    FitConfig,
    Progress,
    R,
    RegressionModule,
    predict_batch,
)

MIN_CANDIDATES, MIN_IMAGES = 100, 5


@dataclass(frozen=True)
class FitResult(Generic[R]):
    """Result of :func:`fit_network`.

    Attributes:
        regressor: the regressor, with the weights of the best epoch.
        held: agreement with the true IoU on the held-out images (table 3).
        predicted: (len(validation),) predicted IoU of the held-out candidates.
        best_epoch: the epoch whose weights are kept.
        history: a row for each epoch: epoch, train_mse, val_mse, val_mae, val_r.
        train: indices of the training candidates.
        validation: indices of the held-out candidates.
    """

    regressor: R
    held: Agreement
    predicted: np.ndarray
    best_epoch: int
    history: tuple[dict[str, float], ...]
    train: np.ndarray
    validation: np.ndarray

    @property
    def epochs(self) -> int:
        """Number of trained epochs."""
        return len(self.history)


def split_by_image(images: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split candidates into training and validation such that no image (``images`` (C,) ids) is in both; returns their
    indices."""
    unique = np.unique(images)
    held = np.random.default_rng(seed).permutation(unique)[: max(1, round(share * len(unique)))]
    inside = np.isin(images, held)
    return np.flatnonzero(~inside), np.flatnonzero(inside)


def fit(
    data: Collection,
    config: FitConfig | None = None,
    work: Path | None = None,
    progress: Progress = lambda epoch, loss, held: None,
    device: str = "auto",
    workers: int | None = None,
    loggers: Sequence[Logger] = (),
) -> FitResult[AttentionIoURegressor]:
    """Train the attention-IoU regressor; arguments and errors are those of :func:`fit_network`."""
    return fit_network(AttentionIoURegressor, data, config, work, progress, device, workers, loggers)


def fit_network(
    network: type[R],
    data: Collection,
    config: FitConfig | None = None,
    work: Path | None = None,
    progress: Progress = lambda epoch, loss, held: None,
    device: str = "auto",
    workers: int | None = None,
    loggers: Sequence[Logger] = (),
) -> FitResult[R]:
    """Train a regressor on ``data.maps`` (C, 4, L, K, h, w) to predict ``data.iou`` (C,); keeps the weights of the best
    epoch.

    Args:
        network: the kind of regressor.
        data: the collection.
        config: settings.
        work: folder of the checkpoints of the last epoch, for resuming, and of the best epoch; None for no checkpoints.
        progress: called with (epoch, training loss, validation loss).
        device: "auto" for all GPUs, or the CPU without any; or a device.
        workers: number of threads that read maps ahead; None for as many as the CPUs allow. The batches are the same.
        loggers: loggers of Lightning that get the numbers of each epoch (:mod:`training.fitting.loggers`).

    Raises:
        DataError: too little data, no images for one of the two sides, or ``work`` holds another fit or a checkpoint
            that cannot be used; no code in such a checkpoint is run.
        OutputError: ``work`` holds files that acs did not write, or another process fits there.
    """
    config = config or FitConfig()
    train, validation = split(data, config)
    with first_process():
        if work is None:
            return _fit(network, data, config, train, validation, None, progress, device, workers, loggers)
        with output_folder(work, "acs-train fit --work", inputs=data.maps.files), with_file(work, only_unnamed=True):
            folder = _open(work, data, config)
            return _fit(network, data, config, train, validation, folder, progress, device, workers, loggers)


def _fit(
    network: type[R],
    data: Collection,
    config: FitConfig,
    train: np.ndarray,
    validation: np.ndarray,
    folder: Path | None,
    progress: Progress,
    device: str,
    workers: int | None,
    loggers: Sequence[Logger],
) -> FitResult[R]:
    lightning.seed_everything(config.seed, verbose=False)
    model = RegressionModule(network, data.maps.shape[2:4], config)
    notes = EpochLog(progress, [])
    # an epoch's numbers are complete only at its end, hence there
    kept: dict[str, Any] = {"save_on_train_epoch_end": True, "enable_version_counter": False}
    checkpoints = [ModelCheckpoint(folder, "best", monitor="val_mse", **kept), ModelCheckpoint(folder, "last", **kept)]
    stop = EarlyStopping("val_mse", min_delta=config.min_improvement, patience=config.patience)
    train_batches, held_batches = (
        loader(data, index, size, shuffle, config.seed, workers)
        for index, size, shuffle in ((train, config.batch, True), (validation, 4 * config.batch, False))
    )
    with _quiet():
        trainer = lightning.Trainer(
            max_epochs=config.epochs,
            accelerator="auto" if device == "auto" else {"cuda": "gpu"}.get(device.split(":")[0], device),
            devices="auto" if ":" not in device else [int(device.split(":")[1])],
            callbacks=[stop, notes, *(checkpoints if folder else [BestInMemory(model)])],
            logger=list(loggers) or False,
            log_every_n_steps=1,
            enable_checkpointing=folder is not None,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # BatchIndex already distributes the batches
            plugins=[CheckedCheckpoints(_anew(folder))] if folder else None,
        )
        resume = _last(folder, train_batches) if folder else None
        try:
            trainer.fit(model, train_batches, held_batches, ckpt_path=resume, weights_only=True)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            if resume is None or notes.begun:
                raise
            raise DataError(f"{resume} does not belong to this fit ({error!r:.200}): {_anew(folder)}") from error
    if trainer.interrupted:
        raise KeyboardInterrupt
    if not trainer.is_global_zero:
        sys.exit(0)  # only the first process continues after training
    if folder:
        _load_best(model, folder)
    regressor = model.regressor.cpu().eval()
    predicted = predict(regressor, data, validation)
    rows = tuple(notes.rows)
    best_epoch = int(min(rows, key=lambda r: r["val_mse"])["epoch"])
    return FitResult(
        regressor, agreement(predicted, data.iou[validation]), predicted, best_epoch, rows, train, validation
    )


def split(data: Collection, config: FitConfig) -> tuple[np.ndarray, np.ndarray]:
    """Split the candidates into training and validation by image; returns their indices.

    Raises:
        DataError: too few candidates or images, or one of the sides is empty.
    """
    images = len(np.unique(data.image))
    if len(data.iou) < MIN_CANDIDATES or images < MIN_IMAGES:
        raise DataError(
            f"{len(data.iou)} candidates from {images} images are too few to fit a regressor: at least "
            f"{MIN_CANDIDATES} from {MIN_IMAGES}; collect more pairs"
        )
    train, validation = split_by_image(data.image, config.validation_share, config.seed)
    for name, side in (("training", train), ("validation", validation)):
        if len(side) < 2:
            raise DataError(
                f"the {name} side of the split is empty ({config.validation_share:.0%} of {images} images are held "
                "out): collect more pairs or hold out another share"
            )
    return train, validation


def unseen(name: str, trained_on: np.ndarray, data: Collection, other: Collection) -> np.ndarray:
    """Return the indices of the candidates of ``other``, a collection of this ``name``, whose images are not those of
    the candidates ``trained_on`` of ``data``, without those of questions about absent objects.

    Raises:
        DataError: there is none.
    """
    index = np.flatnonzero(other.kinds != ABSENT)
    if other.manifest.get("data") == data.manifest.get("data"):
        index = index[~np.isin(other.image[index], data.image[trained_on])]
    if not len(index):
        raise DataError(f"all images of {name} were trained on: evaluate on other ones")
    return index


def predict(
    regressor: MapRegressor,
    data: Collection,
    index: np.ndarray,
    batch: int = 256,
    in_boxes_of: np.ndarray | None = None,
) -> np.ndarray:
    """Predict the IoU of the candidates ``index``, (len(index),) float32, in evaluation mode. With ``in_boxes_of``, as
    many indices, their attention is read in the boxes of those candidates instead of their own."""
    regressor.eval()
    boxes = boxes_of(data)[index if in_boxes_of is None else in_boxes_of]
    device = next(regressor.parameters()).device
    chunks = []
    with torch.inference_mode():
        for start in range(0, len(index), batch):
            codes, unit = data.maps.coded(index[start : start + batch])
            given = (torch.from_numpy(codes), torch.from_numpy(unit), boxes[start : start + batch])
            chunks.append(predict_batch(regressor, *(part.to(device) for part in given)).cpu().numpy())
    return np.concatenate(chunks) if chunks else np.zeros(0, np.float32)


def _last(folder: Path, batches: ReadAhead[Batch]) -> str | None:
    """Return the checkpoint to resume from, None if there is none.

    Also sets the sampler's epoch: the trainer does so only after the first order was drawn.
    """
    last = folder / "last.ckpt"
    if not last.exists():
        return None
    state = read_state(last, advice=_anew(folder))
    read_state(folder / "best.ckpt", advice=_anew(folder))  # raises before hours of training rather than after
    try:
        epoch = int(state["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
        if not len(state["optimizer_states"]) == len(state["lr_schedulers"]) == 1:
            raise ValueError("it has no state of the optimiser")  # the trainer would silently continue without
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(f"{last} cannot be resumed ({error!r:.200}): {_anew(folder)}") from error
    batches.sampler.set_epoch(epoch)
    return str(last)


def _load_best(model: RegressionModule[Any], folder: Path) -> None:
    """Load the weights of the best epoch into ``model``."""
    best = folder / "best.ckpt"
    state = read_state(best, advice=_anew(folder))
    try:
        model.load_state_dict(state["state_dict"])
    except (AttributeError, LookupError, RuntimeError, TypeError) as error:
        raise DataError(f"{best} does not belong to this regressor ({error!r:.200}): {_anew(folder)}") from error


def _anew(folder: Path | None) -> str:
    return f"delete last.ckpt and best.ckpt in {folder}, fitting then starts anew"


def _open(folder: Path, data: Collection, config: FitConfig) -> Path:
    """Return the folder of checkpoints, after checking that it belongs to this collection and configuration."""
    told = json.dumps([data.manifest, data.maps.shape, data.iou.round(4).tolist()], sort_keys=True, default=str)
    mine = {"config": asdict(config), "collection": hashlib.sha256(told.encode()).hexdigest()[:16]}
    file = folder / "fit.json"
    if file.exists():
        try:
            found = read_sealed(file)
        except ValueError as error:
            raise DataError(
                f"{file} is damaged, or of another version of acs ({error}): delete it, fitting then starts anew"
            ) from error
        if found != mine:
            what = "another collection" if found.get("collection") != mine["collection"] else "other settings"
            raise DataError(f"{folder} holds a fit of {what}: delete it, or choose another folder (--work)")
    else:
        write_text(file, json.dumps(seal(mine), indent=1) + "\n")
    return folder


class _quiet(warnings.catch_warnings):
    """Silence Lightning's hints about unused hardware and about the loaders' settings, which are intended."""

    def __enter__(self) -> Any:
        entered = super().__enter__()
        warnings.filterwarnings("ignore", module="lightning.*")
        warnings.filterwarnings("ignore", module="torchmetrics.*")
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        return entered
