"""COCO's average precision of an evaluation: the numbers are those of pycocotools on the files that are written."""

import contextlib
import io
import json
from dataclasses import astuple, replace

import numpy as np
import pytest
from eval_parts import SQUARE, evaluation, near, question
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from acs_core.evaluation import average_precision as ap
from acs_core.evaluation.metrics import measure
from acs_core.evaluation.more_tables import average_precision_table
from acs_core.evaluation.records import Group, Prediction, Run
from acs_core.evaluation.tables import assess
from acs_core.geometry import Box


def test_the_written_files_give_the_numbers_of_the_table(tmp_path):
    made = evaluation(40)
    assessed = assess(made, draws=100)
    count = ap.write_coco_files(made.title, [(m.group, m.main_runs) for m in assessed.measured], tmp_path)
    small = assessed.measured[0]
    table = average_precision_table(small)
    files = sorted((tmp_path / "coco").glob("small-*-results.json"))
    assert (
        len(table.rows) == len(files) == count
    )  # acs-free and acs-learned at two temperatures; the others state no score
    for row in table.rows:
        method, tau, kind, *values = (cell.value for cell in row.cells)
        assert kind == "probability"
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(tmp_path / "coco" / "small-instances.json"))
            found = truth.loadRes(str(tmp_path / "coco" / f"small-{method}-tau-{tau:g}-results.json"))
            judge = COCOeval(truth, found, "bbox")  # every category on every image, in one run
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
        wanted = [100 * v if v >= 0 else None for v in judge.stats[:6]]
        for value, same in zip(values, wanted, strict=True):
            assert (value is None and same is None) or value == pytest.approx(same, abs=1e-9)
    with (tmp_path / "coco" / "small-instances.json").open() as file:
        images = {i["id"] for i in json.load(file)["images"]}
    assert images == set(range(1, 21))  # two questions are about each image, so that the keys' numbers are not its ids


def test_image_ids_are_those_of_the_keys_where_an_image_has_one():
    group = Group("g", "single", (question(139), question(285, "cup")), ())
    data = ap.ground_truth(group)
    assert [i["id"] for i in data["images"]] == [139, 285]
    assert [(a["image_id"], a["category_id"], a["bbox"]) for a in data["annotations"]] == [
        (139, 2, [10, 10, 40, 40]),
        (285, 1, [10, 10, 40, 40]),
    ]


def test_boxes_are_ranked_across_questions_and_the_first_one_counts():
    questions = question(1), question(2)
    far = Box(200, 200, 220, 220)

    def scored(right, wrong):
        answers = (
            Prediction((SQUARE, far), confidences=(right, 0.1)),
            Prediction((far, SQUARE), confidences=(wrong, 0.1)),
        )
        return Group("g", "single", questions, (Run("m", 0.5, 10, answers),))

    found = [ap.average_precision(g, g.runs[0]) for g in (scored(0.9, 0.2), scored(0.2, 0.9))]
    # recall ends at 1/2, reached with precision 1 or 1/2; 51 of the 101 recall thresholds are at most 1/2
    assert [f.ap50 for f in found] == pytest.approx([51 / 101, 51 / 202])
    assert np.isnan(found[0].small) and np.isnan(found[0].large) and found[0].medium == found[0].ap50
    several = replace(scored(0.9, 0.2), objects="several")
    assert ap.average_precision(several, several.runs[0]).ap50 > found[0].ap50


@pytest.mark.parametrize(
    ("answers", "scored"),
    [
        ((Prediction((SQUARE,)), Prediction((SQUARE,))), False),
        ((Prediction((SQUARE,), (0.5,)), Prediction((SQUARE,))), False),
        ((Prediction((SQUARE,), (0.5,)), Prediction(reason="none")), True),
        ((Prediction(), Prediction()), False),
    ],
)
def test_only_runs_with_a_score_for_each_box_are_judged(answers, scored):
    group = Group("g", "single", (question(1), question(2)), (Run("m", 0.5, 10, answers),))
    assert (ap.average_precision(group, group.runs[0]) is not None) is scored
    assert (average_precision_table(measure(group, 100)) is not None) is scored


def test_without_pycocotools_the_table_says_so(monkeypatch):
    monkeypatch.setattr(ap, "LIBRARY", "pycocotools_that_is_not_installed")
    answers = (Prediction((near(SQUARE, 0.8),), (0.5,)),)
    table = average_precision_table(measure(Group("g", "single", (question(1),), (Run("m", 0.5, 1, answers),)), 100))
    assert "is not installed" in table.notes[0] and [c.value for c in table.rows[0].cells[3:]] == [None] * 6


def test_all_six_precisions_of_perfect_boxes_are_one():
    truth = (Box(0, 0, 20, 20), Box(100, 100, 150, 150), Box(200, 200, 400, 400))
    q = question(1, truth=truth)
    run = Run("m", None, 1, (Prediction(truth, (0.3, 0.2, 0.1)),))
    assert astuple(ap.average_precision(Group("g", "several", (q,), (run,)), run)) == pytest.approx((1.0,) * 6)
