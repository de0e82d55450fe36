import numpy as np
import pytest
from tiny_parts import CUP, KEY_HIGH, KEY_LOW, SQUARE

from acs_core.geometry import Box
from training.tiny.mistakes import Mistakes
from training.world.scene import SceneObject

TINY = SceneObject("apple", Box(50, 50, 54, 54), 9.0)  # 0.11 % of the image
SMALL = SceneObject("apple", Box(50, 50, 62, 62), 100.0)  # 1 %
LARGE = SceneObject("apple", Box(40, 40, 80, 80), 900.0)
ALIKE = SceneObject("orange", Box(80, 80, 90, 90), 100.0)
ALWAYS = Mistakes(1.0, 1.0, 1.0)


def drawn(mistakes, name, objects, count=400):
    rng = np.random.default_rng(0)
    return [mistakes.answer(rng, name, objects, SQUARE) for _ in range(count)]


@pytest.mark.parametrize(("object_", "share"), [(TINY, 0.6), (SMALL, 0.2), (LARGE, 0.05)])
def test_smaller_objects_are_missed_more_often(object_, share):
    wrong = [a for a in drawn(Mistakes(0.6, 0.2, 0.05), "apple", [object_, CUP]) if a]
    assert len(wrong) / 400 == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize(("name", "objects"), [("apple", [CUP]), ("key", [KEY_LOW, KEY_HIGH, CUP]), ("apple", [])])
def test_what_is_absent_or_repeats_has_the_true_answer(name, objects):
    assert set(drawn(ALWAYS, name, objects, 20)) == {None}


def test_the_other_object_is_mostly_a_look_alike_and_its_box_is_exact():
    answers = drawn(Mistakes(1.0, 1.0, 1.0, background=0.0, alike=0.75), "apple", [TINY, ALIKE, CUP])
    assert all(a.supervised and a.box in (ALIKE.box, CUP.box) for a in answers)
    # a quarter is drawn from both others
    assert sum(a.box == ALIKE.box for a in answers) / len(answers) == pytest.approx(0.75 + 0.125, abs=0.05)


def test_another_colour_of_the_category_is_a_look_alike():
    red, blue = (SceneObject("cup", o.box, 90.0, colour) for o, colour in ((TINY, "red"), (ALIKE, "blue")))
    mistakes = Mistakes(1.0, 1.0, 1.0, background=0.0, alike=1.0)
    assert {a.box for a in drawn(mistakes, "red cup", [red, blue, LARGE], 20)} == {blue.box}


def test_boxes_on_the_background_are_small_meet_no_object_and_are_not_supervised():
    objects = [TINY, ALIKE, CUP]
    answers = drawn(Mistakes(1.0, 1.0, 1.0, background=1.0), "apple", objects)
    free = [a for a in answers if not any(a.box.iou(o.box) for o in objects)]
    assert len(free) > 0.98 * len(answers)
    for a in answers:
        assert not a.supervised
        assert 0 <= a.box.x1 < a.box.x2 <= SQUARE[0] and 0 <= a.box.y1 < a.box.y2 <= SQUARE[1]
        assert a.box.area <= 0.0101 * SQUARE[0] * SQUARE[1]


def test_with_nothing_else_in_the_scene_the_box_is_on_the_background():
    assert all(not a.supervised for a in drawn(Mistakes(1.0, 1.0, 1.0, background=0.0), "apple", [TINY], 20))
