"""Auxiliary dense prediction head: category, box and digits of the object at every image token.

It is trained before and together with the language model, and discarded afterwards. Class scores are products with the
embeddings of the category names, so that an image token of a key is close to the embedding of the word "key", and
attention can match a phrase with a position from the start. Coordinates are predicted digit by digit with leading
zeros, as answers write them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from training.tiny.arch import Arch, frame_scale, token_at
from training.tiny.questions import IGNORED
from training.world.world import SceneObject

MOST_ROWS = 24  # maximum number of rows or columns of image tokens


@dataclass(frozen=True)
class DenseTargets:
    """Targets for B images of R x C image tokens and D digit places.

    Attributes:
        label: (B, R, C) int64 category, -1 for tokens without the centre of an object.
        box: (B, R, C, 4) corners relative to the token, in token sides.
        digits: (B, R, C, 4, D) int64, ``IGNORED`` for coordinates with more digits than D.
    """

    label: torch.Tensor
    box: torch.Tensor
    digits: torch.Tensor

    def to(self, device: str) -> DenseTargets:
        """Return the targets on another device."""
        return DenseTargets(self.label.to(device), self.box.to(device), self.digits.to(device))


def dense_targets(
    scenes: Sequence[Sequence[SceneObject]], names: Sequence[str], arch: Arch, size: tuple[int, int]
) -> DenseTargets:
    """Assign every object of images of ``size`` (width, height) to the image token that contains its centre; of two
    objects in one token, the smaller one is kept."""
    rows, columns = arch.grid(*size)
    cell = np.array([size[0] / columns, size[1] / rows] * 2)
    scale = frame_scale(size, arch.frame(*size))
    places = np.array(arch.digit_places)
    label = np.full((len(scenes), rows, columns), -1)
    box = np.zeros((len(scenes), rows, columns, 4), np.float32)
    digits = np.zeros((len(scenes), rows, columns, 4, len(places)), np.int64)
    index = {name: i for i, name in enumerate(names)}
    for b, objects in enumerate(scenes):
        for o in sorted(objects, key=lambda o: -o.box.area):
            corners = np.array(o.box.as_tuple())
            u, v = token_at(o.box, size, (rows, columns))
            label[b, u, v] = index[o.name]
            box[b, u, v] = corners / cell - np.array([v, u, v, u])
            answered = np.round(corners * scale).astype(int)
            # the far border, 1000, has more digits than there are places, and is ignored
            digits[b, u, v] = answered[:, None] // places % 10
            digits[b, u, v][answered >= 10 * places.max()] = IGNORED
    return DenseTargets(torch.from_numpy(label), torch.from_numpy(box), torch.from_numpy(digits))


class DenseHead(nn.Module):
    """Dense head: maps image tokens (B, R, C, width) to losses against :class:`DenseTargets`."""

    def __init__(self, width: int, digit_places: int) -> None:
        super().__init__()
        self.digit_places = digit_places
        self.norm = nn.LayerNorm(width)
        self.nothing = nn.Parameter(torch.zeros(width))
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.box = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 4))
        self.digits = nn.Linear(width, 4 * digit_places * 10)
        self.place = nn.Linear(width, 2 * MOST_ROWS)

    def forward(
        self, tokens: torch.Tensor, name_embeddings: torch.Tensor, targets: DenseTargets
    ) -> dict[str, torch.Tensor]:
        """Return losses by name (scalars), for ``tokens`` (B, R, C, width) and ``name_embeddings`` (names, width)."""
        tokens = tokens.float()
        f = self.norm(tokens)
        words = torch.cat([name_embeddings.float(), self.nothing[None]])
        scores = self.scale * f @ words.T  # (B, R, C, names + 1)
        wanted = torch.where(targets.label < 0, len(name_embeddings), targets.label)
        weight = torch.ones(len(words), device=f.device)
        weight[-1] = 0.05
        on = targets.label >= 0  # (B, R, C), n tokens in all
        box = self.box(f[on])  # (n, 4)
        side = (targets.box[on][:, 2:] - targets.box[on][:, :2]).prod(dim=1, keepdim=True).sqrt()  # (n, 1)
        digits = self.digits(f[on]).view(-1, 10)  # (n * 4 * places, 10)
        place = self.place(f).view(-1, 2, MOST_ROWS)  # (B*R*C, 2, MOST_ROWS)
        rows, columns = torch.meshgrid(*(torch.arange(n, device=f.device) for n in f.shape[1:3]), indexing="ij")
        where = torch.stack([rows, columns], dim=-1).expand(len(f), -1, -1, -1).reshape(-1, 2)
        named = scores[on].argmax(dim=-1) == targets.label[on]
        return {
            "class": F.cross_entropy(scores.reshape(-1, len(words)), wanted.reshape(-1), weight=weight),
            # in units of the object's side, as IoU is relative to the object's size
            "box": F.smooth_l1_loss(box / side, targets.box[on] / side, beta=0.05),
            "digits": F.cross_entropy(digits, targets.digits[on].reshape(-1)),
            "place": F.cross_entropy(place.flatten(0, 1), where.reshape(-1)),
            "box_error": ((box - targets.box[on]) / side).abs().mean().detach(),
            "named": named.float().mean().detach(),
        }
