"""The fit of the regressor as Lightning knows it: settings, loss and schedule, and what is kept of each epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from torchmetrics import MeanAbsoluteError, MeanSquaredError, PearsonCorrCoef

from acs_core.regressor import AttentionIoURegressor
from training.batches import Batch
from training.quantise import decode_on_device

Progress = Callable[[int, float, float], None]


@dataclass(frozen=True)
class FitConfig:
    """Appendix A.2; ``validation_share`` is ours: the share of images, not of candidates, that are held out.
    ``input_transform`` as in :class:`acs_core.regressor.AttentionIoURegressor`."""

    learning_rate: float = 3e-4
    weight_decay: float = 1e-4
    batch: int = 64
    epochs: int = 100
    patience: int = 15
    min_improvement: float = 0.001
    dropout: float = 0.3
    validation_share: float = 0.2
    input_transform: str = "log_cells"
    seed: int = 0


class Regression(lightning.LightningModule):
    """Appendix A.2 around the regressor: mean squared error, Adam, cosine schedule over the epochs."""

    def __init__(self, shape: tuple[int, ...], config: FitConfig) -> None:
        super().__init__()
        self.config = config
        self.regressor = AttentionIoURegressor(*shape, input_transform=config.input_transform, dropout=config.dropout)
        self.measures = torch.nn.ModuleDict(
            {"mse": MeanSquaredError(), "mae": MeanAbsoluteError(), "r": PearsonCorrCoef()}
        )

    def on_train_epoch_start(self) -> None:
        """Dropout draws as it would have in an unbroken run."""
        torch.manual_seed(self.config.seed * 100_003 + self.current_epoch)

    def training_step(self, batch: Batch, number: int) -> torch.Tensor:
        """The loss of equation 1."""
        codes, unit, iou = batch
        loss = F.mse_loss(self.regressor(decode_on_device(codes, unit)), iou)
        self.log("train_mse", loss, on_step=False, on_epoch=True, batch_size=len(iou), sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, number: int) -> None:
        """Counts one batch of held-out candidates in."""
        codes, unit, iou = batch
        predicted = self.regressor(decode_on_device(codes, unit))
        for name, measure in self.measures.items():
            measure.update(predicted, iou)  # type: ignore[operator]
            self.log(f"val_{name}", measure, on_step=False, on_epoch=True, batch_size=len(iou))  # type: ignore[arg-type]

    def configure_optimizers(self) -> Any:
        """Adam and a cosine schedule that ends with the last epoch."""
        optimiser = torch.optim.Adam(
            self.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.config.epochs)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}


class Notes(Callback):
    """Keeps a row of numbers for each epoch, over a resume too."""

    def __init__(self, progress: Progress, rows: list[dict[str, float]]) -> None:
        self.progress, self.rows = progress, rows

    @property
    def state_key(self) -> str:
        """Its name in checkpoints, those of earlier versions too."""
        return "_Notes"

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Adds the epoch's row."""
        names = ("train_mse", "val_mse", "val_mae", "val_r")
        row = {"epoch": float(trainer.current_epoch + 1), **{n: float(trainer.callback_metrics[n]) for n in names}}
        self.rows.append(row)
        self.progress(len(self.rows), row["train_mse"], row["val_mse"])

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"rows": list(self.rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Of a run that goes on."""
        self.rows[:] = state_dict["rows"]


class BestInMemory(Callback):
    """What a checkpoint of the best epoch does, without a folder."""

    def __init__(self, model: Regression) -> None:
        self.best, self.state = float("inf"), model.state_dict()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keeps the weights where they are the best yet."""
        held = float(trainer.callback_metrics["val_mse"])
        if held < self.best:
            self.best, self.state = held, {k: v.detach().clone() for k, v in pl_module.state_dict().items()}

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Puts the best ones back."""
        pl_module.load_state_dict(self.state)
