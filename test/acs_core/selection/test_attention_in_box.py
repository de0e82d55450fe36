import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_core.artifacts.identity import ModelIdentity
from acs_core.attention import AttentionRecord
from acs_core.errors import ArtifactError, NonFiniteError
from acs_core.geometry import Box
from acs_core.selection.attention_in_box import AttentionInBox, BoxLayers, attention_in_boxes, load_box_layers
from acs_core.types import Candidate

SIZE = (200, 100)  # pixels; maps are (5, 10), so a cell is 20 x 20 pixels
FILE = BoxLayers(ModelIdentity("some/model", "internvl", 3, 2), (1,), (5, 10), (0.2, 0.5, 0.3), "by hand")
LEFT, RIGHT, WIDE = (20, 40, 40, 60), (140, 40, 160, 60), (0, 0, 200, 100)


def candidates(*corners):
    return [Candidate(Box(*map(float, c)), "key", i, 0, (1, 3, 5, 7)) for i, c in enumerate(corners)]


def attention(*cells, layers=3):
    """Maps whose layer 1 has all its mass in one cell (row, column) for each candidate; the others are even."""
    maps = np.full((len(cells), 4, layers, 2, 5, 10), 1 / 50, np.float32)
    for i, (row, column) in enumerate(cells):
        maps[i, :, 1] = 0.0
        maps[i, :, 1, :, row, column] = 0.25  # raw weights: the rest is on the text
    return AttentionRecord(np.zeros((len(cells), 4, layers, 2), np.float32), maps, (5, 10))


def test_the_candidate_that_looks_at_its_own_box_is_best_and_a_large_box_is_no_better_for_its_size():
    selector, made = AttentionInBox(FILE), candidates(LEFT, RIGHT, WIDE)
    record = attention((2, 1), (2, 1), (2, 1))
    quality = selector.qualities(made, record, SIZE)
    assert quality[0] == pytest.approx(1.0) and quality[1] == 0.0
    assert quality[2] == 0.0, "an even map has as much in it"
    assert selector.confidences(made, record, (9, 9), quality) is quality
    assert selector.needs.maps and selector.needs.map_size == (5, 10)


def test_a_box_of_a_second_look_is_compared_in_its_window():
    (made,) = candidates(RIGHT)
    looked = replace(made, in_window=Box(*map(float, LEFT)))
    assert AttentionInBox(FILE).qualities([looked], attention((2, 1)), SIZE) == pytest.approx([1.0])


@given(
    st.lists(st.tuples(st.integers(0, 150), st.integers(0, 60), st.integers(1, 50), st.integers(1, 40)), max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_qualities_are_shares(boxes, seed):
    made = candidates(*((x, y, x + w, y + h) for x, y, w, h in boxes))
    maps = np.random.default_rng(seed).random((len(made), 4, 2, 2, 5, 10)).astype(np.float32) ** 9
    found = attention_in_boxes(made, maps, SIZE)
    assert found.shape == (len(made), 2) and ((found >= 0) & (found <= 1)).all()
    np.testing.assert_allclose(attention_in_boxes(made, np.ones_like(maps), SIZE), 0.0, atol=1e-6)


def test_attention_that_is_no_number_or_lacks_a_layer_is_refused():
    record, made = attention((2, 1)), candidates(LEFT)
    broken = replace(record, maps=record.maps * np.float32(np.nan))
    with pytest.raises(NonFiniteError, match="NaN or infinite attention"):
        AttentionInBox(FILE).qualities(made, broken, SIZE)
    for lacking in (replace(record, maps=None), replace(record, maps=record.maps[:, :, :1])):
        with pytest.raises(ArtifactError, match="of all layers that its file names"):
            AttentionInBox(FILE).qualities(made, lacking, SIZE)
    assert AttentionInBox(FILE).qualities([], record, SIZE).shape == (0,)


def test_the_file_comes_back(tmp_path):
    FILE.save(tmp_path / "box-layers.json")
    assert load_box_layers(tmp_path / "box-layers.json") == FILE


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layers": []}, '"layers" must list layers'),
        ({"layers": [1, 1]}, '"layers" must list layers, each once'),
        ({"layers": [3]}, r"0 to 2, got \(3,\)"),
        ({"layers": [0.5]}, "whole numbers"),
        ({"layers": "all"}, '"layers" must be a list'),
        ({"layers": [True]}, '"layers" must hold numbers'),
        ({"map_size": [0, 4]}, '"map_size" must be two sides'),
        ({"map_size": [4]}, '"map_size" must be two sides'),
        ({"chosen_iou": [0.5]}, "empty or hold 3 numbers"),
        ({"chosen_iou": [0.5, 2, 0]}, "empty or hold 3 numbers"),
        ({"made_by": 3}, '"made_by" must be a string'),
        ({"schema_version": 9}, "schema"),
        ({"model": ""}, '"model" must be a name'),
    ],
)
def test_wrong_fields_are_named(tmp_path, change, says):
    FILE.save(tmp_path / "good.json")
    content = json.loads((tmp_path / "good.json").read_text()) | change
    (tmp_path / "bad.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=rf"^box layers .*bad\.json: .*{says}"):
        load_box_layers(tmp_path / "bad.json")
