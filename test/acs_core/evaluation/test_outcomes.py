import io
from contextlib import redirect_stdout

import numpy as np
import pytest
from eval_parts import SQUARE, near, question
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from acs_core.evaluation.outcomes import check_answer, matched, outcomes_of
from acs_core.evaluation.records import Group, Prediction, Run
from acs_core.geometry import Box

FAR = Box(300, 300, 340, 340)


def group_of(answers, questions=None, objects="single"):
    questions = questions or tuple(question(i) for i in range(len(answers)))
    return Group("g", objects, questions, (Run("m", None, 1, tuple(answers)),))


@pytest.mark.parametrize(
    ("overlap", "right"),
    [
        ([[0.9]], [True]),
        ([[0.49]], [False]),
        ([[0.5]], [True]),
        ([[0.9], [0.8]], [True, False]),  # a second box about one object
        ([[0.6, 0.9], [0.9, 0.0]], [True, True]),
        ([[0.9, 0.6], [0.8, 0.0]], [True, False]),  # the better box comes first and takes what fits it best
        ([[0.9, 0.0], [0.0, 0.2], [0.0, 0.7]], [True, False, True]),
        (np.zeros((2, 0)), [False, False]),
        (np.zeros((0, 2)), []),
    ],
)
def test_boxes_are_matched_one_to_one(overlap, right):
    assert matched(np.array(overlap, float)).tolist() == right


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 5))
def test_no_true_box_counts_twice(seed, boxes, true):
    overlap = np.random.default_rng(seed).random((boxes, true))
    right = matched(overlap)
    assert right.sum() <= min(boxes, true)
    assert not right[overlap.max(axis=1) < 0.5].any()
    assert right[0] == (overlap[0].max() >= 0.5)


@pytest.mark.parametrize("seed", range(5))
def test_the_matching_is_that_of_pycocotools(seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 60, (6, 2))
    truth = tuple(Box(x, y, x + 40, y + 40) for x, y in corners)
    answered = tuple(
        Box(x, y, x + 40, y + 40) for x, y in np.concatenate([corners, corners]) + rng.normal(0, 8, (12, 2))
    )
    scores = tuple(np.sort(rng.random(12))[::-1].tolist())
    outcomes = outcomes_of(group_of([Prediction(answered, scores)], (question(0, truth=truth),), "several"))

    def xywh(box):
        return [box.x1, box.y1, box.width, box.height]

    reference = COCO()
    annotations = [
        {"id": i + 1, "image_id": 1, "category_id": 1, "bbox": xywh(t), "area": t.area, "iscrowd": 0}
        for i, t in enumerate(truth)
    ]
    found = [
        {"image_id": 1, "category_id": 1, "bbox": xywh(b), "score": s} for b, s in zip(answered, scores, strict=True)
    ]
    with redirect_stdout(io.StringIO()):
        reference.dataset = {"images": [{"id": 1}], "annotations": annotations, "categories": [{"id": 1}]}
        reference.createIndex()
        judged = COCOeval(reference, reference.loadRes(found), "bbox")
        judged.evaluate()
    theirs = judged.evalImgs[0]["dtMatches"][0] > 0  # at IoU 0.5, over all areas
    assert outcomes.published[0].hit.tolist() == theirs.tolist()
    assert outcomes.hits[0, 0] == theirs.sum() and outcomes.told[0, 0] == 12


def test_only_the_first_box_counts_for_a_single_object():
    outcomes = outcomes_of(group_of([Prediction((FAR, SQUARE), (0.9, 0.8)), Prediction((near(SQUARE, 0.7),))]))
    assert outcomes.iou[0].tolist() == pytest.approx([0, 0.7])
    assert outcomes.told[0].tolist() == [1, 1] and outcomes.hits[0].tolist() == [0, 1]
    assert outcomes.score[0, 0] == 0.9 and np.isnan(outcomes.score[0, 1])


def test_no_answer_and_nothing_to_find_are_iou_0():
    questions = question(0), question(1, truth=()), question(2, truth=())
    outcomes = outcomes_of(group_of([Prediction(), Prediction((SQUARE,)), Prediction()], questions))
    assert outcomes.iou.tolist() == [[0, 0, 0]] and outcomes.told.tolist() == [[0, 1, 0]]
    assert outcomes.shown.tolist() == [True, False, False]
    assert outcomes.published[0].hit.tolist() == [False]


def test_the_best_of_several_true_boxes_counts():
    outcomes = outcomes_of(group_of([Prediction((near(FAR, 0.8),))], (question(0, truth=(SQUARE, FAR)),)))
    assert outcomes.iou[0, 0] == pytest.approx(0.8) and outcomes.area_share[0] == pytest.approx(1600 / (640 * 480))


@pytest.mark.parametrize("objects", ["single", "several"])
def test_the_order_of_questions_does_not_matter(objects):
    answers = Prediction((SQUARE,), (0.9,)), Prediction(), Prediction((near(SQUARE, 0.4),)), Prediction((FAR, SQUARE))
    questions = tuple(question(i, image=f"{i // 2}.png") for i in range(4))
    there = outcomes_of(group_of(answers, questions, objects))
    back = outcomes_of(group_of(answers[::-1], questions[::-1], objects))
    for name in ("iou", "told", "hits"):
        assert np.array_equal(getattr(there, name)[:, ::-1], getattr(back, name))
    assert there.image.tolist() == back.image.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [(Prediction((SQUARE,), (0.5, 0.5)), "2 scores for 1 boxes"), (Prediction((SQUARE,), (1.5,)), r"\[0, 1\]")],
)
def test_answers_that_cannot_be(answer, problem):
    with pytest.raises(ValueError, match=f"here: .*{problem}"):
        check_answer(answer, "here")
