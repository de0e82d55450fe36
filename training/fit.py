"""Fits the attention-IoU regressor to collected candidates (paper equation 1, appendix A.2)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from acs_core.regressor import AttentionIoURegressor
from training.errors import DataError
from training.store import Collection


@dataclass(frozen=True)
class FitConfig:
    """Appendix A.2; ``validation_share`` is ours: the share of images, not of candidates, that are held out."""

    learning_rate: float = 3e-4
    weight_decay: float = 1e-4
    batch: int = 64
    epochs: int = 100
    patience: int = 15
    min_improvement: float = 0.001
    validation_share: float = 0.2
    seed: int = 0


@dataclass(frozen=True)
class FitResult:
    """``mae`` and ``pearson`` on the held-out images (table 3); ``train`` and ``validation`` index the candidates."""

    regressor: AttentionIoURegressor
    mae: float
    pearson: float
    epochs: int
    train: np.ndarray
    validation: np.ndarray


def split_by_image(images: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Candidate indices (train, validation) such that no image (``images`` (C,) ids) is in both."""
    unique = np.unique(images)
    held = np.random.default_rng(seed).permutation(unique)[: max(1, round(share * len(unique)))]
    inside = np.isin(images, held)
    return np.flatnonzero(~inside), np.flatnonzero(inside)


def fit(
    data: Collection, config: FitConfig | None = None, progress: Callable[[int, float, float], None] | None = None
) -> FitResult:
    """Trains on ``data.maps`` (C, 4, L, K, h, w) against ``data.iou`` (C,); keeps the weights of the best epoch.

    ``progress`` is called with (epoch, training loss, validation loss).

    Raises:
        DataError: fewer than 100 candidates, or fewer than 5 images.
    """
    config = config or FitConfig()
    if len(data.iou) < 100 or len(np.unique(data.image)) < 5:
        raise DataError(
            f"{len(data.iou)} candidates of {len(np.unique(data.image))} images are too few to fit a regressor: "
            "collect at least 100 of 5"
        )
    torch.manual_seed(config.seed)
    train, validation = split_by_image(data.image, config.validation_share, config.seed)
    regressor = AttentionIoURegressor(*data.maps.shape[2:4])
    optimiser = torch.optim.Adam(regressor.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.epochs)
    rng = np.random.default_rng(config.seed)
    best, best_state = float("inf"), copy.deepcopy(regressor.state_dict())
    reference, waited, epoch = float("inf"), 0, 0  # the loss that the next improvement is measured from
    for epoch in range(1, config.epochs + 1):
        regressor.train()
        losses = []
        order = rng.permutation(train)
        for start in range(0, len(order) - 1, config.batch):  # a last batch of one has no variance to normalise by
            index = order[start : start + config.batch]
            if len(index) < 2:
                continue
            loss = F.mse_loss(regressor(_maps(data, index)), torch.from_numpy(data.iou[index]))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        schedule.step()
        held = float(np.mean((predict(regressor, data, validation) - data.iou[validation]) ** 2))
        if progress:
            progress(epoch, float(np.mean(losses)), held)
        if held < best:
            best, best_state = held, copy.deepcopy(regressor.state_dict())
        if held < reference - config.min_improvement:
            reference, waited = held, 0
        else:
            waited += 1
        if waited >= config.patience:
            break
    regressor.load_state_dict(best_state)
    predicted = predict(regressor, data, validation)
    truth = data.iou[validation]
    flat = predicted.std() == 0 or truth.std() == 0
    pearson = 0.0 if flat else float(np.corrcoef(predicted, truth)[0, 1])
    return FitResult(regressor.eval(), float(np.abs(predicted - truth).mean()), pearson, epoch, train, validation)


def predict(regressor: AttentionIoURegressor, data: Collection, index: np.ndarray, batch: int = 256) -> np.ndarray:
    """Predicted IoU (len(index),) float32, in evaluation mode."""
    regressor.eval()
    with torch.inference_mode():
        chunks = [regressor(_maps(data, index[i : i + batch])).numpy() for i in range(0, len(index), batch)]
    return np.concatenate(chunks) if chunks else np.zeros(0, np.float32)


def _maps(data: Collection, index: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(data.maps[index].astype(np.float32))
