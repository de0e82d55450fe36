"""Selection on a collection: apply a selector to every collected pair as a grounding call would."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from acs_core.attention import AttentionRecord
from acs_core.generation.candidates import parse_response, without_examples
from acs_core.generation.schedule import should_stop_early, wave_size
from acs_core.generation.token_statistics import TokenStatistics
from acs_core.geometry import Box, best_iou
from acs_core.lvlm.instruction import PROMPT
from acs_core.selection.decision import Decision, Overlapping, mislabelled_as
from acs_core.selection.labels import names_something_else
from acs_core.selection.registry import Selector
from acs_core.selection.scorer import Scorer
from acs_core.types import Candidate, Response
from training.collection.part_reading import HIDDEN
from training.collection.store import Collection
from training.errors import DataError


@dataclass(frozen=True)
class Choices:
    """Choices of a selector for P collected pairs.

    Attributes:
        iou: (P,) IoU of the chosen box, 0 for pairs without a candidate.
        confidence: (P,) the selector's confidence, NaN if it states none.
        oracle: (P,) IoU of the best candidate.
        candidates: (P,) number of candidates.
        image: (P,) image ids, -1 for pairs without a candidate.
    """

    iou: np.ndarray
    confidence: np.ndarray
    oracle: np.ndarray
    candidates: np.ndarray
    image: np.ndarray


@dataclass(frozen=True)
class Call:
    """Candidates, responses and attention of one collected pair: the input of a selection.

    Attributes:
        pair: index in the manifest's list of pairs.
        index: (C,) indices in the collection, -1 for candidates of a second look, which belong to another collection.
        candidates: the C candidates.
        record: attention of the candidates.
        image_size: (width, height) in pixels; None without candidates.
        responses: the responses; empty if those of the collection were not given.
        looked_again: whether the call includes a second look.
        phrase: the phrase that was asked for; "" if it is unknown.
    """

    pair: int
    index: np.ndarray
    candidates: tuple[Candidate, ...]
    record: AttentionRecord
    image_size: tuple[int, int] | None
    responses: tuple[Response, ...] = ()
    looked_again: bool = False
    phrase: str = ""

    def first(self, count: int) -> Call:
        """Return the call with only the first ``count`` responses."""
        keep = np.array([c.response < count for c in self.candidates], bool)
        drawn = self.record.num_responses
        if keep.all() and len(self.responses) <= count and (drawn is None or drawn <= count):
            return self
        part = replace(self.record.only(keep), num_responses=None if drawn is None else min(count, drawn))
        candidates = tuple(c for c, kept in zip(self.candidates, keep, strict=True) if kept)
        size = self.image_size if candidates else None
        return Call(self.pair, self.index[keep], candidates, part, size, self.responses[:count], phrase=self.phrase)

    def first_boxes(self) -> Call:
        """Return the call as if each response had ended with its first box, as those of a grounding call about one
        object do (:class:`acs_core.generation.first_box.FirstBoxComplete`).

        A box that is labelled as something else, or comes after an example of the prompt, does not end a response.
        """
        kept = {r: self._boxes_up_to_first(r) for r in {c.response for c in self.candidates if c.order}}
        if not kept:
            return self
        keep = np.array([c.order < kept.get(c.response, 1) for c in self.candidates], bool)
        responses = tuple(
            replace(response, num_boxes=kept[r], finished=True)
            if kept.get(r, response.num_boxes) < response.num_boxes
            else response
            for r, response in enumerate(self.responses)
        )
        candidates = tuple(c for c, is_kept in zip(self.candidates, keep, strict=True) if is_kept)
        record = self.record.only(keep)
        return replace(self, index=self.index[keep], candidates=candidates, record=record, responses=responses)

    def _boxes_up_to_first(self, response: int) -> int:
        """Return the number of candidates of ``response``, which has several, up to the one that would have ended
        it."""
        mine = [c for c in self.candidates if c.response == response]
        written = parse_response(self.responses[response].text) if response < len(self.responses) else []
        examples = {box.values for box in parse_response(PROMPT)}
        # An example of the prompt keeps a response from ending. Boxes outside the image, which are no candidates, are
        # among those written; where there are some, the place of the example is not known exactly.
        example = next((k for k, box in enumerate(written) if box.values in examples), len(mine))
        for c in mine:
            if c.order >= example:
                break
            if c.label == self.phrase or not names_something_else(c.label, self.phrase):
                return c.order + 1
        return len(mine)

    def seen_by(self, selector: Selector, multiple: bool = False) -> Call:
        """Return the call as ``selector`` sees it at run time: responses end with their first box, unless it reads what
        follows, or ``multiple`` objects are asked for."""
        return self.first_boxes() if selector.needs.end_with_first_box and not multiple else self

    def decided(self, scorer: Scorer, multiple: bool = False, overlapping: Overlapping | None = None) -> Decision:
        """Return the decision of ``scorer`` for the call, as a grounding call makes it by default: boxes labelled as
        something else than the phrase rank below the others (``check_labels``). Without responses, labels are unknown
        and take no part."""
        return scorer.decide(
            self.candidates,
            self.responses,
            self.record,
            self.image_size or (1, 1),  # without candidates the size is not used
            multiple=multiple,
            looked_again=self.looked_again,
            overlapping=overlapping,
            mislabelled=mislabelled_as(self.candidates, self.phrase),
        )


def choose_offline(
    selector: Selector,
    data: Collection,
    drawn: np.ndarray | None = None,
    answers: Iterable[Mapping[str, Any]] = (),
) -> Choices:
    """Apply ``selector`` to every pair of ``data``, as at run time.

    Args:
        selector: the selector.
        data: the collection.
        drawn: (P,) number of responses of each pair to use, in order; None for all.
        answers: the responses of the collection, from which the labels of the boxes are read. Without them, the choice
            is that of a grounding call without ``check_labels``.

    Raises:
        DataError: the selector makes boxes of its own, and the collection does not hold the true boxes.
    """
    found: Iterable[Call] = calls(data, selector.needs.maps, answers)
    if drawn is not None:
        found = (call.first(int(count)) for call, count in zip(found, drawn, strict=True))
    return choices_of(selector, found, data)


def choices_of(selector: Selector, found: Iterable[Call], data: Collection) -> Choices:
    """Apply ``selector`` to P calls of pairs of ``data``, which may include second looks.

    Raises:
        DataError: the true boxes are needed for boxes outside the collection, and the collection does not hold them.
    """
    scorer = Scorer(selector, None)
    rows = np.array([_chosen(scorer, call, data) for call in found], float).reshape(-1, 5)
    iou, confidence, oracle, sizes, images = rows.T
    return Choices(iou, confidence, oracle, sizes.astype(int), images.astype(int))


def _chosen(scorer: Scorer, call: Call, data: Collection) -> tuple[float, float, float, int, int]:
    """Return one row of :class:`Choices`."""
    count, oracle = len(call.candidates), _best_known(call, data)
    call = call.seen_by(scorer.selector)
    candidates = call.candidates
    decision = call.decided(scorer)
    if not decision.detections:
        return 0.0, np.nan, oracle, count, -1
    best = decision.detections[0].candidate
    confidences = scorer.selector.confidences(candidates, call.record, call.image_size or (1, 1), decision.qualities)
    iou = published_iou(scorer, decision, call, data)
    image = int(data.image[call.index[0]])
    return iou, np.nan if confidences is None else confidences[best], oracle, count, image


def _best_known(call: Call, data: Collection) -> float:
    """Return the IoU of the best candidate of ``call``, 0 without candidates."""
    known = data.iou[call.index].astype(float)  # only candidates of the collection have a stored IoU
    for i in np.flatnonzero(call.index < 0):
        known[i] = best_iou(call.candidates[i].box, data.truth(call.pair))
    return float(known.max(initial=0.0))


def published_iou(scorer: Scorer, decision: Decision, call: Call, data: Collection) -> float:
    """Return the IoU of the first box that ``decision`` publishes.

    That of a box which the selector made, or which is of a second look, was not measured during collection.

    Raises:
        DataError: it has to be measured, and the collection does not hold the true boxes.
    """
    found = decision.detections[0]
    index = call.index[found.candidate]
    return best_iou(found.box, data.truth(call.pair)) if scorer.fuses_boxes or index < 0 else float(data.iou[index])


def drawn_by_auto(data: Collection, answers: Iterable[Mapping[str, Any]], most: int) -> np.ndarray:
    """Return the number of responses, (P,), that ``auto`` would have drawn out of the ``most`` collected ones of each
    pair; ``answers`` are the responses of the collection."""
    boxes: dict[int, dict[int, int]] = {}
    for answer in answers:
        boxes.setdefault(answer["pair"], {})[answer["response"]] = answer["num_boxes"]
    drawn = np.full(len(data.pairs), most)
    for row, call in enumerate(calls(data, False)):
        counts, candidates = boxes[call.pair], call.candidates
        stop = 0
        while stop < most:
            stop = wave_size(stop, most).stop
            so_far = [Response("", counts[k], True) for k in range(stop)]
            if should_stop_early([c for c in candidates if c.response < stop], so_far):
                break
        drawn[row] = stop
    return drawn


def calls(data: Collection, maps: bool, answers: Iterable[Mapping[str, Any]] = ()) -> Iterator[Call]:
    """Yield one call for each collected pair.

    Args:
        data: the collection.
        maps: whether to read the attention maps, which are on disk.
        answers: the responses of the collection (:func:`training.collection.store.read_responses`); with them, calls
            hold their responses and token statistics, and candidates their labels.
    """
    written: dict[int, list[Mapping[str, Any]]] = {}
    for answer in answers:
        written.setdefault(answer["pair"], []).append(answer)
    drawn = 1 if data.manifest.get("greedy") else data.manifest.get("samples")
    order = np.argsort(data.pair, kind="stable")
    bounds = np.searchsorted(data.pair[order], [data.pairs, data.pairs + 1])  # (2, P)
    keys = data.manifest.get("pairs", ())
    for pair, start, stop in zip(data.pairs.tolist(), *bounds.tolist(), strict=True):
        index = order[start:stop]
        mine = sorted(written.get(pair, []), key=lambda a: a["response"])
        told = {a["response"]: _labels_and_confidences(a) for a in mine}
        responses_of, orders = data.response[index].tolist(), data.order[index].tolist()
        candidates = tuple(
            Candidate(Box(*data.box[i]), label, r, o, tuple(data.tokens[i].tolist()), stated=stated)
            for i, r, o in zip(index, responses_of, orders, strict=True)
            for label, stated in (told.get(r, {}).get(o, ("", None)),)
        )
        phrase = keys[pair].partition(":")[2] if pair < len(keys) else ""
        responses = tuple(Response(a["text"], a["num_boxes"], a["finished"], a["problem"]) for a in mine)
        tokens = _token_statistics(candidates, mine) if mine else None
        hidden = hidden_of(mine[0]) if mine else None
        if len(index):
            h, w = data.grid[index[0]].tolist()
            width, height = data.image_size[index[0]].tolist()
            seen = data.maps[index] if maps else None
            record = AttentionRecord(data.entropy[index], seen, (h, w), tokens, drawn, hidden)
            yield Call(pair, index, candidates, record, (width, height), responses, phrase=phrase)
        else:
            none = AttentionRecord(data.entropy[index], None, (1, 1), tokens, drawn, hidden)
            yield Call(pair, index, (), none, None, responses, phrase=phrase)


def hidden_of(answer: Mapping[str, Any]) -> np.ndarray | None:
    """Return the last hidden state at the end of the prompt, (D,) float32, which the first response to it is stored
    with; None if it is not stored with ``answer``."""
    hidden = answer.get(HIDDEN)
    return None if hidden is None or not len(hidden) else np.asarray(hidden, np.float32)


def _labels_and_confidences(answer: Mapping[str, Any]) -> dict[int, tuple[str, float | None]]:
    """Return label and stated confidence of a response's candidates, by their order, read from its text.

    Boxes outside the picture are in the text, but are no candidates. Which ones is not known, so that what such a
    response says of its boxes is left out unless it says the same of all.
    """
    stated = [box for box in parse_response(answer["text"]) if box.closed or answer["finished"]]
    said: list[tuple[str, float | None]] = [(box.label, box.confidence) for box in without_examples(stated)]
    if len(said) != answer["num_boxes"]:
        labels, confidences = ({part[k] for part in said} for k in (0, 1))
        same = said[0] if said else ("", None)
        said = [(same[0] if len(labels) == 1 else "", same[1] if len(confidences) == 1 else None)] * answer["num_boxes"]
    return dict(enumerate(said))


def _token_statistics(candidates: Sequence[Candidate], responses: list[Mapping[str, Any]]) -> TokenStatistics:
    entropies = {r["response"]: r["token_entropy"] for r in responses}
    logprobs = {r["response"]: r["token_logprob"] for r in responses}
    try:
        return TokenStatistics.of(candidates, entropies, logprobs)
    except (IndexError, KeyError) as error:
        raise DataError(
            f"the collection's responses to pair {responses[0]['pair']} do not fit its candidates ({error!r}): delete "
            "the part that holds it and collect it again"
        ) from error
