import pytest
import torch
from tiny_parts import small_arch, small_model

from training.errors import DataError
from training.tiny.curriculum import Curriculum, InOrder, ahead
from training.tiny.image_pool import image_pools
from training.tiny.mistakes import Mistakes
from training.tiny.questions import QuestionMaker
from training.tiny.recipe import PhaseConfig
from training.world.scene import KEPT
from training.world.sprites import category_names


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    return image_pools(tmp_path_factory.mktemp("pictures"), KEPT, 14, (3, 5))


def curriculum(pools, **changes):
    arch, names = small_arch("qwen2_5_vl", image_size=360), category_names()
    model, processor = small_model(arch, names)
    makers = {s.size: QuestionMaker(arch, model, processor, names, s.size) for s in pools}
    settings = {"batch": 2, "questions": 3, "absent_share": 0.2, "end_to_end": True} | changes
    return Curriculum(arch, names, makers, pools, 0, PhaseConfig("D", 9, 1e-3, pictures=14, **settings))


def same(one, other):
    return (
        one.size == other.size
        and torch.equal(one.pixels, other.pixels)
        and torch.equal(one.turns.ids, other.turns.ids)
        and torch.equal(one.targets.digits, other.targets.digits)
    )


def test_a_batch_is_known_by_its_step(pools):
    made, again = curriculum(pools), curriculum(pools)
    assert same(made[5], again[5]) and not any(same(made[5], made[n]) for n in range(6, 10))


def test_workers_make_what_would_be_made_here(pools):
    source = curriculum(pools)
    for made, step in zip(ahead(source, range(3, 8), workers=2), range(3, 8), strict=True):
        assert same(made, source[step])


def test_the_parts_of_a_batch_are_about_the_same_pictures(pools):
    batch = curriculum(pools)[1]
    pool = pools[batch.pool]
    assert batch.size == pool.size and len(batch.index) == len(batch.pixels) == len(batch.turns.ids) == 2
    assert torch.equal(batch.pixels, torch.from_numpy(pool.read(batch.index.tolist()).pixels))
    named = [{category_names()[i] for i in label[label >= 0].tolist()} for label in batch.targets.label]
    assert named == [{o.name for o in pool.objects[i]} for i in batch.index.tolist()]


def test_what_a_phase_does_not_need_is_not_made(pools):
    assert curriculum(pools, end_to_end=False)[0].pixels is None
    assert curriculum(pools, questions=0)[0].turns is None


def test_mistakes_change_the_answers_and_not_the_questions(pools):
    true, wrong = (curriculum(pools, batch=9, absent_share=0.0, mistakes=m)[0] for m in (None, Mistakes(1, 1, 1)))
    assert torch.equal(true.index, wrong.index)
    first = true.turns.labels[:, : wrong.turns.labels.shape[1]] != wrong.turns.labels[:, : true.turns.labels.shape[1]]
    assert first.any(dim=1).float().mean() > 0.5


def test_a_small_shelf_gives_what_it_has(pools):
    for batch in (curriculum(pools, batch=9)[n] for n in range(6)):
        assert len(batch.index) == min(9, len(pools[batch.pool].files))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_is_named_from_a_worker_too(tmp_path, workers):
    pool = image_pools(tmp_path, KEPT, 1, (3, 5))[0]
    pool.files[0].write_bytes(b"")
    with pytest.raises(DataError, match=f"^image {pool.files[0]} is not a picture of a known format"):
        list(ahead(InOrder(pool, 1), [0], workers))


def test_in_order_nothing_is_left_out(pools):
    pool = pools[0]
    parts = list(ahead(InOrder(pool, 3), range(len(InOrder(pool, 3))), workers=0))
    assert torch.equal(torch.cat(parts), torch.from_numpy(pool.read(range(len(pool.files))).pixels))
