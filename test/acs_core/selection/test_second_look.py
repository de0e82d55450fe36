from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_core.attention import AttentionRecord
from acs_core.generation.token_statistics import TokenStatistics
from acs_core.geometry import Box
from acs_core.selection.box_votes import weights_of_looks
from acs_core.selection.decision import Decision
from acs_core.selection.registry import FirstResponse, MeanBox
from acs_core.selection.scorer import Scorer
from acs_core.selection.second_look import ROOM, CandidateSet, Window, second_draw
from acs_core.types import Candidate, Detection, Response, SecondLook

SIZE = (200, 100)


@st.composite
def boxes(draw, width=SIZE[0], height=SIZE[1]):
    x1, x2 = sorted(draw(st.lists(st.floats(0, width), min_size=2, max_size=2, unique=True)))
    y1, y2 = sorted(draw(st.lists(st.floats(0, height), min_size=2, max_size=2, unique=True)))
    return Box(x1, y1, x2, y2)


@given(boxes(), st.floats(1.01, 16))
def test_a_window_lies_in_the_picture_and_holds_the_box(box, zoom):
    window = Window.around(box, SIZE, zoom)
    too_large = box.width > ROOM * SIZE[0] / zoom or box.height > ROOM * SIZE[1] / zoom
    assert (window is None) == too_large
    if window is None:
        return
    found, near = window.box, 1e-9 * SIZE[0]
    assert found.x1 >= 0 and found.y1 >= 0 and found.x2 <= SIZE[0] + near and found.y2 <= SIZE[1] + near
    assert found.width == pytest.approx(SIZE[0] / zoom) and found.height == pytest.approx(SIZE[1] / zoom)
    assert found.x1 <= box.x1 + near and found.y1 <= box.y1 + near
    assert found.x2 >= box.x2 - near and found.y2 >= box.y2 - near


@given(boxes(), boxes(), st.floats(1.01, 16))
def test_there_and_back_is_the_same_box(about, box, zoom):
    window = Window.around(about, SIZE, zoom)
    if window is None:
        return
    back = window.to_picture(window.to_window(box))
    assert back.as_tuple() == pytest.approx(box.as_tuple(), abs=1e-6)
    whole = window.to_picture(Box(0, 0, *SIZE))
    assert whole.as_tuple() == pytest.approx(window.box.as_tuple(), abs=1e-9)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (Box(90, 40, 110, 60), (50, 25, 150, 75)),  # in the middle
        (Box(0, 0, 10, 10), (0, 0, 100, 50)),  # in a corner
        (Box(190, 45, 200, 55), (100, 25, 200, 75)),  # at a border
        (Box(0, 40, 67, 60), None),  # wider than two thirds of 100
        (Box(90, 30, 110, 64), None),  # higher than two thirds of 50
    ],
)
def test_windows(box, expected):
    window = Window.around(box, SIZE)
    assert (window and window.box.as_tuple()) == expected


def test_enlarging_keeps_the_size_and_shows_the_window_alone():
    image = np.zeros((100, 200, 3), np.uint8)
    image[25:75, 50:150] = 200  # the window, and nothing of what is around it
    image[40:60, 90:110] = (0, 255, 0)
    window = Window.around(Box(90, 40, 110, 60), SIZE)
    large = window.enlarged(image)
    assert large.shape == image.shape and large.dtype == np.uint8
    assert (large[35:65, 85:115] == (0, 255, 0)).all()  # twice 20 x 20 pixels, in the middle
    assert (large[4:20, 4:-4] == 200).all() and (large[-20:-4, 4:-4] == 200).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zoom": 1.0}, "zoom"),
        ({"zoom": float("nan")}, "zoom"),
        ({"zoom": 17.0}, "zoom"),
        ({"samples": 0}, "samples must be a whole number from 1"),
    ],
)
def test_bad_values_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        SecondLook(**options)


@pytest.mark.parametrize(
    ("look", "first", "expected"),
    [(SecondLook(), 10, 5), (SecondLook(), 5, 3), (SecondLook(), 1, 1), (SecondLook(samples=7), 2, 7)],
)
def test_how_many_responses(look, first, expected):
    assert look.samples_after(first) == second_draw(look, first, 0)[0] == expected


@given(st.integers(0, 2**63 - 1))
def test_another_seed_in_the_same_range(seed):
    _, second = second_draw(SecondLook(), 10, seed)
    assert 0 <= second < 2**63 and second != seed


def seen(*of, shift=0.0, grid=(2, 3), maps=True):
    """One candidate of ``Box`` for each (response, box), its evidence telling which it is."""
    candidates = tuple(Candidate(box, "key", r, 0, (1, 2, 3, 4)) for r, box in of)
    marks = np.arange(len(of), dtype=np.float32) + shift
    entropy = np.broadcast_to(marks[:, None, None, None], (len(of), 4, 1, 2))
    made = np.broadcast_to(marks[:, None, None, None, None, None], (len(of), 4, 1, 2, *grid))
    tokens = TokenStatistics(np.tile(marks[:, None], 4), marks, marks, marks, marks)
    responses = tuple(Response("", 1, True) for _ in range(max((r for r, _ in of), default=0) + 1))
    return CandidateSet(candidates, responses, AttentionRecord(entropy, made if maps else None, grid, tokens))


