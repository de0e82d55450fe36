"""What a small random model is asked about and made to answer."""

from dataclasses import replace

import numpy as np
import tiny_models

from acs_core import pipeline
from acs_core.artifacts.calibration import Calibration
from acs_core.artifacts.heads import Head, HeadFile
from acs_core.artifacts.identity import ModelIdentity
from acs_core.generation import schedule
from acs_core.generation.generate import generate
from acs_core.generation.schedule import sample_on_schedule
from acs_core.generation.token_sampler import TeacherForcing
from acs_core.selection.regressor import AttentionIoURegressor, save_regressor

IMAGE = np.random.default_rng(0).integers(0, 255, (84, 126, 3), dtype=np.uint8)


def answer(*boxes):
    return "[" + ", ".join(f'{{"bbox_2d": [{x1}, {y1}, {x2}, {y2}], "label": "key"}}' for x1, y1, x2, y2 in boxes) + "]"


ONE, NEAR, FAR = (100, 100, 300, 300), (110, 100, 300, 310), (700, 600, 900, 950)
ANSWERS = (answer(ONE), answer(FAR), answer(NEAR, FAR), "there is no key in the image")


def save_complete(folder):
    """A random model with everything a selector may want, as ``folder``."""
    tiny_models.save_internvl(folder)
    identity = ModelIdentity("random-internvl", "internvl", 3, 4)
    heads = tuple((Head(1, c, 0.1), Head(2, 0, 0.1)) for c in range(4))
    HeadFile(identity, "heads", heads).save(folder / "heads.json")
    save_regressor(folder / "regressor.safetensors", AttentionIoURegressor(3, 4), identity, (3, 3))
    for selector, feature in (("acs-free", "attention_concentration"), ("acs-learned", "predicted_iou")):
        curve = Calibration(identity, selector, feature, (0.0, 1.0), (0.25, 0.75), questions=40, absent=20)
        curve.save(folder / f"calibration-{selector}.json")
    return folder


def force(monkeypatch, texts):
    """Makes models answer ``texts``, token by token, instead of drawing."""

    def forced(lvlm, state, config, seeds, rows, *, token_statistics, **stops):
        ids = [lvlm.tokenizer(texts[i], add_special_tokens=False)["input_ids"] for i in rows]
        draw = TeacherForcing(ids * len(seeds), lvlm.eos_ids[0])
        limit = max(map(len, ids)) + 1
        written = generate(lvlm, state, draw, len(rows), limit, token_statistics=token_statistics, **stops)
        return tuple(replace(samples, seed=seed) for samples, seed in zip(written, seeds, strict=True))

    def as_many(lvlm, state, config, seeds, **options):
        return sample_on_schedule(lvlm, state, replace(config, num_samples=len(texts)), seeds, **options)

    monkeypatch.setattr(schedule, "draw_more", forced)
    monkeypatch.setattr(pipeline, "sample_on_schedule", as_many)
