"""Features of a candidate for the joint model (:mod:`acs_core.selection.joint_model`): its box, its agreement with the
other responses, and its attention.

They are not part of the paper, whose regressor reads attention maps alone. Training and run time share this
implementation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from acs_core.attention import AttentionRecord
from acs_core.geometry import iou_matrix
from acs_core.types import COORDINATES, Candidate

AGREE = (0.3, 0.5, 0.7, 0.9)  # IoU thresholds at which agreeing responses are counted
SAME = 0.3  # minimum IoU of two boxes for the same object, as in acs-fusion
MOST = 10  # cap on the number of responses as a feature; beyond it, agreement is more precise but means the same
MOST_BOXES = 5  # cap on the number of boxes of one response as a feature
TINY = np.finfo(np.float32).tiny
NEAR = 0.5, 1.5  # margins in cells by which a box is widened for the attention in it and around it

BOX = ("log area", "log aspect", "centre x", "centre y", "width", "height", "border x", "border y")
AGREEMENT = (
    "mean IoU",
    "mean IoU of boxes",
    "largest IoU",
    "spread of IoU",
    *(f"share above {t}" for t in AGREE),
    "share without box",
    "responses",
    "mean IoU, below the best",
    "share of boxes",
    *(f"off the mean {c}" for c in COORDINATES),
    *(f"spread {c}" for c in COORDINATES),
    "IoU with mean box",
    "IoU with median box",
    "boxes of its response",
    "boxes a response",
    "mean IoU of all",
)
LOOKS = ("concentration", "in the box", "around the box", "largest cell")


def feature_names(num_layers: int) -> tuple[str, ...]:
    """Return the names of the F columns of :func:`features`, for a model of ``num_layers`` layers."""
    looks = (
        f"{what} {c} {layer} {of}"
        for c in COORDINATES
        for layer in range(num_layers)
        for of in ("mean", "largest")
        for what in LOOKS
    )
    return (*BOX, *AGREEMENT, *looks)


def features(candidates: Sequence[Candidate], record: AttentionRecord, image_size: tuple[int, int]) -> np.ndarray:
    """Compute the features of the C candidates of one call.

    Attention is compared with the box in the image that the model saw: for a box of a second look, its window.

    Args:
        candidates: C candidates.
        record: their attention, with maps.
        image_size: (width, height) in pixels.

    Returns:
        (C, F) float32.

    Raises:
        ValueError: ``record`` holds no attention maps.
    """
    boxes = np.array([c.box.as_tuple() for c in candidates]).reshape(-1, 4)
    responses = np.array([c.response for c in candidates], int)
    own = own_features(candidates, record, image_size)
    return with_agreement(own, agreement_features(boxes, responses, record.num_responses))


def with_agreement(own: np.ndarray, agreement: np.ndarray) -> np.ndarray:
    """Join the features of :func:`own_features` and :func:`agreement_features` to (C, F)."""
    return np.concatenate([own[:, : len(BOX)], agreement, own[:, len(BOX) :]], axis=1).astype(np.float32)


def own_features(candidates: Sequence[Candidate], record: AttentionRecord, image_size: tuple[int, int]) -> np.ndarray:
    """Compute the features of box and attention, which do not depend on other candidates: (C, F - len(AGREEMENT))
    float32.

    Raises:
        ValueError: ``record`` holds no attention maps.
    """
    if record.maps is None:
        raise ValueError("the joint model needs attention maps, but only entropies were captured")
    share = shares_of_sides(candidates, image_size)
    aspect = image_size[0] / image_size[1]
    looks = _looks(record.maps, record.entropy, share, record.grid)
    return np.concatenate([_box(share, aspect), looks], axis=1).astype(np.float32)


def agreement_features(boxes: np.ndarray, responses: np.ndarray, drawn: int | None) -> np.ndarray:
    """Compute the agreement of the other responses with each box.

    Each response counts once, by its box with the largest IoU, so that a response with several objects can agree with
    each of them. With a single response, the features are those of no agreement.

    Args:
        boxes: (C, 4) in pixels.
        responses: (C,) index of each box's response.
        drawn: number of responses, including those without a box; None if it is unknown.

    Returns:
        (C, len(AGREEMENT)) float64.
    """
    if not len(boxes):
        return np.zeros((0, len(AGREEMENT)))
    overlap = iou_matrix(boxes, boxes)  # (C, C)
    number, of = np.unique(responses, return_inverse=True)
    drawn = max(drawn or 0, len(number))
    fits = np.stack([overlap[:, of == r].max(axis=1) for r in range(len(number))], axis=1)  # (C, R)
    fits[np.arange(len(boxes)), of] = np.nan  # its own response does not count
    alone = len(number) < 2
    found = np.zeros((len(boxes), 1)) if alone else fits
    total = np.nansum(found, axis=1)
    witnesses = max(1, drawn - 1)
    mean = total / witnesses
    boxed = total / max(1, len(number) - 1)
    shares = [np.nansum(found >= t, axis=1) / witnesses for t in AGREE]
    of_each = np.bincount(of)  # (R,) boxes of each response
    columns = [
        mean,
        boxed,
        np.nanmax(found, axis=1),
        np.nanstd(found, axis=1),
        *shares,
        np.full(len(boxes), 1.0 - len(number) / drawn),
        np.full(len(boxes), float(min(drawn, MOST))),
        mean - mean.max(),
        (overlap >= SAME).mean(axis=1),
        *_place_among(boxes, overlap).T,
        np.minimum(of_each[of], MOST_BOXES),
        np.full(len(boxes), min(MOST_BOXES, len(boxes) / len(number))),
        np.full(len(boxes), boxed.mean()),
    ]
    return np.stack(columns, axis=1)


def _place_among(boxes: np.ndarray, overlap: np.ndarray) -> np.ndarray:
    """Return (C, 10) features of each box among the boxes of the same object: offset from their mean and their spread,
    per coordinate in units of the box size, and the IoU with their mean and their median."""
    size = np.maximum(np.tile(boxes[:, 2:] - boxes[:, :2], 2), 1e-6)  # (C, 4)
    found = np.empty((len(boxes), 10))
    for i, box in enumerate(boxes):
        group = boxes[overlap[i] >= SAME]
        middle = np.stack([group.mean(axis=0), np.median(group, axis=0)])
        found[i] = (*(middle[0] - box) / size[i], *group.std(axis=0) / size[i], *iou_matrix(box[None], middle)[0])
    return found


def _box(share: np.ndarray, aspect: float) -> np.ndarray:
    """Return (C, 8) features of boxes (C, 4) in shares of the image's sides; ``aspect`` is the image's."""
    x1, y1, x2, y2 = share.T
    width, height = np.maximum(x2 - x1, 1e-6), np.maximum(y2 - y1, 1e-6)
    columns = (
        np.log(width * height),
        np.log(aspect * width / height),
        (x1 + x2) / 2,
        (y1 + y2) / 2,
        width,
        height,
        np.minimum(x1, 1 - x2),
        np.minimum(y1, 1 - y2),
    )
    return np.stack(columns, axis=1)


def _looks(maps: np.ndarray, entropy: np.ndarray, share: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return (C, 4 * L * 2 * 4) attention features: for each coordinate and layer, mean and maximum over the heads of
    four values.

    The values are concentration (1 - H / log cells, on the native ``grid``), the shares of the map's mass in the box
    and around it, and its largest cell. The mass itself is left out: it does not improve the model, and collections,
    which round small weights, do not store it exactly.
    """
    count, coordinates, layers = maps.shape[:3]
    mass = maps.sum(axis=(-2, -1))  # (C, 4, L, K)
    inside = [share_in_box(maps, share, near) for near in NEAR]
    concentration = 1.0 - entropy / math.log(max(2, grid[0] * grid[1]))
    largest = maps.max(axis=(-2, -1)) / np.maximum(mass, TINY)
    seen = np.stack([concentration, *inside, largest], axis=-1)  # (C, 4, L, K, 4)
    both = np.stack([seen.mean(axis=3), seen.max(axis=3)], axis=3)  # (C, 4, L, 2, 4)
    return both.reshape(count, coordinates * layers * 2 * len(LOOKS))


