import pytest
import torch
from tiny_parts import small_arch, small_model

from training.errors import DataError
from training.scene import KEPT
from training.sprites import category_names
from training.tiny.curriculum import Curriculum, InOrder, ahead
from training.tiny.questions import QuestionMaker
from training.tiny.stock import stock


@pytest.fixture(scope="module")
def shelves(tmp_path_factory):
    return stock(tmp_path_factory.mktemp("pictures"), KEPT, 14, (3, 5))


def curriculum(shelves, **changes):
    arch, names = small_arch("qwen2_5_vl", image_size=360), category_names()
    model, processor = small_model(arch, names)
    makers = {s.size: QuestionMaker(arch, model, processor, names, s.size) for s in shelves}
    settings = {"seed": 0, "count": 2, "questions": 3, "absent_share": 0.2, "pixels": True} | changes
    return Curriculum(arch, names, makers, shelves, **settings)


def same(one, other):
    return (
        one.size == other.size
        and torch.equal(one.pixels, other.pixels)
        and torch.equal(one.turns.ids, other.turns.ids)
        and torch.equal(one.targets.digits, other.targets.digits)
    )


def test_a_batch_is_known_by_its_step(shelves):
    made, again = curriculum(shelves), curriculum(shelves)
    assert same(made[5], again[5]) and not any(same(made[5], made[n]) for n in range(6, 10))


def test_workers_make_what_would_be_made_here(shelves):
    source = curriculum(shelves)
    for made, step in zip(ahead(source, range(3, 8), workers=2), range(3, 8), strict=True):
        assert same(made, source[step])


def test_the_parts_of_a_batch_are_about_the_same_pictures(shelves):
    batch = curriculum(shelves)[1]
    shelf = shelves[batch.shelf]
    assert batch.size == shelf.size and len(batch.index) == len(batch.pixels) == len(batch.turns.ids) == 2
    assert torch.equal(batch.pixels, torch.from_numpy(shelf.read(batch.index.tolist()).pixels))
    named = [{category_names()[i] for i in label[label >= 0].tolist()} for label in batch.targets.label]
    assert named == [{o.name for o in shelf.objects[i]} for i in batch.index.tolist()]


def test_what_a_phase_does_not_need_is_not_made(shelves):
    assert curriculum(shelves, pixels=False)[0].pixels is None
    assert curriculum(shelves, questions=0)[0].turns is None


def test_a_small_shelf_gives_what_it_has(shelves):
    for batch in (curriculum(shelves, count=9)[n] for n in range(6)):
        assert len(batch.index) == min(9, len(shelves[batch.shelf].files))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_is_named_from_a_worker_too(tmp_path, workers):
    shelf = stock(tmp_path, KEPT, 1, (3, 5))[0]
    shelf.files[0].write_bytes(b"")
    with pytest.raises(DataError, match=f"^{shelf.files[0]} is missing or no readable picture"):
        list(ahead(InOrder(shelf, 1), [0], workers))


def test_in_order_nothing_is_left_out(shelves):
    shelf = shelves[0]
    parts = list(ahead(InOrder(shelf, 3), range(len(InOrder(shelf, 3))), workers=0))
    assert torch.equal(torch.cat(parts), torch.from_numpy(shelf.read(range(len(shelf.files))).pixels))
