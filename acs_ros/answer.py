"""Reads what the node answered about one frame: the boxes and scores of ~/detections, which is what a robot acts on,
with the circumstances that ~/candidates tells of them. The two must agree."""

from __future__ import annotations

from dataclasses import replace

from std_msgs.msg import Header
from vision_msgs.msg import Detection2D

from acs_core.phrase import clean_phrase
from acs_core.types import Detection, GroundingResult, Outcome
from acs_ros.messages import box_from_message, result_from_message
from acs_ros.node_client import NodeTrouble, Reply


def read_answer(reply: Reply, header: Header, phrase: str) -> GroundingResult:
    """The answer to ``phrase`` about the frame of ``header``. Its ``detections`` are those of ~/detections, each
    joined with its candidate.

    Raises:
        NodeTrouble: a header or ``class_id`` is not that of the question, or the two messages disagree.
        PhraseError: the phrase cannot be asked.
    """
    asked = clean_phrase(phrase)
    _same("the header of ~/candidates", reply.candidates.header, header)
    _same("the phrase of ~/candidates", reply.candidates.phrase, asked)
    _same("the header of ~/detections", reply.detections.header, header)
    # What is still to be found on ~/detections: indices of the candidates that were selected.
    selected = [i for i, c in enumerate(reply.candidates.candidates) if c.outcome == Outcome.SELECTED.value]
    read = []
    for found in reply.detections.detections:
        _same("the header of a detection", found.header, header)
        _same("the number of hypotheses of a detection", len(found.results), 1)
        _same("the class_id of a detection", found.results[0].hypothesis.class_id, asked)
        number = _candidate_of(found, reply, selected)
        selected.remove(number)
        read.append(Detection(box_from_message(found.bbox), found.results[0].hypothesis.score, number))
    if selected:
        raise NodeTrouble(f"~/candidates says {len(selected)} boxes were selected that are not on ~/detections")
    return replace(result_from_message(reply.candidates), detections=tuple(read))


def _candidate_of(found: Detection2D, reply: Reply, selected: list[int]) -> int:
    score = found.results[0].hypothesis.score
    from acs_core.selection import makes_boxes  # imports torch, for which no --help should wait

    for number in selected:
        candidate = reply.candidates.candidates[number]
        own = candidate.bbox == found.bbox or makes_boxes(reply.candidates.selector)
        if own and candidate.score == score:  # both carry the very same float64 numbers
            return number
    box = " ".join(f"{v:.1f}" for v in box_from_message(found.bbox).as_tuple())
    raise NodeTrouble(f"the box {box} with score {score:.3f} on ~/detections is no selected candidate of ~/candidates")


def _same(what: str, got: object, expected: object) -> None:
    if got != expected:
        raise NodeTrouble(f"{what} is {got!r}, but the question was about {expected!r}")
