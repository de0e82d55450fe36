"""The Lightning module of the regressors (loss and schedule), the log of its epochs, and its checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import lightning
import torch
import torch.nn.functional as F
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Callback
from torchmetrics import MeanAbsoluteError, MeanSquaredError, PearsonCorrCoef

from acs_core.selection.box_regressor import BoxRegressor
from acs_core.selection.regressor_files import MapRegressor
from training.checkpoint_file import read_state, write_state
from training.collection.part_arrays import decode_on_device
from training.fitting.batches import Batch
from training.settings import FitConfig

Progress = Callable[[int, float, float], None]
R = TypeVar("R", bound=MapRegressor)


def predict_batch(
    regressor: MapRegressor, codes: torch.Tensor, unit: torch.Tensor, boxes: torch.Tensor
) -> torch.Tensor:
    """Predict the IoU (B,) of a batch, whose tensors are on the device of ``regressor``."""
    maps = decode_on_device(codes, unit)
    predicted: torch.Tensor = regressor(maps, boxes) if isinstance(regressor, BoxRegressor) else regressor(maps)
    return predicted


class RegressionModule(lightning.LightningModule, Generic[R]):
    """Lightning module of appendix A.2: mean squared error, Adam, and a cosine schedule over the epochs.

    Args:
        network: the kind of regressor to train.
        shape: numbers (L, K) of layers and heads.
        config: settings.
    """

    def __init__(self, network: type[R], shape: tuple[int, ...], config: FitConfig) -> None:
        super().__init__()
        self.config = config
        layers, heads = shape
        self.regressor = network(layers, heads, input_transform=config.input_transform, dropout=config.dropout)
        self.measures = torch.nn.ModuleDict(
            {"mse": MeanSquaredError(), "mae": MeanAbsoluteError(), "r": PearsonCorrCoef()}
        )

    def on_train_epoch_start(self) -> None:
        """Seed dropout for the epoch, so that a resumed run has the same masks as an uninterrupted one."""
        torch.manual_seed(self.config.seed * 100_003 + self.current_epoch)

    def training_step(self, batch: Batch, number: int) -> torch.Tensor:
        """Return the loss of equation 1."""
        codes, unit, boxes, iou = batch
        loss = F.mse_loss(predict_batch(self.regressor, codes, unit, boxes), iou)
        self.log("train_mse", loss, on_step=False, on_epoch=True, batch_size=len(iou), sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, number: int) -> None:
        """Add one batch of held-out candidates to the metrics."""
        codes, unit, boxes, iou = batch
        predicted = predict_batch(self.regressor, codes, unit, boxes)
        for name, measure in self.measures.items():
            measure.update(predicted, iou)  # type: ignore[operator]
            self.log(f"val_{name}", measure, on_step=False, on_epoch=True, batch_size=len(iou))  # type: ignore[arg-type]

    def configure_optimizers(self) -> Any:
        """Return Adam and a cosine schedule that ends with the last epoch."""
        optimiser = torch.optim.Adam(
            self.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.config.epochs)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}


NOTED = ("epoch", "train_mse", "val_mse", "val_mae", "val_r")


class EpochLog(Callback):
    """Callback that records a row of numbers for each epoch and keeps it across resumes. ``begun`` tells that training
    has begun, after any checkpoint was restored."""

    def __init__(self, progress: Progress, rows: list[dict[str, float]]) -> None:
        self.progress, self.rows, self.begun = progress, rows, False

    @property
    def state_key(self) -> str:
        """Name of the state in checkpoints, also those of earlier versions."""
        return "_Notes"

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Record that training has begun and all states are restored."""
        self.begun = True

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Append the epoch's row."""
        row = {n: float(trainer.callback_metrics[n]) for n in NOTED[1:]}
        row = {"epoch": float(trainer.current_epoch + 1), **row}
        self.rows.append(row)
        self.progress(len(self.rows), row["train_mse"], row["val_mse"])

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"rows": list(self.rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of a resumed run."""
        self.rows[:] = [{name: float(row[name]) for name in NOTED} for row in state_dict["rows"]]


class BestInMemory(Callback):
    """Callback that keeps the weights of the best epoch in memory, for runs without a checkpoint folder."""

    def __init__(self, model: RegressionModule[Any]) -> None:
        self.best, self.state = float("inf"), model.state_dict()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Copy the weights if they are the best so far."""
        held = float(trainer.callback_metrics["val_mse"])
        if held < self.best:
            self.best, self.state = held, {k: v.detach().clone() for k, v in pl_module.state_dict().items()}

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Restore the best weights."""
        pl_module.load_state_dict(self.state)


class CheckedCheckpoints(CheckpointIO):
    """Checkpoint reading and writing for the trainer; see :mod:`training.checkpoint_file`."""

    def __init__(self, advice: str) -> None:
        self._advice = advice

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        write_state(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint onto the CPU. Only tensors and plain values are accepted, whatever ``weights_only`` is."""
        return read_state(Path(path), advice=self._advice)

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)
