"""When enough responses have been drawn: they agree, so more of them would hardly change the answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from acs_core.clusters import overlaps
from acs_core.types import Candidate, Response

# Chosen on 600 small objects of the rendered world's validation split: three of the first four is right as often as all
# ten, within what 600 cases can tell, and about half of the responses are saved.
FIRST = 4  # responses of the first wave
MORE = 3  # responses of each later one
SETTLED_SHARE = 0.75  # of the responses drawn so far


def settled(candidates: Sequence[Candidate], responses: Sequence[Response], share: float = SETTLED_SHARE) -> bool:
    """Whether at least ``share`` of ``responses`` say the same: one box agrees (IoU >= 0.5) with a box of that many
    responses, its own counted, or that many give no box.

    Never before :data:`FIRST` responses, so that two that happen to agree decide nothing.
    """
    drawn = len(responses)
    if drawn < FIRST:
        return False
    silent = sum(r.num_boxes == 0 for r in responses)
    return max(silent, _supporters(candidates)) >= share * drawn


def _supporters(candidates: Sequence[Candidate]) -> int:
    """The most responses that any one box agrees with, its own counted."""
    if not candidates:
        return 0
    agree = overlaps([c.box for c in candidates])  # (C, C)
    of = np.array([c.response for c in candidates])
    return max(len(set(of[row].tolist())) for row in agree)
