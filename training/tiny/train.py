"""Trains an embedded LVLM from nothing, in three phases that checkpoint and resume.

A: the vision half against :class:`~training.tiny.dense.DenseHead`, on crowded pictures. Where positions enter through
   the language model (Qwen2.5-VL), its first layers learn with it.
B: the language half on the image tokens of A, kept in memory, several questions a picture.
C: both, with a small learning rate.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from PIL import Image

from training.errors import DataError
from training.scene import KEPT, TRAINING, SceneObject, WorldConfig
from training.tiny import evaluate
from training.tiny.arch import Arch, save
from training.tiny.data import Pictures, render, shape_shares
from training.tiny.lessons import Lessons, Scenes
from training.world import World


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast; a step is one optimiser update on ``batch`` pictures. Each triple is by phase."""

    steps: tuple[int, int, int] = (5000, 2000, 500)
    rates: tuple[float, float, float] = (1.5e-3, 1.5e-3, 2e-4)
    batch: tuple[int, int, int] = (12, 16, 12)
    # Fewest and most objects in a training picture. A, whose price is by the picture, learns from crowds.
    objects: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] = ((14, 30), (3, 12), (3, 12))
    kept_pictures: int = 8000  # whose image tokens phase B learns from
    questions: int = 8
    absent_share: float = 0.2
    dense_weight: float = 0.3  # of the teacher, beside the language loss
    guide_weight: float = 0.5  # of the guide, in its steps
    guided_steps: int = 1000  # from the beginning of phase B on
    validation_pictures: int = 120
    validation_cases: int = 256
    checkpoint_every: int = 100
    evaluate_every: int = 400
    seed: int = 0

    def shortened(self, scale: float) -> TrainConfig:
        """The same run with ``scale`` in (0, 1] of its steps and kept pictures, for a trial."""
        first, second, third = (max(1, round(s * scale)) for s in self.steps)
        return replace(self, steps=(first, second, third), kept_pictures=max(64, round(self.kept_pictures * scale)))


@dataclass(frozen=True)
class Kept:
    """Image tokens (n, R * C, width) of pictures of one ``size`` and what the pictures show."""

    size: tuple[int, int]
    tokens: torch.Tensor
    scenes: Scenes


