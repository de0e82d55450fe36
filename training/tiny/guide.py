"""A guide for the first steps of the language half: where to look when a box is begun.

Reading a box off the picture takes two things at once, finding the image token that shows the phrase and copying its
digits, and neither pays without the other: left alone, the loss stays on a plateau for most of a short run. The guide
asks one layer, for a while, to look at the image token of the object's centre when it emits the first digit of its box.
Afterwards nothing asks, and attention goes where the answer needs it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Guide:
    """Asks ``layer`` to look: ``emits`` (M, 2) int64 are (picture, row) pairs that emit a box's first digit, ``keys``
    (M,) int64 the column that each should look at. :meth:`loss` is what the layer's attention has left to learn."""

    layer: int
    emits: torch.Tensor
    keys: torch.Tensor
    _missed: list[torch.Tensor] = field(default_factory=list)

    def look(self, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor, scaling: float) -> None:
        """Notes how much of the attention of ``query`` (B, heads, T, d) over ``key`` (B, key-value heads, T, d), under
        the bool ``mask`` (1 or B, 1, T, T), lies where it should."""
        groups = query.shape[1] // key.shape[1]
        mask = mask.expand(len(query), -1, -1, -1)
        for b in range(len(query)):
            mine = self.emits[:, 0] == b
            rows, wanted = self.emits[mine, 1], self.keys[mine]  # (n,)
            scores = scaling * query[b, :, rows] @ key[b].repeat_interleave(groups, 0).transpose(-1, -2)
            scores = scores.float().masked_fill(~mask[b, :, rows], float("-inf"))  # (heads, n, T)
            there = scores.softmax(dim=-1)[:, torch.arange(len(rows)), wanted].mean(dim=0)  # (n,)
            self._missed.append(-torch.log(there + 1e-6))

    def loss(self) -> torch.Tensor:
        """Mean negative logarithm of the attention (average of the heads) on the wanted columns."""
        return torch.cat(self._missed).mean()
