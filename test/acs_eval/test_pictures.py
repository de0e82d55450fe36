import base64
import io

import numpy as np
import pytest
from PIL import Image

from acs_eval.pictures import reader_from, thumbnail


@pytest.mark.parametrize(("size", "small"), [((1000, 500), (480, 240)), ((300, 600), (240, 480)), ((64, 48), (64, 48))])
def test_a_picture_becomes_small_and_text(size, small):
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    picture[..., 0] = 200
    made = thumbnail(lambda image: picture, "a")
    kind, _, data = made.uri.partition(",")
    assert kind == "data:image/webp;base64" and made.problem == ""
    back = Image.open(io.BytesIO(base64.b64decode(data)))
    assert back.size == small and np.asarray(back)[..., 0].mean() > 180


def test_files_are_looked_for_in_each_folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "b" / "p.png")
    read = reader_from(tmp_path / "a", tmp_path / "b")
    assert read("p.png").shape == (30, 40, 3)
    assert reader_from()(str(tmp_path / "b" / "p.png")).shape == (30, 40, 3)
    assert read(str(tmp_path / "b" / "p.png")).shape == (30, 40, 3)


def test_what_cannot_be_read_is_told(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    read = reader_from(tmp_path)
    assert "does not exist" in thumbnail(read, "gone.png").problem
    assert "not a picture" in thumbnail(read, "text.png").problem
    assert thumbnail(read, "\0").problem and thumbnail(read, "").problem
