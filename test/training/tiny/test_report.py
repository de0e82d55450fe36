import json

import numpy as np
import pytest
from tiny_parts import small_arch, small_model

from acs_core.geometry import Box
from acs_core.lvlm import load_lvlm
from acs_core.selection.registry import make_selector
from training.data.pairs import Pair, load_absent, load_pairs
from training.tiny.arch import save
from training.tiny.report import count_found, tiny_report, write_report
from training.world.synth import write_coco
from training.world.world import World


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A model that has learnt nothing, asked about four objects that are there and three that are not."""
    folder = tmp_path_factory.mktemp("report")
    arch = small_arch("internvl")
    save(arch, *small_model(arch, World("test").names), folder / "model")
    lvlm = load_lvlm(folder / "model", device="cpu")
    file = write_coco(folder / "world", "test", 3)
    pairs, absent = load_pairs(file)[:4], load_absent(file, limit=3)
    several = [Pair(p.image_id, p.file, p.category, p.truth * 2) for p in pairs[:2]]
    selectors = [make_selector(name, lvlm) for name in ("greedy", "first-valid")]
    stages = []

    def run():
        work = folder / "work"
        return tiny_report(
            lvlm, pairs, absent, several, selectors, work, progress=lambda s, d, t: stages.append((s, t))
        )

    return run, run(), stages


def test_gibberish_is_counted_as_such(reported):
    report = reported[1]
    assert [r.method for r in report.rows] == ["greedy", "first-valid", "best of N"]
    assert report.unparseable > 10 and report.refused == 0 and report.answer_ms > 0
    assert all(r.accuracy == 0 for r in report.rows) and report.recall == 0


def test_every_kind_of_question_is_asked_once_and_kept(reported):
    run, report, stages = reported
    assert {("greedy", 4), ("absent", 3), ("several", 2), ("samples", 4)} == set(stages)
    again = run()
    assert again.rows == report.rows and again.unparseable == report.unparseable


@pytest.mark.parametrize(
    ("boxes", "found"),
    [
        ([], 0),
        ([(0, 0, 10, 10)], 1),
        ([(0, 0, 10, 10), (0, 0, 10, 10)], 1),  # an object has one box
        ([(0, 0, 10, 10), (30, 30, 40, 40), (20, 0, 30, 10)], 2),
        ([(0, 0, 10, 4), (20, 0, 30, 6)], 1),
    ],
)
def test_an_object_is_found_once(boxes, found):
    truth = (Box(0, 0, 10, 10), Box(20, 0, 30, 10))
    assert count_found(np.array(boxes, float).reshape(-1, 4), truth) == found


def test_a_report_is_written_as_json(reported, tmp_path):
    write_report(reported[1], tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text())
    assert (found["cases"], found["absent"]) == (4, 3) and found["rows"][0]["method"] == "greedy"
    assert found["regime"] == {**found["regime"], "first_valid": 0.0, "split": 0.0, "object_gain": 0.0}