def shares_of_sides(candidates: Sequence[Candidate], image_size: tuple[int, int]) -> np.ndarray:
    """Return the boxes of the candidates, (C, 4), in shares of the sides of the image that the model saw, which is the
    window for boxes of a second look. ``image_size`` is (width, height) in pixels."""
    seen = [c.in_window or c.box for c in candidates]
    return np.array([b.as_tuple() for b in seen]).reshape(-1, 4) / np.array([*image_size, *image_size], float)


def share_in_box(maps: np.ndarray, share: np.ndarray, near: float) -> np.ndarray:
    """Return the share of each map's mass that falls on the box of its candidate.

    Args:
        maps: (C, 4, L, K, h, w) attention maps.
        share: (C, 4) boxes in shares of the image's sides.
        near: margin in cells by which boxes are widened.

    Returns:
        (C, 4, L, K) in [0, 1]; 0 for a map without mass.
    """
    h, w = maps.shape[-2:]
    cover = _cover(share[:, 1] * h - near, share[:, 3] * h + near, h)  # (C, h)
    across = _cover(share[:, 0] * w - near, share[:, 2] * w + near, w)  # (C, w)
    part = np.einsum("cqlkhw,ch->cqlkw", maps, cover, optimize=True)
    return np.einsum("cqlkw,cw->cqlk", part, across, optimize=True) / np.maximum(maps.sum(axis=(-2, -1)), TINY)


def _cover(low: np.ndarray, high: np.ndarray, cells: int) -> np.ndarray:
    """Return (C, cells): the share of each cell between ``low`` and ``high`` (C,), which are in cells."""
    edges = np.arange(cells + 1)
    return np.clip(np.minimum(high[:, None], edges[1:]) - np.maximum(low[:, None], edges[:-1]), 0.0, 1.0)
