"""Runs selectors over a collection as a grounding call would: one choice for every collected pair."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from acs_core.agreement import settled
from acs_core.attention import Evidence
from acs_core.choice import choose
from acs_core.geometry import Box, best_iou
from acs_core.selection import MakesBoxes, Selector
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


@dataclass(frozen=True)
class Call:
    """What a grounding call about one pair had before it chose. ``pair`` indexes the manifest's pairs, ``index`` (C,)
    the collection, -1 for what a second look saw, which is of another one; ``image_size`` (width, height) is None where
    there is no candidate. ``responses`` are empty where the collection's were not given. ``looked_again``: there was a
    second look."""

    pair: int
    index: np.ndarray
    candidates: tuple[Candidate, ...]
    evidence: Evidence
    image_size: tuple[int, int] | None
    responses: tuple[Response, ...] = ()
    looked_again: bool = False

    def first(self, count: int) -> Call:
        """The same call with the first ``count`` responses alone."""
        keep = np.array([c.response < count for c in self.candidates], bool)
        if keep.all() and len(self.responses) <= count:
            return self
        part = replace(self.evidence.only(keep), num_responses=min(count, self.evidence.num_responses))
        candidates = tuple(c for c, kept in zip(self.candidates, keep, strict=True) if kept)
        size = self.image_size if candidates else None
        return Call(self.pair, self.index[keep], candidates, part, size, self.responses[:count])


def choose_offline(selector: Selector, data: Collection, drawn: np.ndarray | None = None) -> Choices:
    """What ``selector`` picks for every pair of ``data``, ties broken as at run time; of the first ``drawn`` (P,)
    responses of each pair, if given.

    Raises:
        DataError: the selector makes boxes of its own, and the collection does not hold the true ones.
    """
    found: Iterable[Call] = calls(data, selector.needs.maps)
    if drawn is not None:
        found = (call.first(int(count)) for call, count in zip(found, drawn, strict=True))
    return choices_of(selector, found, data)


def choices_of(selector: Selector, found: Iterable[Call], data: Collection) -> Choices:
    """What ``selector`` picks for each of P calls about pairs of ``data``, which may have looked twice.

    Raises:
        DataError: the collection does not hold the true boxes, and they are needed for boxes that are not in it.
    """
    rows = np.array([_chosen(selector, call, data) for call in found], float).reshape(-1, 5)
    iou, confidence, oracle, sizes, images = rows.T
    return Choices(iou, confidence, oracle, sizes.astype(int), images.astype(int))


def _chosen(selector: Selector, call: Call, data: Collection) -> tuple[float, float, float, int, int]:
    """One row of :class:`Choices`."""
    candidates, evidence = call.candidates, call.evidence
    if call.image_size is None:
        return 0.0, np.nan, 0.0, len(candidates), -1
    qualities = selector.qualities(candidates, evidence, call.image_size)
    box_of = None
    if isinstance(selector, MakesBoxes):
        box_of = partial(selector.box_of, candidates=candidates, qualities=qualities)
    drawn = 1 + max(c.response for c in candidates)
    choice = choose(candidates, qualities, np.ones(len(candidates)), num_responses=drawn, box_of=box_of)
    if not choice.detections:
        return 0.0, np.nan, 0.0, len(candidates), -1
    box, best = choice.detections[0].box, choice.detections[0].candidate
    confidences = selector.confidences(candidates, evidence, qualities)
    known = data.iou[call.index].astype(float)  # of those that are in the collection
    for i in np.flatnonzero(call.index < 0):
        known[i] = best_iou(candidates[i].box, data.truth(call.pair))
    # a made box is none of those whose IoU was measured when they were collected
    iou = best_iou(box, data.truth(call.pair)) if box_of else known[best]
    image = int(data.image[call.index[0]])
    return iou, np.nan if confidences is None else confidences[best], known.max(), len(candidates), image


def drawn_by_auto(data: Collection, answers: Iterable[Mapping[str, Any]], most: int) -> np.ndarray:
    """(P,): how many of the ``most`` collected responses of each pair would have been drawn with ``auto``; ``answers``
    are the collection's responses."""
    boxes: dict[int, dict[int, int]] = {}
    for answer in answers:
        boxes.setdefault(answer["pair"], {})[answer["response"]] = answer["num_boxes"]
    drawn = np.full(len(data.pairs), most)
    for row, call in enumerate(calls(data, False)):
        counts, candidates = boxes[call.pair], call.candidates
        stop = 0
        while stop < most:
            stop = small_wave(stop, most).stop
            so_far = [Response("", counts[k], True) for k in range(stop)]
            if settled([c for c in candidates if c.response < stop], so_far):
                break
        drawn[row] = stop
    return drawn


def calls(data: Collection, maps: bool, answers: Iterable[Mapping[str, Any]] = ()) -> Iterator[Call]:
    """One for each collected pair; their ``maps`` only if they are wanted: they are read from disk. ``answers`` are the
    collection's responses (:func:`training.store.read_responses`): with them a call knows its responses and the
    entropies of its tokens."""
    written: dict[int, list[Mapping[str, Any]]] = {}
    for answer in answers:
        written.setdefault(answer["pair"], []).append(answer)
    drawn = 1 if data.manifest.get("greedy") else int(data.manifest.get("samples", 0))
    order = np.argsort(data.pair, kind="stable")
    bounds = np.searchsorted(data.pair[order], [data.pairs, data.pairs + 1])  # (2, P)
    for pair, start, stop in zip(data.pairs.tolist(), *bounds.tolist(), strict=True):
        index = order[start:stop]
        candidates = tuple(
            Candidate(Box(*data.box[i]), "", int(data.response[i]), int(data.order[i]), tuple(data.tokens[i].tolist()))
            for i in index
        )
        mine = sorted(written.get(pair, []), key=lambda a: a["response"])
        responses = tuple(Response(a["text"], a["num_boxes"], a["finished"], a["problem"]) for a in mine)
        unsure = _token_entropy(candidates, mine) if mine else None
        if len(index):
            h, w = data.grid[index[0]].tolist()
            width, height = data.image_size[index[0]].tolist()
            seen = data.maps[index] if maps else None
            evidence = Evidence(data.entropy[index], seen, (h, w), unsure, drawn)
            yield Call(pair, index, candidates, evidence, (width, height), responses)
        else:
            yield Call(pair, index, (), Evidence(data.entropy[index], None, (1, 1), unsure, drawn), None, responses)


def _token_entropy(candidates: Iterable[Candidate], responses: list[Mapping[str, Any]]) -> np.ndarray:
    """(C, 4) float64 in nats, at the coordinates' first tokens."""
    kept = {r["response"]: r["token_entropy"] for r in responses}
    return np.array([[kept[c.response][t] for t in c.coordinate_tokens] for c in candidates], float).reshape(-1, 4)
