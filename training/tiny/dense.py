"""The teacher of the vision half: every image token says what lies in it, and where.

Trained beside (and before) the language model, thrown away afterwards. Class scores go through the embeddings of the
category names themselves, so that an image token of a key points where the word "key" points: matching the phrase
with a place is then something that attention can do from the start. Coordinates are asked for digit by digit,
as the answer will spell them, with leading zeros.
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
from training.world import SceneObject

MOST_ROWS = 24  # rows or columns of image tokens that a picture may have


@dataclass(frozen=True)
class DenseTargets:
    """For B pictures of R x C image tokens and D digit places: ``label`` (B, R, C) int64, -1 where no object's centre
    lies; ``box`` (B, R, C, 4) corners in token sides relative to the token; ``digits`` (B, R, C, 4, D) int64,
    ``IGNORED`` where there are too many."""

    label: torch.Tensor
    box: torch.Tensor
    digits: torch.Tensor

    def to(self, device: str) -> DenseTargets:
        """The same on another device."""
        return DenseTargets(self.label.to(device), self.box.to(device), self.digits.to(device))


def dense_targets(
    scenes: Sequence[Sequence[SceneObject]], names: Sequence[str], arch: Arch, size: tuple[int, int]
) -> DenseTargets:
    """Assigns every object of pictures of ``size`` (width, height) to the image token in which its centre lies (of
    two in one token, the smaller)."""
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
            # the far border, 1000, has a digit more than there are places: nothing is asked about it
            digits[b, u, v] = answered[:, None] // places % 10
            digits[b, u, v][answered >= 10 * places.max()] = IGNORED
    return DenseTargets(torch.from_numpy(label), torch.from_numpy(box), torch.from_numpy(digits))


class DenseHead(nn.Module):
    """Reads image tokens (B, R, C, width) and scores them against :class:`DenseTargets`."""

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
        """Losses by name (scalars), for ``tokens`` (B, R, C, width) and ``name_embeddings`` (names, width)."""
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
            # in sides of the object, as IoU counts: a pixel matters more to a small one
            "box": F.smooth_l1_loss(box / side, targets.box[on] / side, beta=0.05),
            "digits": F.cross_entropy(digits, targets.digits[on].reshape(-1)),
            "place": F.cross_entropy(place.flatten(0, 1), where.reshape(-1)),
            "box_error": ((box - targets.box[on]) / side).abs().mean().detach(),
            "named": named.float().mean().detach(),
        }
