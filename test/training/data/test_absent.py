"""Questions about what images do not show."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from acs_core.geometry import Box
from training.data.dataset import Dataset, DatasetImage, DatasetObject, Problems
from training.data.pairs import ABSENT, choose_absent
from training.errors import DataError

NAMES = ("cup", "key", "lamp", "shoe")


def image(number, *objects, **more):
    shown = tuple(DatasetObject(name, Box(0, 0, 10, 10), 100.0, colour=colour) for name, colour in objects)
    return DatasetImage(number, Path(f"{number}.jpg"), (100, 100), shown, **more)


def dataset(*images):
    return Dataset(Path("instances.json"), NAMES, images, Problems())


FIRST, SECOND = image(1, ("cup", ""), ("key", "")), image(2, ("lamp", ""))


def test_nothing_that_the_image_shows_is_asked_for():
    pairs = choose_absent(dataset(FIRST, SECOND), 100)
    asked = {number: {p.category for p in pairs if p.image_id == number} for number in (1, 2)}
    assert asked == {1: {"lamp", "shoe"}, 2: {"cup", "key", "shoe"}}
    assert all(p.truth == () and p.kind == ABSENT for p in pairs) and len({p.key for p in pairs}) == 5


@pytest.mark.parametrize(("limit", "images"), [(2, {1: 1, 2: 1}), (4, {1: 2, 2: 2}), (5, {1: 2, 2: 3})])
def test_each_image_is_asked_about_before_one_is_asked_again(limit, images):
    assert Counter(p.image_id for p in choose_absent(dataset(FIRST, SECOND), limit)) == images


def test_the_questions_are_spread_over_all_images():
    many = dataset(*(image(k, ("cup", "")) for k in range(100)))
    pairs = choose_absent(many, 20, seed=3)
    numbers = [p.image_id for p in pairs]
    assert numbers == sorted(set(numbers)), "one question an image, in the order of the images"
    assert numbers[-1] > 60, "not the first images alone"
    assert numbers != [p.image_id for p in choose_absent(many, 20, seed=4)]


def test_second_questions_are_spread_too():
    many = dataset(*(image(k, ("cup", "")) for k in range(100)))
    asked = Counter(p.image_id for p in choose_absent(many, 120))
    twice = [number for number, count in asked.items() if count == 2]
    assert len(asked) == 100 and len(twice) == 20 and max(twice) > 60


def test_only_the_wanted_images_are_used():
    assert {p.image_id for p in choose_absent(dataset(FIRST, SECOND), 9, images={2})} == {2}


def test_the_seed_gives_the_questions():
    def asked(seed):
        return [p.key for p in choose_absent(dataset(FIRST, SECOND), 3, seed)]

    assert asked(4) == asked(4) and len({tuple(asked(seed)) for seed in range(9)}) > 1


def test_what_is_doubtful_is_not_asked_for_and_what_is_known_to_be_absent_is():
    doubtful = replace(FIRST, doubtful=frozenset({"lamp"}))
    assert {p.category for p in choose_absent(dataset(doubtful), 9)} == {"shoe"}
    checked = replace(FIRST, absent=frozenset({"shoe"}))
    assert {p.category for p in choose_absent(dataset(checked), 9)} == {"shoe"}


def test_some_questions_ask_for_another_colour():
    painted = [image(k, ("cup", "red"), ("key", "")) for k in range(40)]
    blue = image(40, ("cup", "blue"))
    asked = [p.category for p in choose_absent(dataset(*painted, blue), 80)]
    assert "blue cup" in asked and "red key" not in asked
    assert 0.02 < sum(" " in name for name in asked) / len(asked) < 0.5
    assert all(p.category != "red cup" for p in choose_absent(dataset(*painted), 80))


def test_images_that_show_everything_are_said():
    full = image(1, *((name, "") for name in NAMES))
    with pytest.raises(DataError, match="nothing absent can be asked for"):
        choose_absent(dataset(full), 5)
