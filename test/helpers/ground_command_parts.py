"""A stand-in for the model of acs-ground, and a result for it to give."""

from dataclasses import replace

import numpy as np

from acs_core.geometry import Box
from acs_core.selection.decision import decide, why_no_candidates
from acs_core.types import UNPARSEABLE, Candidate, GroundingResult, Response, ScoreKind


def result(phrase="key", texts=(), min_score=0.0, kind=ScoreKind.CALIBRATED):
    candidates = [
        Candidate(Box(10 * i, 5, 10 * i + 8, 15), "key", i, 0, (1, 3, 5, 7)) for i in range(0 if texts else 3)
    ]
    values = np.array([0.2, 0.9, 0.5][: len(candidates)])
    choice = decide(candidates, values, values, num_responses=3, min_score=min_score)
    responses = tuple(Response(t, 0, True, UNPARSEABLE) for t in texts)
    reason = choice.reason if candidates else why_no_candidates(responses)
    timing = {"total": 12.5}
    return GroundingResult(
        phrase,
        (60, 40),
        choice.detections,
        choice.candidates,
        responses,
        "acs-free",
        kind,
        "tiny",
        None,
        3,
        reason,
        timing,
    )


class RecordingGrounder:
    """Stands in for the model; keeps what it was asked."""

    def __init__(self, answer=None):
        self.answer, self.loaded, self.asked = answer or result(), None, None

    def from_pretrained(self, model, **options):
        self.loaded = {"model": model} | options
        return self

    model_name = "tiny-internvl"

    def unknown_words(self, phrase):
        return ("zebra",) if "zebra" in phrase else ()

    def ground_many(self, image, phrases, **options):
        self.image, self.asked = image, options
        if isinstance(self.answer, BaseException):
            raise self.answer
        return tuple(replace(self.answer, phrase=phrase) for phrase in phrases)
