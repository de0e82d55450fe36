"""Fits the attention-IoU regressor to collected candidates (paper equation 1, appendix A.2), with Lightning."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader

from acs_core.regressor import AttentionIoURegressor
from training.batches import Batch, loader
from training.errors import DataError
from training.metrics import Agreement, agreement
from training.quantise import decode_on_device
from training.regression import BestInMemory, FitConfig, Notes, Progress, Regression
from training.store import Collection

MIN_CANDIDATES, MIN_IMAGES = 100, 5


@dataclass(frozen=True)
class FitResult:
    """``held`` on the held-out images (table 3); ``train`` and ``validation`` index the candidates, ``predicted``
    (len(validation),) is what the regressor says about the latter. ``history`` has a row for each epoch: epoch,
    train_mse, val_mse, val_mae, val_r. ``best_epoch``'s weights are kept."""

    regressor: AttentionIoURegressor
    held: Agreement
    predicted: np.ndarray
    best_epoch: int
    history: tuple[dict[str, float], ...]
    train: np.ndarray
    validation: np.ndarray

    @property
    def epochs(self) -> int:
        """How many epochs were trained."""
        return len(self.history)


def split_by_image(images: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Candidate indices (train, validation) such that no image (``images`` (C,) ids) is in both."""
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
    workers: int = 0,
) -> FitResult:
    """Trains on ``data.maps`` (C, 4, L, K, h, w) against ``data.iou`` (C,); keeps the weights of the best epoch.

    ``work`` keeps a checkpoint of the last epoch, from which a stopped run goes on, and of the best. ``device`` "auto"
    takes all GPUs, or the CPU where there is none; ``workers`` processes read maps ahead of the training.
    ``progress`` is called with (epoch, training loss, validation loss).

    Raises:
        DataError: too little data, no images for one of the two sides, or ``work`` holds a fit of something else.
    """
    config = config or FitConfig()
    train, validation = split(data, config)
    folder = _open(work, data, config) if work else None
    lightning.seed_everything(config.seed, verbose=False)
    model = Regression(data.maps.shape[2:4], config)
    notes = Notes(progress, [])
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
            logger=False,
            enable_checkpointing=folder is not None,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # the loaders give every process its own batches
        )
        last = folder / "last.ckpt" if folder else None
        resume = str(last) if last and last.exists() else None
        if resume:
            _catch_up(train_batches, resume)
        trainer.fit(model, train_batches, held_batches, ckpt_path=resume, weights_only=False)
    if trainer.interrupted:
        raise KeyboardInterrupt
    if not trainer.is_global_zero:
        sys.exit(0)  # the first process of several goes on alone
    if folder:
        state = torch.load(folder / "best.ckpt", map_location="cpu", weights_only=False)["state_dict"]
        model.load_state_dict(state)
    regressor = model.regressor.cpu().eval()
    predicted = predict(regressor, data, validation)
    rows = tuple(notes.rows)
    best_epoch = int(min(rows, key=lambda r: r["val_mse"])["epoch"])
    return FitResult(
        regressor, agreement(predicted, data.iou[validation]), predicted, best_epoch, rows, train, validation
    )


def split(data: Collection, config: FitConfig) -> tuple[np.ndarray, np.ndarray]:
    """Candidate indices (train, validation), image by image.

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


def predict(regressor: AttentionIoURegressor, data: Collection, index: np.ndarray, batch: int = 256) -> np.ndarray:
    """Predicted IoU (len(index),) float32, in evaluation mode."""
    regressor.eval()
    device = next(regressor.parameters()).device
    chunks = []
    with torch.inference_mode():
        for start in range(0, len(index), batch):
            codes, unit = data.maps.coded(index[start : start + batch])
            maps = decode_on_device(torch.from_numpy(codes).to(device), torch.from_numpy(unit).to(device))
            chunks.append(regressor(maps).cpu().numpy())
    return np.concatenate(chunks) if chunks else np.zeros(0, np.float32)


def _catch_up(batches: DataLoader[Batch], checkpoint: str) -> None:
    """Tells the sampler where a resumed run begins: the trainer does so only after the first order was drawn."""
    loops = torch.load(checkpoint, map_location="cpu", weights_only=False)["loops"]
    batches.sampler.set_epoch(loops["fit_loop"]["epoch_progress"]["current"]["processed"])  # type: ignore[attr-defined]


def _open(folder: Path, data: Collection, config: FitConfig) -> Path:
    """The folder of checkpoints, which belongs to one collection and one configuration."""
    told = json.dumps([data.manifest, data.maps.shape, data.iou.round(4).tolist()], sort_keys=True, default=str)
    mine = {"config": asdict(config), "collection": hashlib.sha256(told.encode()).hexdigest()[:16]}
    file = folder / "fit.json"
    if file.exists():
        try:
            found = json.loads(file.read_text())
        except ValueError:
            found = {}
        if found != mine:
            what = "another collection" if found.get("collection") != mine["collection"] else "other settings"
            raise DataError(f"{folder} holds a fit of {what}: delete it, or choose another folder (--work)")
    else:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        file.write_text(json.dumps(mine, indent=1) + "\n")
    return folder


class _quiet(warnings.catch_warnings):
    """Lightning talks about hardware that is not there and about loaders that are meant to be as they are."""

    def __enter__(self) -> Any:
        entered = super().__enter__()
        warnings.filterwarnings("ignore", module="lightning.*")
        warnings.filterwarnings("ignore", module="torchmetrics.*")
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        return entered
