"""A guide for the first steps of the language half: where to look when a box is begun.

Reading a box off the picture takes two things at once, finding the image token that shows the phrase and copying its
digits, and neither pays without the other: left alone, the loss stays on a plateau for most of a short run. The guide
asks one layer, for a while, to look at the image token of the object's centre when it opens a box and emits its first
digit, and away from the picture, at the first token of all, when it says that there is none. Afterwards nothing asks,
and attention goes where the answer needs it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Guide:
    """Asks ``layer`` to look: ``emits`` (M, 2) int64 are (picture, row) pairs, ``keys`` (M,) int64 the column that each
    should look at. :meth:`loss` is what the layer's attention has left to learn."""

    layer: int
    emits: torch.Tensor
    keys: torch.Tensor
    _missed: list[torch.Tensor] = field(default_factory=list)

    def look(self, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor, scaling: float) -> None:
        """Notes how much of the attention of ``query`` (B, heads, T, d) over ``key`` (B, key-value heads, T, d), under
        the bool ``mask`` (1 or B, 1, T, T), lies where it should."""
        groups = query.shape[1] // key.shape[1]
        picture, row = self.emits.unbind(dim=1)  # (M,) each
        keys = key[picture].repeat_interleave(groups, 1)  # (M, heads, T, d)
        scores = scaling * torch.einsum("mhd,mhtd->mht", query[picture, :, row], keys)
        visible = mask.expand(len(query), -1, -1, -1)[picture, :, row]  # (M, 1, T)
        attention = scores.float().masked_fill(~visible, float("-inf")).softmax(dim=-1)
        there = attention.gather(-1, self.keys[:, None, None].expand(-1, attention.shape[1], 1))  # (M, heads, 1)
        self._missed.append(-torch.log(there.mean(dim=(1, 2)) + 1e-6))

    def loss(self) -> torch.Tensor:
        """Mean negative logarithm of the attention (average of the heads) on the wanted columns."""
        return torch.cat(self._missed).mean()
