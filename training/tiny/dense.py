"""The teacher of the vision half: every image token says what lies in it, and where.

Trained beside (and before) the language model, thrown away afterwards. Class scores go through the embeddings of the
category names themselves, so that an image token of a key points where the word "key" points: matching the phrase
with a place is then something that attention can do from the start. Coordinates are asked for digit by digit,
as the answer will spell them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from training.world import SceneObject

DIGIT_PLACES = 2  # hundreds and tens; ones are below a quarter of a pixel


@dataclass(frozen=True)
class DenseTargets:
    """For B pictures of G x G image tokens: ``label`` (B, G, G) int64, -1 where no object's centre lies;
    ``box`` (B, G, G, 4) corners in token sides relative to the token; ``digits`` (B, G, G, 4, 2) int64."""

    label: torch.Tensor
    box: torch.Tensor
    digits: torch.Tensor


def dense_targets(scenes: list[tuple[SceneObject, ...]], names: list[str], grid: int, image_size: int) -> DenseTargets:
    """Assigns every object to the image token in which its centre lies (of two in one token, the later)."""
    count, cell = len(scenes), image_size / grid
    label = np.full((count, grid, grid), -1)
    box = np.zeros((count, grid, grid, 4), np.float32)
    digits = np.zeros((count, grid, grid, 4, DIGIT_PLACES), np.int64)
    for b, objects in enumerate(scenes):
        for o in objects:
            cx, cy = o.box.center
            u, v = int(cy // cell), int(cx // cell)
            label[b, u, v] = names.index(o.name)
            box[b, u, v] = (np.array(o.box.as_tuple()) - np.array([v, u, v, u]) * cell) / cell
            answered = np.round(np.array(o.box.as_tuple()) * 1000 / image_size).astype(int)
            digits[b, u, v] = np.stack([answered // 100 % 10, answered // 10 % 10], axis=1)
    return DenseTargets(torch.from_numpy(label), torch.from_numpy(box), torch.from_numpy(digits))


class DenseHead(nn.Module):
    """Reads image tokens (B, G, G, width) and scores them against :class:`DenseTargets`."""

    def __init__(self, width: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.norm = nn.LayerNorm(width)
        self.nothing = nn.Parameter(torch.zeros(width))
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.box = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 4))
        self.digits = nn.Linear(width, 4 * DIGIT_PLACES * 10)
        self.place = nn.Linear(width, 2 * grid)

    def forward(
        self, tokens: torch.Tensor, name_embeddings: torch.Tensor, targets: DenseTargets
    ) -> dict[str, torch.Tensor]:
        """Losses by name (scalars), for ``tokens`` (B, G, G, width) and ``name_embeddings`` (names, width)."""
        tokens = tokens.float()
        f = self.norm(tokens)
        words = torch.cat([name_embeddings.float(), self.nothing[None]])
        scores = self.scale * f @ words.T  # (B, G, G, names + 1)
        wanted = torch.where(targets.label < 0, len(name_embeddings), targets.label)
        weight = torch.ones(len(words), device=f.device)
        weight[-1] = 0.1
        on = targets.label >= 0  # (B, G, G), n tokens in all
        box = self.box(f[on])  # (n, 4)
        digits = self.digits(f[on]).view(-1, 10)  # (n * 4 * places, 10)
        place = self.place(f).view(-1, 2, self.grid)  # (B*G*G, 2, G)
        index = torch.arange(self.grid, device=f.device)
        rows, columns = torch.meshgrid(index, index, indexing="ij")
        where = torch.stack([rows, columns], dim=-1).expand(len(f), -1, -1, -1).reshape(-1, 2)
        return {
            "class": F.cross_entropy(scores.reshape(-1, len(words)), wanted.reshape(-1), weight=weight),
            "box": F.smooth_l1_loss(box, targets.box[on], beta=0.05),
            "digits": F.cross_entropy(digits, targets.digits[on].reshape(-1)),
            "place": F.cross_entropy(place.flatten(0, 1), where.reshape(-1)),
            "box_error": (box - targets.box[on]).abs().mean().detach(),
        }
