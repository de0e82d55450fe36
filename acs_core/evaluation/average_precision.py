"""COCO's average precision of the published boxes, phrase-conditioned, and the files for pycocotools.

Phrase-conditioned: an image is judged only for the categories that were asked about it. The AP of a detector, which is
judged for every category on every image, is lower: there, each absent category can only add false positives.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from acs_core.evaluation.records import Group, Prediction, Question, Run

AREAS = ("all", "small", "medium", "large")  # COCO's: below 32 x 32 px, from 96 x 96 px on
MOST_BOXES = 100  # of an image and category, COCO's limit
LIBRARY = "pycocotools"
FOLDER = "coco"
FILES = (f"{FOLDER}/*.json",)


@dataclass(frozen=True)
class AveragePrecision:
    """Average precisions of a run, each in [0, 1]; NaN where no true box has such a size.

    Attributes:
        ap: mean over the IoU thresholds 0.5, 0.55, ..., 0.95 and over the categories.
        ap50, ap75: at one threshold.
        small, medium, large: as ``ap``, of true boxes below 32 x 32 pixels, between, and from 96 x 96 on.
    """

    ap: float
    ap50: float
    ap75: float
    small: float
    medium: float
    large: float


def is_installed() -> bool:
    """Whether pycocotools is installed."""
    return find_spec(LIBRARY) is not None


def ranks_of(answer: Prediction) -> tuple[float, ...]:
    """Return what the boxes of ``answer`` are ranked by across images: their scores, else the selector's confidences;
    empty without either."""
    return answer.scores or answer.confidences


def is_scored(run: Run) -> bool:
    """Whether every box of ``run`` has a score or a confidence, and there is a box."""
    answered = [answer for answer in run.answers if answer.boxes]
    return bool(answered) and all(ranks_of(answer) for answer in answered)


def ground_truth(group: Group) -> dict[str, Any]:
    """Return the questions of ``group`` as a COCO data set: the asked images and categories with the true boxes.

    Image ids are those of the questions' keys ("139:key"), if these have ids; else they count from 1. Categories count
    from 1 in alphabetic order. Areas are those of the boxes, since segmentations are not kept.
    """
    images, categories = _image_ids(group.questions), _category_ids(group.questions)
    asked = {images[q.image]: q for q in group.questions}
    boxes = [(q, box) for q in group.questions for box in q.truth]
    return {
        "images": [
            {"id": i, "file_name": q.image, "width": q.image_size[0], "height": q.image_size[1]}
            for i, q in asked.items()
        ],
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
        "annotations": [
            {
                "id": number,
                "image_id": images[q.image],
                "category_id": categories[q.category],
                "bbox": _xywh(box.as_tuple()),
                "area": round(box.area, 4),
                "iscrowd": 0,
            }
            for number, (q, box) in enumerate(boxes, 1)
        ],
    }


def results(group: Group, run: Run) -> list[dict[str, Any]]:
    """Return the boxes of ``run`` in COCO's results format, for ``COCO.loadRes``; ids are those of
    :func:`ground_truth`. Of single objects only the first box counts."""
    images, categories = _image_ids(group.questions), _category_ids(group.questions)
    most = 1 if group.objects == "single" else None
    return [
        {
            "image_id": images[q.image],
            "category_id": categories[q.category],
            "bbox": _xywh(box.as_tuple()),
            "score": rank,
        }
        for q, answer in zip(group.questions, run.answers, strict=True)
        for box, rank in list(zip(answer.boxes, ranks_of(answer), strict=True))[:most]
    ]


def average_precision(group: Group, run: Run) -> AveragePrecision | None:
    """Return the average precisions of ``run`` by pycocotools; None if the run has no scores.

    Each category is evaluated on the images that were asked about it, and the precisions are averaged over the
    categories. Other images hold neither true nor predicted boxes of it, so the result is that of a ``COCOeval`` over
    all images, in a fraction of the time.

    Raises:
        ImportError: pycocotools is not installed.
    """
    if not is_scored(run):
        return None
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        truth = COCO()
        truth.dataset = ground_truth(group)
        truth.createIndex()
        found = truth.loadRes(results(group, run))
        asked: dict[int, set[int]] = {}
        images, categories = _image_ids(group.questions), _category_ids(group.questions)
        for q in group.questions:
            asked.setdefault(categories[q.category], set()).add(images[q.image])
        tables = []
        for category, ids in sorted(asked.items()):
            judge = COCOeval(truth, found, "bbox")
            judge.params.catIds, judge.params.imgIds = [category], sorted(ids)
            judge.params.maxDets = [1, 10, MOST_BOXES]
            judge.evaluate()
            judge.accumulate()
            tables.append(judge.eval["precision"][:, :, 0, :, -1])  # (T, R, areas)
    precision = np.stack(tables)  # (K, T, R, areas), -1 for categories without true boxes of the size
    thresholds = COCOeval(iouType="bbox").params.iouThrs

    def mean(values: np.ndarray) -> float:
        known = values[values > -1]
        return float(known.mean()) if len(known) else float("nan")

    at = {share: int(np.argmin(np.abs(thresholds - share))) for share in (0.5, 0.75)}
    by_size = [mean(precision[..., a]) for a in range(len(AREAS))]
    return AveragePrecision(by_size[0], *(mean(precision[:, t, :, 0]) for t in at.values()), *by_size[1:])


def write_coco_files(title: str, groups: Sequence[tuple[Group, Sequence[int]]], folder: Path, prefix: str = "") -> int:
    """Write the files of the average precisions into ``folder``/coco: for each group GROUP-instances.json, and for each
    run with a score GROUP-METHOD-tau-T-results.json.

    ``COCOeval(COCO(instances), COCO(instances).loadRes(results), "bbox")`` gives the numbers of the table.

    Args:
        title: title of the evaluation.
        groups: groups, each with the indices of the runs to write; those without a score are left out.
        folder: folder of the tables.
        prefix: beginning of the file names.

    Returns:
        The number of results files.

    Raises:
        OSError: a file cannot be written.
    """
    count = 0
    for group, wanted in groups:
        runs = [group.runs[r] for r in wanted if is_scored(group.runs[r])]
        if not runs:
            continue
        info = {"description": f"{title}: {group.name}, the asked images and categories"}
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        name = prefix + _slug(group.name)
        _write(folder / FOLDER / f"{name}-instances.json", {"info": info, **ground_truth(group)})
        for run in runs:
            tau = "" if run.temperature is None else f"-tau-{run.temperature:g}"
            _write(folder / FOLDER / f"{name}-{_slug(run.method)}{tau}-results.json", results(group, run))
            count += 1
    return count


def _write(file: Path, data: Any) -> None:
    file.write_text(json.dumps(data, ensure_ascii=False) + "\n", encoding="utf-8")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "group"


def _xywh(corners: tuple[float, float, float, float]) -> list[float]:
    x1, y1, x2, y2 = corners
    return [round(float(v), 4) for v in (x1, y1, x2 - x1, y2 - y1)]


def _image_ids(questions: Sequence[Question]) -> dict[str, int]:
    """Return the id of each image by its name."""
    stated = {(q.image, q.key.partition(":")[0]) for q in questions}
    images = list(dict.fromkeys(q.image for q in questions))
    ids = {image: i for image, i in stated if re.fullmatch(r"[0-9]{1,15}", i)}
    if len(stated) == len(ids) == len(set(ids.values())) == len(images):
        return {image: int(ids[image]) for image in images}
    return {image: number for number, image in enumerate(images, 1)}


def _category_ids(questions: Sequence[Question]) -> dict[str, int]:
    """Return the id of each category by its name."""
    return {name: number for number, name in enumerate(sorted({q.category for q in questions}), 1)}
