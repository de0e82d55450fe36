"""Figures of a fit, an analysis and a calibration, as PNG files, drawn without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from acs_core.geometry import Box
from acs_core.types import COORDINATES
from training.fitting.analyze import GROUPS, Analysis, AnalysisConfig, best_heads
from training.fitting.calibrate import Reliability, reliability_groups
from training.fitting.fit import FitResult
from training.plotting import HEAT, new_figure, outline, shade, whole_ticks
from training.plotting import save as save_figure

COLOURS = {"high": "#1a9850", "low": "#f08c2e", "zero": "#8c2d82"}
LABELS = {"high": "IoU > {high:g}", "low": "0 < IoU ≤ {low:g}", "zero": "IoU = 0"}
QUICK_DPI = 110  # these are for a first look; figures for print are those of `acs-train report` and `attention`


def learning_curves(fitted: FitResult[Any], file: Path) -> None:
    """Draw training and validation loss and Pearson r over the epochs, with a mark at the kept epoch."""
    epochs = [row["epoch"] for row in fitted.history]
    figure, (left, right) = new_figure(1, 2, (9.5, 3.6))
    left.plot(epochs, [r["train_mse"] for r in fitted.history], label="training images", color="#555555")
    left.plot(epochs, [r["val_mse"] for r in fitted.history], label="held-out images", color="#1f5fbf")
    left.set(xlabel="epoch", ylabel="mean squared error", title="Loss")
    right.plot(epochs, [r["val_r"] for r in fitted.history], color="#1f5fbf")
    right.set(xlabel="epoch", ylabel="Pearson r", title="Held-out images")
    for axes in (left, right):
        axes.axvline(fitted.best_epoch, color="#bbbbbb", linestyle="--", zorder=0)
        axes.grid(alpha=0.3)
    left.legend()
    _save(figure, file)


def scatter(predicted: np.ndarray, truth: np.ndarray, title: str, file: Path) -> None:
    """Draw predicted over true IoU of every held-out candidate, with the mean prediction in each tenth."""
    figure, axes = new_figure(1, 1, (4.8, 4.6))
    axes.scatter(truth, predicted, s=5, alpha=0.25, color="#1f5fbf", linewidths=0)
    tenth = np.minimum((truth * 10).astype(int), 9)
    means = [(k / 10 + 0.05, predicted[tenth == k].mean()) for k in range(10) if (tenth == k).any()]
    axes.plot(*zip(*means, strict=True), "o-", color="#c0392b", label="mean prediction")
    axes.plot([0, 1], [0, 1], color="#999999", linestyle="--", linewidth=1)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="true IoU", ylabel="predicted IoU", title=title, aspect="equal")
    axes.legend(loc="upper left")
    _save(figure, file)


def layer_importance(analysis: Analysis, file: Path) -> None:
    """Draw equation 2 averaged over the heads of each layer, one line per coordinate, with the critical layers
    shaded."""
    figure, axes = new_figure(1, 1, (7.5, 3.8))
    layers = np.arange(analysis.importance.shape[1])
    for c, name in enumerate(COORDINATES):
        axes.plot(layers, analysis.importance[c].mean(axis=1), "o-", markersize=3, label=name)
    shade(axes, analysis.layers)
    axes.set(xlabel="layer", ylabel="importance (eq. 2)", title="Layer importance; critical layers shaded")
    whole_ticks(axes, len(layers))
    axes.legend(ncols=4)
    _save(figure, file)


def entropy_by_layer(analysis: Analysis, config: AnalysisConfig, file: Path) -> None:
    """Draw the mean entropy of each layer by IoU group, one panel per coordinate (figures 4 and 10)."""
    figure, panels = new_figure(1, 4, (15, 3.6), sharey=True)
    layers = np.arange(analysis.entropy.shape[2])
    for c, (axes, name) in enumerate(zip(panels, COORDINATES, strict=True)):
        for g, group in enumerate(GROUPS):
            if analysis.group_sizes[g]:
                label = LABELS[group].format(high=config.high_iou, low=config.low_iou)
                mean = analysis.entropy[g, c].mean(axis=1)
                axes.plot(layers, mean, "o-", markersize=3, color=COLOURS[group], label=label)
        shade(axes, analysis.layers)
        axes.set(xlabel="layer", title=name)
        whole_ticks(axes, len(layers))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("attention entropy, nats")
    panels[0].legend(fontsize=8)
    _save(figure, file)


def head_heat_map(analysis: Analysis, config: AnalysisConfig, file: Path) -> None:
    """Draw the entropy gap of every head, one panel per coordinate. The chosen heads are framed, with the share of
    bootstrap draws that choose them."""
    figure, panels = new_figure(1, 4, (16, 1.8 + 0.16 * max(12, analysis.entropy_gap.shape[1])))
    limit = float(np.nanmax(np.abs(analysis.entropy_gap))) or 1.0
    share = analysis.chosen_share if config.restrict else analysis.chosen_share_anywhere
    for c, (axes, name) in enumerate(zip(panels, COORDINATES, strict=True)):
        image = axes.imshow(analysis.entropy_gap[c], cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
        for layer, head in best_heads(
            analysis.entropy_gap[c], config.heads, analysis.layers if config.restrict else None
        ):
            axes.add_patch(_frame(head, layer))
            axes.text(head, layer, f"{share[c, layer, head]:.0%}", ha="center", va="center", fontsize=7)
        axes.set(xlabel="head", title=f"{name}: entropy gap low - high, nats")
    panels[0].set_ylabel("layer")
    figure.colorbar(image, ax=list(panels), fraction=0.02)
    _save(figure, file)


def attention_over_picture(
    picture: np.ndarray, maps: np.ndarray, box: Box, truth: Sequence[Box], title: str, file: Path
) -> None:
    """Draw the mean map of each layer's heads over the image (figures 3 and 6 to 9): one row per coordinate, one column
    per layer. Each map has its own scale.

    Args:
        picture: (H, W, 3) RGB.
        maps: (4, L, K, h, w) attention of the answered box's coordinates.
        box: the answered box, drawn in red.
        truth: the true boxes, drawn in yellow.
        title: title of the figure.
        file: PNG file to write.
    """
    layers = maps.shape[1]
    height, width = picture.shape[:2]
    figure, panels = new_figure(len(COORDINATES), layers, (1.7 * layers, 1.9 * len(COORDINATES) * height / width + 0.5))
    panels = np.asarray(panels).reshape(len(COORDINATES), layers)
    for c, name in enumerate(COORDINATES):
        for layer in range(layers):
            axes, mean = panels[c, layer], maps[c, layer].mean(axis=0)
            axes.imshow(picture, extent=(0, width, height, 0))
            axes.imshow(mean, extent=(0, width, height, 0), cmap=HEAT, alpha=0.6, interpolation="bilinear")
            for found, colour in (*((t, "yellow") for t in truth), (box, "red")):
                axes.add_patch(outline(found, colour, 1.0))
            axes.set(xticks=[], yticks=[])
            if c == 0:
                axes.set_title(f"layer {layer}", fontsize=8)
        panels[c, 0].set_ylabel(name)
    figure.suptitle(title, fontsize=9)
    _save(figure, file)


def reliability_diagram(told: Reliability, title: str, file: Path) -> None:
    """Draw the observed share of right boxes over the stated probability, in ten bins of equal width, on held-out
    images."""
    groups = reliability_groups(told.stated, told.hit)
    figure, axes = new_figure(1, 1, (4.6, 4.4))
    axes.plot([0, 1], [0, 1], color="#999999", linestyle="--", linewidth=1)
    axes.plot([g[0] for g in groups], [g[1] for g in groups], "o-", color="#1f5fbf")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="stated probability", ylabel="share with IoU ≥ 0.5")
    axes.set_title(f"{title}\nexpected calibration error {told.error:.3f}, {len(told.hit)} answers", fontsize=9)
    axes.grid(alpha=0.3)
    _save(figure, file)


def _save(figure: Figure, file: Path) -> None:
    save_figure(figure, file, ("png",), QUICK_DPI)


def _frame(head: int, layer: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((head - 0.5, layer - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.5)
