"""Runs selectors over a collection as a grounding call would: one choice for every collected pair."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from acs_core.agreement import settled
from acs_core.attention import Evidence
from acs_core.choice import choose
from acs_core.geometry import Box
from acs_core.selection import Selector
from acs_core.types import Candidate, Response
from acs_core.waves import small_wave
from training.store import Collection


@dataclass(frozen=True)
class Choices:
    """One row for each of P collected pairs. ``iou`` (P,) of the chosen box, 0 where there was no candidate;
    ``confidence`` (P,) of the selector in it, NaN where it has none; ``oracle`` (P,) the best candidate's IoU;
    ``candidates`` (P,) how many there were; ``image`` (P,) the image's id, -1 where there was no candidate."""

    iou: np.ndarray
    confidence: np.ndarray
    oracle: np.ndarray
    candidates: np.ndarray
    image: np.ndarray


def choose_offline(selector: Selector, data: Collection, drawn: np.ndarray | None = None) -> Choices:
    """What ``selector`` picks for every pair of ``data``, ties broken as at run time; of the first ``drawn`` (P,)
    responses of each pair, if given."""
    count = len(data.pairs)
    iou, confidence, oracle, sizes = np.zeros(count), np.full(count, np.nan), np.zeros(count), np.zeros(count, int)
    images = np.full(count, -1)
    for row, (index, candidates, evidence) in enumerate(_calls(data, selector.needs.maps, drawn)):
        sizes[row] = len(index)
        if not candidates:
            continue
        size = int(data.image_size[index[0]][0]), int(data.image_size[index[0]][1])
        qualities = selector.qualities(candidates, evidence, size)
        choice = choose(candidates, qualities, np.ones(len(index)), num_responses=1 + int(data.response[index].max()))
        best = choice.detections[0].candidate
        confidences = selector.confidences(candidates, evidence, qualities)
        iou[row], oracle[row] = data.iou[index[best]], data.iou[index].max()
        images[row] = data.image[index[0]]
        confidence[row] = np.nan if confidences is None else confidences[best]
    return Choices(iou, confidence, oracle, sizes, images)


def drawn_by_auto(data: Collection, answers: Iterable[Mapping[str, Any]], most: int) -> np.ndarray:
    """(P,): how many of the ``most`` collected responses of each pair would have been drawn with ``auto``; ``answers``
    are the collection's responses."""
    boxes: dict[int, dict[int, int]] = {}
    for answer in answers:
        boxes.setdefault(answer["pair"], {})[answer["response"]] = answer["num_boxes"]
    drawn = np.full(len(data.pairs), most)
    for row, (_, candidates, _) in enumerate(_calls(data, False, None)):
        counts = boxes[int(data.pairs[row])]
        stop = 0
        while stop < most:
            stop = small_wave(stop, most).stop
            so_far = [Response("", counts[k], True) for k in range(stop)]
            if settled([c for c in candidates if c.response < stop], so_far):
                break
        drawn[row] = stop
    return drawn


def _calls(
    data: Collection, maps: bool, drawn: np.ndarray | None
) -> Iterator[tuple[np.ndarray, list[Candidate], Evidence]]:
    """Per collected pair: the candidates' indices in ``data``, those of the first ``drawn`` responses alone, the
    candidates and their evidence, its ``maps`` only if they are wanted: they are read from disk."""
    order = np.argsort(data.pair, kind="stable")
    bounds = np.searchsorted(data.pair[order], [data.pairs, data.pairs + 1])  # (2, P)
    for row, (start, stop) in enumerate(bounds.T):
        index = order[start:stop]
        if drawn is not None:
            index = index[data.response[index] < drawn[row]]
        candidates = [
            Candidate(Box(*data.box[i]), "", int(data.response[i]), int(data.order[i]), tuple(data.tokens[i].tolist()))
            for i in index
        ]
        grid = (int(data.grid[index[0]][0]), int(data.grid[index[0]][1])) if len(index) else (1, 1)
        seen = data.maps[index] if maps and len(index) else None
        yield index, candidates, Evidence(data.entropy[index], seen, grid)
