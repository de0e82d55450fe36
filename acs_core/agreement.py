"""When enough responses have been drawn: they agree, so more of them would hardly change the answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from acs_core.clusters import overlaps
from acs_core.types import Candidate, Response

# Chosen on small objects of the rendered world's validation split, 2,400 with tiny-internvl and 600 with
# tiny-qwen2.5-vl: at IoU 0.5 a point of accuracy was lost, since boxes that agree so loosely may all be half right.
FIRST = 4  # responses of the first wave
MORE = 3  # responses of each later one
SETTLED_SHARE = 0.75  # of the responses drawn so far
SETTLED_IOU = 0.7


def settled(candidates: Sequence[Candidate], responses: Sequence[Response], share: float = SETTLED_SHARE) -> bool:
    """Whether at least ``share`` of ``responses`` say the same: one box agrees (IoU >= 0.7) with a box of that many
    responses, its own counted, or that many give no box.

    Never before :data:`FIRST` responses, so that two that happen to agree decide nothing.
    """
    drawn = len(responses)
    if drawn < FIRST:
        return False
    silent = sum(r.finished and r.num_boxes == 0 for r in responses)  # one that was cut off says nothing yet
    return max(silent, _supporters(candidates)) >= share * drawn


def _supporters(candidates: Sequence[Candidate]) -> int:
    """The most responses that any one box agrees with, its own counted."""
    if not candidates:
        return 0
    agree = overlaps([c.box for c in candidates], SETTLED_IOU)  # (C, C)
    of = np.array([c.response for c in candidates])
    return max(len(set(of[row].tolist())) for row in agree)
