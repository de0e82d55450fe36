"""Small made-up parts of a store."""

import numpy as np

from acs_core.geometry import best_iou
from training.collection.maps import StoredMaps
from training.collection.part_arrays import encode
from training.collection.store import Collection, CollectionPart

SHAPE = (2, 3, 4, 4)
ROW = (0.5, 10, 20, 30.5, 40, 0, 1, 0, 0, 64, 48, 4, 4, 0, 1, 2, 3)


def part(first, count, skipped=None):
    """A part about pair ``first`` with ``count`` candidates."""
    rng = np.random.default_rng(first)
    maps = rng.random((2 * count, *SHAPE)).astype(np.float32)
    codes, unit = encode(maps)
    place = rng.integers(0, max(1, 2 * count), (count, 4)).astype(np.int32)
    rows = np.tile(ROW, (count, 1)).astype(float)
    rows[:, 5] = first
    entropy = np.ones((count, 4, *SHAPE[:2]), np.float32)
    answer = {"pair": first, "response": 0, "text": "[]", "num_boxes": count, "finished": True, "problem": ""}
    tokens = {"token_entropy": [0.25], "token_logprob": [-0.25]}
    return CollectionPart(
        codes,
        unit,
        place,
        entropy,
        rows,
        (first,),
        skipped or {},
        ({**answer, **tokens},),
    )


def collection_of(said, truth):
    """A collection in memory without attention: ``said[pair][response]`` are boxes, ``truth[pair]`` the true ones."""
    rows = [
        (p, r, o, box)
        for p, responses in enumerate(said)
        for r, boxes in enumerate(responses)
        for o, box in enumerate(boxes)
    ]
    count = len(rows)
    column = {name: np.array([row[k] for row in rows], int) for k, name in enumerate(("pair", "response", "order"))}
    return Collection(
        maps=StoredMaps((), ()),
        entropy=np.zeros((count, 4, 1, 1), np.float32),
        iou=np.array([best_iou(box, truth[p]) for p, _, _, box in rows], np.float32),
        box=np.array([box.as_tuple() for *_, box in rows], float).reshape(-1, 4),
        image=column["pair"],
        tokens=np.tile([1, 2, 3, 4], (count, 1)),
        image_size=np.tile([100, 100], (count, 1)),
        grid=np.tile([4, 4], (count, 1)),
        pairs=np.arange(len(said)),
        manifest={"truth": [[list(box.as_tuple()) for box in boxes] for boxes in truth]},
        **column,
    )
