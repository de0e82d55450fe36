"""acs_msgs says what acs_core.types says, in the same words."""

import dataclasses

import pytest

pytest.importorskip("acs_msgs.msg")

from acs_msgs.msg import Candidate as CandidateMsg
from acs_msgs.msg import CandidateArray

from acs_core.types import Candidate, GroundingResult, Outcome, ScoreKind


def constants(message, prefix):
    return {getattr(message, name) for name in dir(message) if name.startswith(prefix)}


def test_outcomes():
    assert constants(CandidateMsg, "OUTCOME_") == {outcome.value for outcome in Outcome}


def test_score_kinds():
    assert constants(CandidateArray, "SCORE_KIND_") == {kind.value for kind in ScoreKind}


def test_every_field_of_a_candidate_has_its_own():
    # Which look a box is from stays in the library: the responses of a second look come after those of the first. So
    # does the confidence that the model states, which its text has.
    stay = {"box", "look", "in_window", "stated"}
    fields = {field.name for field in dataclasses.fields(Candidate)} - stay | {"bbox"}
    assert set(CandidateMsg.get_fields_and_field_types()) == fields


def test_the_call_is_described():
    ours = {field.name for field in dataclasses.fields(GroundingResult)}
    theirs = set(CandidateArray.get_fields_and_field_types())
    # The boxes chosen are in Detection2DArray; texts of responses, attention, the second look's window and the searched
    # region, which the goal named, stay in the library; what the model saw is on /diagnostics.
    stay = {"attention", "image", "window", "region", "input_size", "image_tokens"}
    assert ours - theirs == {"image_size", "detections", "responses", *stay}
    assert {"image_width", "image_height", "num_responses", "num_without_box", "timing_names", "timing_ms"} <= theirs


@pytest.mark.parametrize(
    ("field", "value"), [("quality", 0.25), ("response", 3), ("coordinate_tokens", [4, 8, 12, 16]), ("reason", "ä")]
)
def test_a_candidate_survives_serialisation(field, value):
    serialization = pytest.importorskip("rclpy.serialization")
    message = CandidateMsg(**{field: value})
    back = serialization.deserialize_message(serialization.serialize_message(message), CandidateMsg)
    assert back == message
    got = getattr(back, field)
    assert (list(got) if isinstance(value, list) else got) == value
