import torch

from acs_core.geometry import Box
from training.tiny.dense import DenseHead, dense_targets
from training.world import SceneObject

NAMES = ["cup", "key"]
SCENES = [(SceneObject("key", Box(30, 60, 40, 70), 50),), ()]


def test_targets_sit_in_the_token_of_the_centre():
    targets = dense_targets(SCENES, NAMES, grid=8, image_size=224)
    assert targets.label[0, 2, 1] == 1 and (targets.label >= 0).sum() == 1
    torch.testing.assert_close(targets.box[0, 2, 1], torch.tensor([2, 4, 12, 14]) / 28)
    # 30, 60, 40, 70 pixels of 224 are answered as 134, 268, 179, 312
    assert targets.digits[0, 2, 1].tolist() == [[1, 3], [2, 6], [1, 7], [3, 1]]


def test_the_head_can_learn_its_targets():
    torch.manual_seed(0)
    targets = dense_targets(SCENES, NAMES, grid=8, image_size=224)
    head, tokens, words = DenseHead(32, 8), torch.randn(2, 8, 8, 32), torch.randn(2, 32)
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
