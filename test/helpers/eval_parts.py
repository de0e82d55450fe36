"""A made-up evaluation that looks like a real one: better methods answer better, and say so."""

import numpy as np

from acs_core.evaluation.records import EntropyProfile, Evaluation, Group, Prediction, Question, RegressorAccuracy, Run
from acs_core.evaluation.tables import assess, tables_of
from acs_core.geometry import Box

WIDTH, HEIGHT = 640, 480
SQUARE = Box(10, 10, 50, 50)
CATEGORIES = ("key", "cup", "lemon", "book")
SAMPLED = {  # method: (chance of a good box, kind, learned)
    "Pass@1": (0.52, "baseline", False),
    "MajVote": (0.56, "baseline", False),
    "acs-free": (0.62, "ours", False),
    "acs-learned": (0.68, "ours", True),
    "best of N": (0.85, "bound", False),
}


def question(number, category="key", truth=(SQUARE,), image=None):
    image = image or f"images/{number:04d}.png"
    return Question(f"{number}:{category}", category, category, image, (WIDTH, HEIGHT), truth)


def near(box, iou):
    """A box whose IoU with ``box`` is ``iou``: as wide, cut or lowered in height."""
    shift = box.height * (1 - iou) / (1 + iou)
    return Box(box.x1, box.y1 + shift, box.x2, box.y2 + shift)


def evaluation(count=60, temperatures=(0.5, 1.0), samples=(3, 10), several=True, seed=0, title="tiny on made-up"):
    rng = np.random.default_rng(seed)
    questions = []
    for number in range(count):
        side = float(rng.uniform(16, 60))
        x, y = rng.uniform(0, WIDTH - side), rng.uniform(0, HEIGHT - side)
        truth = Box(x, y, x + side, y + side)
        category = CATEGORIES[int(rng.integers(len(CATEGORIES)))]
        questions.append(question(number, category, (truth,), f"images/{number // 2:04d}.png"))
    hard = rng.random(count)
    runs = [Run("Greedy", None, 1, _answers(rng, questions, hard, 0.57, False), "baseline")]
    for method, (chance, kind, learned) in SAMPLED.items():
        for temperature in temperatures:
            for n in samples if kind == "ours" else samples[-1:]:
                share = chance - 0.06 * (temperature - 0.5) - 0.1 / n
                answers = _answers(rng, questions, hard, share, kind == "ours")
                runs.append(Run(method, temperature, n, answers, kind, learned))
    groups = [Group("small", "single", tuple(questions), tuple(runs))]
    if several:
        groups.append(_several(rng, count // 3))
    regressions = tuple(
        RegressorAccuracy(t, 10 * count, 0.15 + 0.02 * t, 0.75 - 0.05 * t, "small") for t in temperatures
    )
    profiles = tuple(
        EntropyProfile(c, name, 200, tuple(5 - 0.2 * k + shift + 0.05 * j for k in range(8)))
        for j, c in enumerate(("x1", "y1", "x2", "y2"))
        for name, shift in (("IoU > 0.7", -0.4), ("0 < IoU ≤ 0.3", 0.1), ("IoU = 0", 0.3))
    )
    facts = {"model": "made-up", "data": f"{count} questions", "seed": str(seed)}
    return Evaluation(title, tuple(groups), facts, regressions, profiles, (4, 5, 6))


def tables_by_name(**more):
    return {t.name: t for t in tables_of(assess(evaluation(40, **more), draws=200))}


def column(table, title):
    place = [c.title for c in table.columns].index(title)
    return {tuple(cell.value for cell in row.cells[:2]): row.cells[place] for row in table.rows}


def _answers(rng, questions, hard, share, scored):
    answers = []
    for q, h in zip(questions, hard, strict=True):
        good = 0.7 * h + 0.3 * rng.random() < share
        iou = rng.uniform(0.55, 0.95) if good else rng.uniform(0, 0.45)
        latency = float(rng.lognormal(5, 0.3))
        if rng.random() < 0.04:
            answers.append(Prediction(latency_ms=latency, reason="no box in the answer"))
            continue
        score = float(np.clip(0.5 + (0.25 if good else -0.25) + rng.normal(0, 0.2), 0, 1))
        stated = ((score,), iou) if scored else ((), None)
        answers.append(Prediction((near(q.truth[0], iou),), *stated, latency))
    return tuple(answers)


def _several(rng, count):
    questions = []
    for number in range(count):
        corners = [(60.0 * k + rng.uniform(0, 20), rng.uniform(0, 300)) for k in range(2 + number % 4)]
        questions.append(question(number, "coin", tuple(Box(x, y, x + 30, y + 30) for x, y in corners)))
    runs = []
    for method, share, kind in (("Greedy", 0.5, "baseline"), ("acs-free", 0.6, "ours")):
        answers = []
        for q in questions:
            boxes = tuple(near(t, 0.8 if rng.random() < share else 0.2) for t in q.truth)
            answers.append(Prediction((*boxes, boxes[0])))
        runs.append(Run(method, None if method == "Greedy" else 0.5, 10, tuple(answers), kind))
    return Group("several", "several", tuple(questions), tuple(runs))
