import cv2
import numpy as np
import pytest

from training.errors import DataError
from training.world.backgrounds import BANKS, Backgrounds
from training.world.photographs import fingerprint, photographs_of, read_source
from training.world.scene import WorldConfig
from training.world.textures import SIDE
from training.world.world import World


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Forty pictures, each of one colour that no texture has all over."""
    folder = tmp_path_factory.mktemp("photographs")
    for i in range(40):
        cv2.imwrite(str(folder / f"{i:02d}.png"), np.full((60, 90, 3), (255, 0, 255), np.uint8))
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_splits_share_no_photograph_and_leave_none_out(photographs):
    of = {split: set(photographs_of(photographs, split)) for split in BANKS}
    assert len(of["train"]) > len(of["test"]) > 0 and len(of["val"]) > 0
    assert not of["train"] & of["val"] and not of["train"] & of["test"] and not of["val"] & of["test"]
    assert len(of["train"] | of["val"] | of["test"]) == 40 and of["shifted"] == of["test"]


def test_a_folder_with_too_few_is_named(tmp_path):
    with pytest.raises(DataError, match=r"holds 0 photographs .* none for the split val"):
        photographs_of(tmp_path, "val")


@pytest.mark.parametrize("size", [(90, 60), (60, 90), (2000, 700), (700, 700)], ids=str)
def test_a_source_is_the_middle_of_a_photograph(tmp_path, size):
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    picture[size[1] // 2 - 2 : size[1] // 2 + 2, size[0] // 2 - 2 : size[0] // 2 + 2] = 255
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    source = read_source(tmp_path / "a.png")
    assert source.shape == (SIDE, SIDE, 3)
    lit = np.argwhere(source[..., 0] > 100).mean(axis=0)
    np.testing.assert_allclose(lit, SIDE / 2, atol=SIDE / min(size) + 1)


def test_most_backgrounds_are_photographs_and_textures_remain(photographs):
    plain, mixed = Backgrounds("test"), Backgrounds("test", photographs)
    drawn = [mixed._cut(np.random.default_rng(k), 40, 40) for k in range(60)]
    assert 0.5 < np.mean([_is_pink(part) for part in drawn]) < 0.9
    textures = [plain._cut(np.random.default_rng(k), 40, 40) for k in range(60)]
    assert np.mean([_is_pink(part) for part in textures]) < 0.1


def _is_pink(part):
    red, green, _ = np.moveaxis(part.astype(int), -1, 0)
    return (red - green).min() > 60


def test_a_scene_stands_on_a_photograph(photographs):
    world = World("test", WorldConfig(backgrounds=photographs, clutter=0, noise=(0, 0)))
    red, green, _ = np.moveaxis(world.scene([1, 2]).image.astype(int), -1, 0)
    assert ((red - green) > 60).mean() > 0.5


def test_the_fingerprint_follows_names_and_contents(photographs, tmp_path):
    assert fingerprint(photographs) == fingerprint(photographs) != fingerprint(tmp_path)
    (tmp_path / "a.png").write_bytes(b"1")
    one = fingerprint(tmp_path)
    (tmp_path / "a.png").write_bytes(b"2")
    assert fingerprint(tmp_path) != one
