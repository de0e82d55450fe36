import pytest
import torch
from tiny_parts import NAMES, SQUARE, WIDE, small_arch

from acs_core.geometry import Box
from training.tiny.dense_head import DenseHead, dense_targets
from training.tiny.questions import IGNORED
from training.world.world import SceneObject

SCENES = [(SceneObject("key", Box(30, 60, 48, 72), 50),), ()]


@pytest.mark.parametrize(
    ("name", "digits"),
    [
        # hundreds and tens of 250, 500, 400, 600 thousandths
        ("internvl", [[2, 5], [5, 0], [4, 0], [6, 0]]),
        # hundreds, tens and ones of 30, 60, 48, 72 pixels
        ("qwen2_5_vl", [[0, 3, 0], [0, 6, 0], [0, 4, 8], [0, 7, 2]]),
    ],
)
def test_targets_sit_in_the_token_of_the_centre(name, digits):
    targets = dense_targets(SCENES, NAMES, small_arch(name), SQUARE)
    assert targets.label[0, 2, 1] == NAMES.index("key") and (targets.label >= 0).sum() == 1
    torch.testing.assert_close(targets.box[0, 2, 1], torch.tensor([0, 0, 18, 12]) / 30)
    assert targets.digits[0, 2, 1].tolist() == digits


@pytest.mark.parametrize(("name", "place"), [("internvl", (1, 3)), ("qwen2_5_vl", (1, 4))])
def test_rows_are_rows_in_a_wide_picture(name, place):
    targets = dense_targets([(SceneObject("key", Box(120, 30, 138, 42), 50),)], NAMES, small_arch(name), WIDE)
    assert (targets.label[0] >= 0).nonzero().tolist() == [[*place]]


def test_of_two_objects_in_one_token_the_smaller_is_asked_for():
    small, large = SceneObject("key", Box(40, 70, 46, 76), 30), SceneObject("cup", Box(10, 40, 80, 110), 4000)
    for scene in ((small, large), (large, small)):
        targets = dense_targets([scene], NAMES, small_arch("internvl"), SQUARE)
        assert targets.label[0, 2, 1] == NAMES.index("key")


def test_nothing_is_asked_about_a_border_of_four_digits():
    at_the_edge = SceneObject("key", Box(90, 60, 120, 72), 50)
    targets = dense_targets([(at_the_edge,)], NAMES, small_arch("internvl"), SQUARE)
    assert targets.digits[0, 2, 3].tolist() == [[7, 5], [5, 0], [IGNORED, IGNORED], [6, 0]]


def test_the_head_can_learn_its_targets():
    torch.manual_seed(0)
    targets = dense_targets(SCENES, NAMES, small_arch("internvl"), SQUARE)
    head, tokens, words = DenseHead(32, 2), torch.randn(2, 4, 4, 32), torch.randn(len(NAMES), 32)
    optimiser = torch.optim.Adam(head.parameters(), lr=3e-3)
    first = last = None
    for _ in range(60):
        losses = head(tokens, words, targets)
        last = sum(losses[k] for k in ("class", "box", "digits", "place"))
        first = first if first is not None else last.item()
        optimiser.zero_grad()
        last.backward()
        optimiser.step()
    assert last.item() < 0.6 * first
