"""Conversion of grounding results to and from ROS messages. Coordinates are pixels, x to the right and y down; headers
are those of the source image."""

from __future__ import annotations

import math
from collections import Counter

from acs_msgs.msg import Candidate as CandidateMsg
from acs_msgs.msg import CandidateArray
from sensor_msgs.msg import RegionOfInterest
from std_msgs.msg import Header
from vision_msgs.msg import (
    BoundingBox2D,
    Detection2D,
    Detection2DArray,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
    Point2D,
    Pose2D,
)

from acs_core.errors import ImageError
from acs_core.geometry import Box
from acs_core.plain_text import shorten
from acs_core.types import Candidate, Detection, GroundingResult, Outcome, Response, ScoreKind

LAST_PIXEL = 2**32 - 1  # of the uint32 fields of RegionOfInterest


def box_to_message(box: Box) -> BoundingBox2D:
    """Convert a box to centre and size; ``theta`` is 0."""
    x, y = box.center
    center = Pose2D(position=Point2D(x=float(x), y=float(y)), theta=0.0)
    return BoundingBox2D(center=center, size_x=float(box.width), size_y=float(box.height))


def box_from_message(msg: BoundingBox2D) -> Box:
    """Convert centre and size to a box; ``theta`` is ignored."""
    x, y, w, h = msg.center.position.x, msg.center.position.y, msg.size_x / 2, msg.size_y / 2
    return Box(x - w, y - h, x + w, y + h)


def region_to_message(region: Box | RegionOfInterest | None) -> RegionOfInterest:
    """Return the region as a message: the smallest whole pixels that contain a box, all zero for None.

    Raises:
        ImageError: the box has no area, or begins outside of what the message can hold.
        TypeError: it is neither.
    """
    if region is None:
        return RegionOfInterest()
    if isinstance(region, RegionOfInterest):
        return region
    if not isinstance(region, Box):
        raise TypeError(f"region must be a Box, a RegionOfInterest or None, got {shorten(region)}")
    clipped = region.clip(LAST_PIXEL, LAST_PIXEL)
    if clipped is None:
        raise ImageError(f"the region {region.as_tuple()} has no area to the right of and below the image's corner")
    x, y = math.floor(clipped.x1), math.floor(clipped.y1)
    width, height = math.ceil(clipped.x2) - x, math.ceil(clipped.y2) - y
    return RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height)


def region_from_message(message: RegionOfInterest) -> Box | None:
    """Return the region as a box in pixels; None if all fields are zero, which means the whole image.

    Raises:
        ImageError: the region has an offset, but no area.
    """
    x, y, width, height = message.x_offset, message.y_offset, message.width, message.height
    if not (x or y or width or height):
        return None
    if not (width and height):
        raise ImageError(f"the region {width} x {height} at ({x}, {y}) has no area: all zero is the whole image")
    return Box(x, y, x + width, y + height)


def detection_to_message(header: Header, phrase: str, box: Box, score: float) -> Detection2D:
    """Return a message with one box and its score in [0, 1]; ``class_id`` is the phrase, the track id stays empty."""
    hypothesis = ObjectHypothesisWithPose(hypothesis=ObjectHypothesis(class_id=phrase, score=float(score)))
    return Detection2D(header=header, results=[hypothesis], bbox=box_to_message(box))


def detections_to_message(header: Header, result: GroundingResult) -> Detection2DArray:
    """Return a message with the detections of a result, best score first; empty if the model abstained."""
    ordered = sorted(result.detections, key=lambda d: -d.score)
    found = [detection_to_message(header, result.phrase, d.box, d.score) for d in ordered]
    return Detection2DArray(header=header, detections=found)


def candidates_to_message(header: Header, result: GroundingResult) -> CandidateArray:
    """Return a message with the whole result of a call: candidates, numbers of responses, and timing."""
    stages = sorted(result.timing_ms.items())
    return CandidateArray(
        header=header,
        phrase=result.phrase,
        image_width=result.image_size[0],
        image_height=result.image_size[1],
        model=result.model,
        revision=result.revision or "",
        selector=result.selector,
        score_kind=result.score_kind.value,
        seed=int(result.seed),
        reason=result.reason,
        skipped=list(getattr(result, "skipped", ())),
        candidates=[_candidate_to_message(c) for c in result.candidates],
        num_responses=len(result.responses),
        num_without_box=sum(r.num_boxes == 0 for r in result.responses),
        timing_names=[name for name, _ in stages],
        timing_ms=[float(ms) for _, ms in stages],
    )


def result_from_message(msg: CandidateArray) -> GroundingResult:
    """Return the result in a candidate message.

    The message lacks the texts of the responses (it holds their number and the response of each box), boxes that a
    selector computed (majority-vote, consensus, acs-fusion and others; the detections have the boxes of the candidates
    that represent them), the expected IoU, the searched ``region``, and second looks (``window``, and a candidate's
    ``look`` and ``in_window``).

    Raises:
        ValueError: an ``outcome`` or ``score_kind`` is not one of the message's constants.
    """
    candidates = tuple(_candidate_from_message(c) for c in msg.candidates)
    boxes = Counter(c.response for c in candidates)
    chosen = [Detection(c.box, c.score, i) for i, c in enumerate(candidates) if c.outcome is Outcome.SELECTED]
    return GroundingResult(
        phrase=msg.phrase,
        image_size=(msg.image_width, msg.image_height),
        detections=tuple(sorted(chosen, key=lambda d: -d.score)),
        candidates=candidates,
        responses=tuple(Response("", boxes[i], True) for i in range(msg.num_responses)),
        selector=msg.selector,
        score_kind=ScoreKind(msg.score_kind),
        model=msg.model,
        revision=msg.revision or None,
        seed=msg.seed,
        reason=msg.reason,
        timing_ms=dict(zip(msg.timing_names, msg.timing_ms, strict=True)),
        skipped=tuple(msg.skipped),
    )


def _candidate_to_message(candidate: Candidate) -> CandidateMsg:
    return CandidateMsg(
        bbox=box_to_message(candidate.box),
        label=candidate.label,
        response=candidate.response,
        order=candidate.order,
        coordinate_tokens=[int(t) for t in candidate.coordinate_tokens],
        quality=float(candidate.quality),
        score=float(candidate.score),
        cluster=candidate.cluster,
        outcome=candidate.outcome.value,
        reason=candidate.reason,
    )


def _candidate_from_message(msg: CandidateMsg) -> Candidate:
    x1, y1, x2, y2 = (int(t) for t in msg.coordinate_tokens)
    return Candidate(
        box=box_from_message(msg.bbox),
        label=msg.label,
        response=msg.response,
        order=msg.order,
        coordinate_tokens=(x1, y1, x2, y2),
        quality=msg.quality,
        score=msg.score,
        cluster=msg.cluster,
        outcome=Outcome(msg.outcome),
        reason=msg.reason,
    )