WINDOW = Window(Box(50, 25, 150, 75), SIZE)
FIRST = seen((0, Box(90, 40, 110, 60)), (2, Box(91, 40, 110, 60)))


def test_both_looks_together():
    both = FIRST.with_second(seen((0, Box(0, 0, 200, 100)), (1, Box(20, 10, 40, 30)), shift=10), WINDOW)
    assert [c.response for c in both.candidates] == [0, 2, 3, 4]
    assert len(both.responses) == both.record.num_responses == 5
    assert weights_of_looks(both.candidates).tolist() == [1, 1, 2, 2]
    assert both.candidates[2].box == WINDOW.box and both.candidates[3].box == Box(60, 30, 70, 40)
    assert both.record.entropy[:, 0, 0, 0].tolist() == [0, 1, 10, 11]
    assert both.record.maps.shape == (4, 4, 1, 2, 2, 3) and both.record.tokens.entropy[:, 0].tolist() == [
        0,
        1,
        10,
        11,
    ]


def test_a_second_look_that_sees_nothing_adds_its_responses_alone():
    both = FIRST.with_second(seen(maps=False, grid=(1, 1)), WINDOW)
    assert both.candidates == FIRST.candidates and len(both.responses) == 4
    assert both.record.entropy is FIRST.record.entropy and both.record.num_responses == 4


def test_responses_that_do_not_count_are_left_out_of_both_looks():
    first = replace(FIRST, record=FIRST.record.of_responses(1))
    more = seen((0, WINDOW.box), shift=10)
    both = first.with_second(replace(more, record=more.record.of_responses(2)), WINDOW)
    assert both.record.num_responses == 3
    unknown = first.with_second(seen(maps=False, grid=(1, 1)), WINDOW)
    assert unknown.record.num_responses == 1 + len(unknown.responses) - len(FIRST.responses)


@pytest.mark.parametrize(("counted", "joined"), [(None, 4), (0, 3), (1, 4)])
def test_none_that_counts_is_told_from_unknown(counted, joined):
    first = replace(FIRST, record=FIRST.record.of_responses(3))
    more = seen(maps=False, grid=(1, 1))
    both = first.with_second(replace(more, record=replace(more.record, num_responses=counted)), WINDOW)
    assert both.record.num_responses == joined


def test_a_box_without_area_in_the_picture_is_left_out():
    narrow = Box(100, 10, np.nextafter(100, 101), 30)  # half of its width is nothing at 100
    both = FIRST.with_second(seen((0, narrow), (1, Box(20, 10, 40, 30)), shift=10), WINDOW)
    assert len(both.candidates) == 3 and both.record.entropy[:, 0, 0, 0].tolist() == [0, 1, 11]


@pytest.mark.parametrize("second", [seen((0, WINDOW.box), grid=(3, 3)), seen((0, WINDOW.box), maps=False)])
def test_evidence_of_another_shape_is_refused(second):
    with pytest.raises(ValueError, match=r"cannot be joined|captured for only one"):
        FIRST.with_second(second, WINDOW)


def test_where_to_look_again():
    low, high = (
        Candidate(Box(x, 40, x + 10, 50), "", 0, 0, (1, 2, 3, 4), quality=q) for x, q in ((20, 0.1), (100, 0.9))
    )
    made = Box(60, 40, 80, 60)
    look, scorer = SecondLook(), Scorer(MeanBox(), None)
    found = Decision((low, high), (Detection(made, 1.0, 0),))
    assert scorer.can_look_again
    assert scorer.second_window(found, SIZE, look) == (Window.around(made, SIZE), "")
    assert scorer.second_window(Decision((low, high), (), "below"), SIZE, look) == (Window.around(high.box, SIZE), "")


def test_why_there_is_no_second_look():
    one = Candidate(Box(20, 40, 30, 50), "", 0, 0, (1, 2, 3, 4), quality=0.1)
    found, look, scorer = Decision((one,), ()), SecondLook(), Scorer(MeanBox(), None)
    greedy = Scorer(FirstResponse("greedy", greedy_decoding=True), None)
    assert not greedy.can_look_again
    for (window, why), reason in (
        (greedy.second_window(found, SIZE, look), "greedy takes the first answer in any case"),
        (scorer.second_window(found, SIZE, look, multiple=True), "several objects are asked for, and it looks at one"),
        (scorer.second_window(Decision((), ()), SIZE, look), "the first found nothing to look at"),
        (scorer.second_window(found, SIZE, SecondLook(zoom=15.0)), "the object is large enough in the picture"),
    ):
        assert window is None and why == f"no second look: {reason}"
