from __future__ import annotations

import json

import numpy as np
import pytest

from acs_core.geometry import Box
from acs_ros.stress.track_check import main, make_clip


def test_a_clip_shows_its_object_where_it_says():
    image = np.full((100, 100, 3), 60, np.uint8)
    image[40:50, 60:70] = (250, 20, 20)
    clip = make_clip(image, Box(60, 40, 70, 50), 1.0, seed=0)
    for frame, box in zip(clip.frames[::10], clip.boxes[::10], strict=True):
        x, y = box.center
        assert frame[round(y), round(x), 0] > 150 and frame[round(y), round(x), 1] < 90


def test_the_tracker_beats_a_box_that_stays_on_the_shipped_bag(tmp_path, capsys):
    assert main(["--frames", "2", "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["clips"] == 2 and min(found["tracked_iou"]) > 0.5 > max(found["stayed_iou"])
    assert "per frame" in capsys.readouterr().out


def test_the_check_refuses_what_it_cannot_measure(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "track_check:" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["--latency", "9"])
    assert ended.value.code == 2
