"""The frames of the bag that is broken."""

from __future__ import annotations

import numpy as np

from acs_core.geometry import Box
from acs_ros.bags.bags import BagFrame


def few_frames() -> list[BagFrame]:
    """Three frames of random pixels, two with truths."""
    rng = np.random.default_rng(1)
    truths = (("key", Box(0, 1, 2.5, 3)), ("mug", Box(4, 4, 8, 6)))
    return [
        BagFrame(1_700_000_000_000_000_000 + i, rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), truths[:i])
        for i in range(3)
    ]
