"""Every reason that a call of the model gives, with the situation that produces it."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from grounder_parts import IMAGE, ONE, answer
from helpers.score_parts import one_split
from reason_parts import told, unknown, without_row

from acs_core import pipeline
from acs_core.artifacts.calibration import Calibration, WorkingPoint
from acs_core.artifacts.identity import ModelIdentity
from acs_core.errors import CalibrationError, Cancelled, DeviceMemoryError, NonFiniteError
from acs_core.generation import schedule
from acs_core.generation.schedule import StageClock
from acs_core.geometry import Box
from acs_core.selection.box_votes import MeanBox
from acs_core.selection.decision import Decision, decide, why_no_candidates
from acs_core.selection.evidence import PRESENCE
from acs_core.selection.registry import FirstResponse
from acs_core.selection.scorer import Scorer, check_confidences, check_scores
from acs_core.types import Candidate, Response, SamplingConfig, SecondLook

FILES = (
    "acs_core/types.py",
    "acs_core/generation/candidates.py",
    "acs_core/generation/schedule.py",
    "acs_core/selection/decision.py",
    "acs_core/selection/scorer.py",
    "acs_core/pipeline.py",
    "acs_core/grounder.py",
)
NO_REASONS = ("second look",)  # the name of a stage
SMALL = answer((450, 450, 500, 500))
SIZE = (200, 100)


class Situation:
    """What the rows are made with: a small random model that answers as it is told."""

    def __init__(self, grounders, answers, monkeypatch):
        self.grounders, self.answers, self.monkeypatch = grounders, answers, monkeypatch

    def ask(self, *texts, selector="acs-free", grounder=None, **options):
        if texts:
            self.answers(*texts)
        return (grounder or self.grounders(selector)).ground(IMAGE, "key", **options)

    def without_memory(self, allowed):
        """Let the device have memory for ``allowed`` responses."""
        real = pipeline.sample_on_schedule

        def tight(lvlm, state, config, seeds, **options):
            if config.num_samples > allowed:
                raise torch.OutOfMemoryError("tried to allocate 2 GiB")
            return real(lvlm, state, config, seeds, **options)

        self.monkeypatch.setattr(pipeline, "sample_on_schedule", tight)


def pick(places, qualities, **options):
    candidates = [Candidate(Box(x, 0, x + 10, 10), "key", i, 0, (1, 3, 5, 7)) for i, x in enumerate(places)]
    return decide(candidates, np.array(qualities), np.array(qualities), num_responses=len(places), **options)


def raised(kind, call):
    with pytest.raises(kind) as error:
        call()
    return str(error.value)


def window(selector, decision, **options):
    return Scorer(selector, None).second_window(decision, SIZE, SecondLook(zoom=options.pop("zoom", 2.0)), **options)[1]


FOUND = Decision((Candidate(Box(20, 40, 30, 50), "", 0, 0, (1, 2, 3, 4), quality=0.1),), ())


def second_look_without_memory(at):
    real, calls = pipeline.prefill, []

    def tight(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("tried to allocate 2 GiB")
        return real(*arguments)

    at.monkeypatch.setattr(pipeline, "prefill", tight)
    return at.ask(SMALL, second_look=True).skipped[-1]


def second_look_without_time(at):
    at.monkeypatch.setattr(pipeline.Deadline, "left_ms", lambda deadline: 0.0 if deadline.reserve_ms == 0 else 1e9)
    at.monkeypatch.setattr(pipeline.ThroughputEstimate, "after_ms", property(lambda self: 1.0))
    return at.ask(SMALL, second_look=True, deadline_ms=60000).skipped[-1]


def second_look_cut_off(at):
    real = pipeline._look_again

    def cut_off(*arguments):
        look, said = real(*arguments)
        return replace(look, candidates=(), record=look.record.only([]).of_responses(0)), said

    at.monkeypatch.setattr(pipeline, "_look_again", cut_off)
    return at.ask(SMALL, second_look=True, deadline_ms=60000).skipped[-1]


def while_another_call_runs(at):
    grounder, held, release = at.grounders(), threading.Event(), threading.Event()

    def hold():
        with grounder.lvlm.lock:
            held.set()
            release.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    try:
        return raised(Cancelled, lambda: at.ask(should_stop=lambda: True))
    finally:
        release.set()
        thread.join()


def no_room(at):
    at.without_memory(0)
    return raised(DeviceMemoryError, lambda: at.ask(sampling=SamplingConfig(num_samples=2, max_new_tokens=2)))


def less_room(at):
    at.without_memory(2)
    return at.ask(sampling=SamplingConfig(num_samples=4, max_new_tokens=2)).skipped[0]


def with_a_broken_weight(at):
    grounder = at.grounders()
    weight = grounder.lvlm.text_model.norm.weight
    at.monkeypatch.setattr(weight, "data", torch.full_like(weight, float("nan")))
    return at.ask(grounder=grounder, sampling=SamplingConfig(num_samples=2, max_new_tokens=2))


def no_precision(at, curve):
    grounder = at.grounders()
    at.monkeypatch.setattr(grounder, "calibration", curve(grounder) if curve else None)
    return raised(CalibrationError, lambda: grounder.required_score(0.9))


def score_model_of_another_version(at):
    grounder = at.grounders()
    kind = grounder.selector.feature
    curve = Calibration(ModelIdentity.of(grounder.lvlm), "acs-free", kind, (0.0, 1.0), (0.0, 1.0))
    curve = replace(curve, score_model=one_split("colour", ["colour"]))
    return raised(CalibrationError, lambda: Scorer(grounder.selector, curve).check(grounder.lvlm))


def score_model_without_its_probe(at):
    grounder = at.grounders()
    kind = grounder.selector.feature
    curve = Calibration(ModelIdentity.of(grounder.lvlm), "acs-free", kind, (0.0, 1.0), (0.0, 1.0))
    curve = replace(curve, score_model=one_split(PRESENCE, [PRESENCE]))
    return raised(CalibrationError, lambda: Scorer(grounder.selector, curve).check(grounder.lvlm))


def curve_with(*points):
    """Makes the calibration of a grounder that has these working points."""
    return lambda grounder: Calibration(
        ModelIdentity.of(grounder.lvlm), "acs-free", "any", (0.0, 1.0), (0.0, 1.0), working_points=points
    )


POINTS = WorkingPoint(0.5, 0.2, 0.6, 0.9, 80), WorkingPoint(0.6, 0.3, 0.7, 0.8, 70)
LOW = "no score of acs-free keeps a precision of 0.9 with 95 % confidence: {}. Ask for a lower min_precision, or "
LOW += "calibrate on more answers with `acs-train calibrate`"
INF = np.array([np.inf])
SHORT = SamplingConfig(num_samples=10, max_new_tokens=12, seed=3)
# (what happens, the text that it gives)
ROWS = (
    # --- why a response has no box, and why there is no detection
    (lambda at: at.ask("[]", "[]").reason, "no box in all 2 responses: the model says the object is not there"),
    (lambda at: at.ask("").reason, "no box in the response: the response is empty"),
    (
        lambda at: at.ask("hm", "").reason,
        "no box in any of 2 responses: 1 x no box could be read from the response, 1 x the response is empty",
    ),
    (
        lambda at: at.ask(answer((100, 100, 100, 100))).reason,
        "no box in the response: every box lies outside the image or has no area",
    ),
    (
        lambda at: at.ask(answer((200, 150, 280, 220), (350, 180, 420, 270))).reason,
        "no box in the response: the response only repeats the example boxes of the prompt",
    ),
    (
        lambda at: at.ask(sampling=SamplingConfig(num_samples=1, max_new_tokens=1, seed=3)).reason,
        "no box in the response: the response was cut off before its first box was complete (max_new_tokens, or the "
        "deadline)",
    ),
    (
        lambda at: with_a_broken_weight(at).reason,
        "no box in all 2 responses: the model gave NaN or infinite logits: its weights or the dtype are broken",
    ),
    (lambda at: why_no_candidates([Response("", 0, True, "")]), "no box in the response: no usable box"),
    (lambda at: decide((), np.zeros(0), np.zeros(0), num_responses=3).reason, "no candidate boxes"),
    (lambda at: pick([0], [np.nan]).reason, "the selector considers none of the candidate boxes"),
    (lambda at: pick([0], [0.12], min_score=0.3).reason, "best score 0.12 is below 0.30 (min_score)"),
    (lambda at: pick([0], [0.2999], min_score=0.3).reason, "best score 0.2999 is below 0.3000 (min_score)"),
    (
        lambda at: pick([0, 0, 50], [0.1, 0.2, 0.9], min_score=0.3, multiple=True).reason,
        "best score 0.20 is below 0.30 (min_score); a box with score 0.90 is in fewer than 2 responses (min_votes)",
    ),
    (
        lambda at: at.ask(answer(ONE), selector="first-valid", min_score=0.1).reason,
        "the selector first-valid gives no score, so nothing reaches min_score; best score 0.00 is below 0.10 "
        "(min_score); choose another selector, or min_score 0",
    ),
    # --- why a candidate was selected or not
    (lambda at: pick([0, 50], [0.9, np.nan]).candidates[1].reason, "the selector does not consider it"),
    (lambda at: pick([0, 50], [0.9, 0.2]).candidates[0].reason, "best quality, in 1 of 2 responses"),
    (lambda at: pick([0, 50], [0.9, 0.2]).candidates[1].reason, "quality 0.20, candidate 0 has 0.90"),
    (
        lambda at: at.ask(answer(ONE), SMALL.replace("key", "dog")).candidates[1].reason,
        "labelled 'dog', which is not what was asked for (check_labels)",
    ),
    (lambda at: pick([0, 50], [0.9, 0.8999]).candidates[1].reason, "quality 0.8999, candidate 0 has 0.9000"),
    (
        lambda at: pick([0], [0.2999], min_score=0.3).candidates[0].reason,
        "best, but its score 0.2999 is below 0.3000 (min_score)",
    ),
    (
        lambda at: pick([0, 0, 50], [0.9, 0.8, 0.7], multiple=True).candidates[2].reason,
        "in 1 of 3 responses, 2 needed (min_votes)",
    ),
    (
        lambda at: pick([0, 50, 51], [0.7, 0.7, 0.1]).candidates[0].reason,
        "as good as candidate 1, but 0 other responses agree instead of 1",
    ),
    (lambda at: pick([0, 50], [0.7, 0.7]).candidates[1].reason, "as good as candidate 0, which came first"),
    # --- what was left out
    (
        lambda at: at.ask(*[answer(ONE)] * 10, sampling=SamplingConfig(auto=True)).skipped[0],
        "5 of 10 responses were not needed: the first 5 agree",
    ),
    (
        lambda at: at.ask(sampling=SHORT, deadline_ms=1e-3).skipped[0],
        "5 of 10 responses were not begun: the deadline is 0 ms",
    ),
    (
        lambda at: at.ask(sampling=SHORT, deadline_ms=1e-3).skipped[1],
        "5 of 5 responses were cut off: the deadline is 0 ms",
    ),
    (less_room, "2 of 4 responses: cpu ran out of memory"),
    (
        no_room,
        "cpu has no room for a response to a picture of 126 x 84 pixels (…): use smaller pictures, fewer phrases at "
        "once, quantised weights, or another device",
    ),
    (second_look_without_memory, "no second look: cpu ran out of memory"),
    (second_look_cut_off, "no second look: it was cut off before a box, the deadline is 60000 ms"),
    (second_look_without_time, "no second look: the deadline is 60000 ms"),
    (
        lambda at: at.ask(*[SMALL] * 20, sampling=SamplingConfig(auto=True), second_look=True).skipped[1],
        "second look: 15 of 20 responses were not needed: the first 5 agree",
    ),
    (
        lambda at: window(FirstResponse("greedy", greedy_decoding=True), FOUND),
        "no second look: greedy takes the first answer in any case",
    ),
    (
        lambda at: window(MeanBox(), FOUND, multiple=True),
        "no second look: several objects are asked for, and it looks at one",
    ),
    (lambda at: window(MeanBox(), Decision((), ())), "no second look: the first found nothing to look at"),
    (lambda at: window(MeanBox(), FOUND, zoom=15.0), "no second look: the object is large enough in the picture"),
    (
        lambda at: with_a_broken_weight(at).skipped[0],
        "sampling ended early: the model gave NaN or infinite logits: its weights or the dtype are broken",
    ),
    # --- why there is no score
    (
        lambda at: raised(NonFiniteError, lambda: check_confidences("acs-free", np.ones(1), INF)),
        "the selector acs-free gave a confidence that is NaN or infinite: its file, or the attention that it read, is "
        "broken; no score is published",
    ),
    (
        lambda at: raised(NonFiniteError, lambda: check_scores("acs-free", INF, INF)),
        "the selector acs-free gave a quality that is NaN or infinite: its file, or the attention that it read, is "
        "broken; no score is published",
    ),
    (
        lambda at: raised(ValueError, lambda: check_scores("acs-free", np.array([0.5]), np.array([7.0]))),
        "the selector acs-free gave a score of 7 to 7, which must lie in [0, 1]; no score is published",
    ),
    # --- why no threshold keeps a precision
    (lambda at: no_precision(at, None), LOW.format("there is no calibration")),
    (lambda at: no_precision(at, curve_with()), LOW.format("the calibration states no precision")),
    (
        lambda at: no_precision(at, curve_with(*POINTS)),
        LOW.format("the calibration keeps 0.5, 0.6"),
    ),
    (
        lambda at: no_precision(at, curve_with(WorkingPoint(0.95, 0.2, 0.96, 0.9))),
        LOW.format("the calibration is of an earlier version, whose thresholds have no bound"),
    ),
    # --- why a calibration does not fit
    (
        score_model_of_another_version,
        "this calibration does not fit: its score model reads 'colour', which this version of acs does not compute for "
        "acs-free. Make one with `acs-train build`, or pass another with calibration=...",
    ),
    (
        score_model_without_its_probe,
        "this calibration does not fit: its score model reads the estimate of a presence probe, which the file does "
        "not hold. Make one with `acs-train build`, or pass another with calibration=...",
    ),
    # --- why a call was cancelled
    (
        lambda at: raised(Cancelled, lambda: StageClock(0.0, lambda: True, None).begin("sampling")),
        "stopped before the stage sampling",
    ),
    (while_another_call_runs, "stopped while waiting for another call to finish"),
)


@pytest.mark.parametrize(("happens", "expected"), ROWS, ids=[row[1][:60] for row in ROWS])
def test_the_reason_names_the_cause(happens, expected, grounders, answers, monkeypatch):
    text = happens(Situation(grounders, answers, monkeypatch))
    assert told(expected, text), text


def test_the_table_has_every_text():
    assert without_row(FILES, [expected for _, expected in ROWS], NO_REASONS) == []
    assert unknown(FILES, NO_REASONS) == []


def test_a_text_without_a_row_is_found():
    rows = [expected for _, expected in ROWS if "came first" not in expected]
    assert without_row(FILES, rows, NO_REASONS) == [
        "acs_core/selection/decision.py: as good as candidate …, which came first"
    ]


def test_a_response_that_reached_its_length_was_not_cut_off_by_a_deadline_after_it(grounders, monkeypatch):
    over, real = [], schedule.find_candidates
    monkeypatch.setattr(schedule, "find_candidates", lambda *given: over.append(1) or real(*given))
    monkeypatch.setattr(schedule.Deadline, "passed", lambda self: bool(over))
    # As many responses as the first wave has: another would begin after the deadline.
    config = replace(SHORT, num_samples=schedule.FIRST, max_new_tokens=1)
    result = grounders().ground(IMAGE, "key", sampling=config, deadline_ms=60000)
    assert over and not any(response.finished for response in result.responses)
    assert not any("cut off" in sentence for sentence in result.skipped)