class TinyTrainer:
    """One training run in ``folder``: its checkpoint ``last.pt``, its log ``log.jsonl``, validation pictures, and at
    the end the model in ``model_folder``."""

    def __init__(self, folder: Path, config: TrainConfig, arch: Arch, device: str = "cpu") -> None:
        self.folder, self.config, self.arch = folder, config, arch
        self.model_folder = folder / arch.model_name
        folder.mkdir(parents=True, exist_ok=True)
        self.world, self.validation = World("train"), World("val")
        self.lessons = Lessons(arch, self.world.names, device, config.dense_weight, config.seed)
        self.shapes = shape_shares(WorldConfig().shapes)
        self.step, self.kept = 0, tuple[Kept, ...]()
        self._seconds, self._started = (
            0.0,
            time.monotonic(),
        )  # of earlier starts; when this run would have begun at once
        self._average: dict[str, float] = {}

    def run(self) -> None:
        """Trains to the end of phase C, from the last checkpoint where there is one.

        Raises:
            DataError: ``folder`` holds a run of another architecture, size or configuration, or a damaged checkpoint.
        """
        self.optimiser = torch.optim.AdamW(self.lessons.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
        self._resume()
        total = sum(self.config.steps)
        self._started = time.monotonic() - self._seconds
        while self.step < total:
            phase, done = self._phase()
            self._set_rate(phase, done)
            losses = (self._vision_step, self._language_step, self._joint_step)[phase](
                np.random.default_rng([self.config.seed, self.step])  # by step, so that a resumed run draws the same
            )
            self.step += 1
            self._log(phase, losses)
            if self.step % self.config.checkpoint_every == 0 or self.step == total:
                self._checkpoint()
            if phase > 0 and (self.step % self.config.evaluate_every == 0 or self.step == total):
                self._evaluate()
        save(self.lessons.model, self.lessons.processor, self.model_folder)

    def _phase(self) -> tuple[int, float]:
        """(phase, fraction of it done)."""
        first = 0
        for phase, count in enumerate(self.config.steps):
            if self.step < first + count:
                return phase, (self.step - first) / count
            first += count
        raise ValueError("all steps are done")

    def _set_rate(self, phase: int, done: float) -> None:
        warm = min(1.0, (done * self.config.steps[phase] + 1) / 150)
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.rates[phase] * warm * max(0.03, 0.5 * (1 + math.cos(math.pi * done)))

    def _draw(self, rng: np.random.Generator, phase: int) -> Pictures:
        """Pictures that no other step sees."""
        shapes = list(self.shapes)
        size = shapes[rng.choice(len(shapes), p=list(self.shapes.values()))]
        first = self.step * max(self.config.batch)
        numbers = range(first, first + self.config.batch[phase])
        return render(self.world, TRAINING, numbers, size, self.config.objects[phase])

    def _update(self, loss: torch.Tensor) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.lessons.parameters(), 1.0)
        self.optimiser.step()

    def _vision_step(self, rng: np.random.Generator) -> dict[str, float]:
        loss, parts = self.lessons.vision_loss(self._draw(rng, 0))
        self._update(loss)
        return parts

    def _language_step(self, rng: np.random.Generator) -> dict[str, float]:
        if not self.kept:
            self._keep_tokens()
        counts = np.array([len(k.scenes) for k in self.kept])
        kept = self.kept[rng.choice(len(self.kept), p=counts / counts.sum())]
        index = np.sort(rng.choice(len(kept.scenes), min(self.config.batch[1], len(kept.scenes)), replace=False))
        return self._answer_step(
            rng, kept.tokens[index].to(self.lessons.device), [kept.scenes[i] for i in index], kept.size
        )

    def _joint_step(self, rng: np.random.Generator) -> dict[str, float]:
        pictures = self._draw(rng, 2)
        return self._answer_step(rng, self.lessons.tokens(pictures), pictures.objects, pictures.size)

    def _answer_step(
        self, rng: np.random.Generator, tokens: torch.Tensor, scenes: Scenes, size: tuple[int, int]
    ) -> dict[str, float]:
        phrases = self.lessons.phrases(rng, scenes, size, self.config.questions, self.config.absent_share)
        guided = self.step - self.config.steps[0] < self.config.guided_steps
        weight = self.config.guide_weight if guided else 0.0
        loss, parts = self.lessons.answer_loss(tokens, scenes, size, phrases, weight)
        self._update(loss)
        return parts

    @torch.no_grad()
    def _keep_tokens(self) -> None:
        """Fills ``kept`` with pictures that no step draws; the same ones after a resumption."""
        kept, first = [], 0
        counts = [round(share * self.config.kept_pictures) for share in self.shapes.values()]
        for size, count in zip(self.shapes, counts, strict=True):
            tokens, scenes = [], list[Sequence[SceneObject]]()
            for at in range(0, count, 32):
                numbers = range(first + at, first + min(count, at + 32))
                pictures = render(self.world, KEPT, numbers, size, self.config.objects[1])
                tokens.append(self.lessons.tokens(pictures).to("cpu", torch.bfloat16))
                scenes += pictures.objects
            kept.append(Kept(size, torch.cat(tokens), scenes))
            first += count
            self._write({"kept": len(scenes), "width": size[0], "height": size[1]})
        self.kept = tuple(kept)

    def _evaluate(self) -> None:
        lessons, size = self.lessons, next(iter(self.shapes))
        lessons.model.eval()
        lessons.model.set_attn_implementation("sdpa")
        pictures = render(self.validation, TRAINING, range(self.config.validation_pictures), size)
        answers = evaluate.ask(
            self.arch,
            lessons.model,
            lessons.processor,
            lessons.maker(size),
            pictures,
            lessons.names,
            self.config.validation_cases,
        )
        self._write({"step": self.step, **evaluate.summary(answers, pictures)})
        shown = evaluate.sheet(answers, pictures)
        Image.fromarray(shown).save(self.folder / f"validation-{self.step:06d}.png")
        lessons.train()

    def _checkpoint(self) -> None:
        state = {
            "run": self._run(),
            "step": self.step,
            "seconds": time.monotonic() - self._started,
            "model": self.lessons.model.state_dict(),
            "dense": self.lessons.dense.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        partial = self.folder / "last.pt.part"
        torch.save(state, partial)
        partial.replace(self.folder / "last.pt")

    def _resume(self) -> None:
        file = self.folder / "last.pt"
        if not file.exists():
            return
        try:
            state = torch.load(file, map_location=self.lessons.device, weights_only=True)
            found, wanted = state["run"], self._run()
            differing = [k for k in wanted if found.get(k) != wanted[k]]
            if not differing:
                self.lessons.model.load_state_dict(state["model"])
                self.lessons.dense.load_state_dict(state["dense"])
                self.optimiser.load_state_dict(state["optimiser"])
                self.step, self._seconds = state["step"], state["seconds"]
        except (EOFError, KeyError, RuntimeError, UnpicklingError) as error:
            raise DataError(
                f"{file} is damaged ({type(error).__name__}): delete it and train from the start"
            ) from error
        if differing:
            k = differing[0]
            raise DataError(
                f"{self.folder} holds a run with {k} {found.get(k)}, not {wanted[k]}: choose another folder"
            )

    def _run(self) -> dict[str, Any]:
        """What a checkpoint must agree in to be gone on with."""
        return {
            "arch": self.arch.name,
            **asdict(self.arch.size),
            **{k: v for k, v in asdict(self.config).items() if "every" not in k},
        }

    def _log(self, phase: int, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            self._average[name] = 0.97 * self._average.get(name, value) + 0.03 * value
        if self.step % 50 == 0:
            shown = {k: round(self._average[k], 4) for k in losses}
            self._write(
                {"step": self.step, "phase": "ABC"[phase], "seconds": round(time.monotonic() - self._started), **shown}
            )

    def _write(self, line: dict[str, Any]) -> None:
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
