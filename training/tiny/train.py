"""Trains an embedded LVLM from nothing, in three phases that checkpoint and resume.

A: the vision half against :class:`~training.tiny.dense.DenseHead`, on crowded pictures. Where positions enter through
   the language model (Qwen2.5-VL), its first layers learn with it.
B: the language half on the image tokens of A, kept in memory, several questions a picture.
C: the same without teacher and guide, few pictures a step and half of the questions about what is not there, with an
   optimiser that knows nothing of B: the model learns to refuse.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image

from training.scene import KEPT, TRAINING, WORLD_VERSION, WorldConfig
from training.tiny import evaluate
from training.tiny.arch import Arch, save
from training.tiny.checkpoint import read_checkpoint, write_checkpoint
from training.tiny.cpu import kept_heap
from training.tiny.curriculum import Batch, Curriculum, InOrder, ahead
from training.tiny.data import render
from training.tiny.lessons import Lessons, Parts
from training.tiny.recipe import TrainConfig
from training.tiny.stock import Shelf, stock
from training.world import World

PHASES = "ABC"
C = 2


class TinyTrainer:
    """One training run in ``folder``: its checkpoint ``last.pt``, its log ``log.jsonl``, validation pictures, and at
    the end the model in ``model_folder``. Training pictures lie in ``pictures``, by default within; several runs may
    share that folder. ``workers`` processes prepare batches."""

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        arch: Arch,
        device: str = "cpu",
        pictures: Path | None = None,
        workers: int = 0,
        progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    ) -> None:
        self.folder, self.config, self.arch = folder, config, arch
        self.pictures, self.workers, self.progress = pictures or folder / "pictures", workers, progress
        self.model_folder = folder / arch.model_name
        folder.mkdir(parents=True, exist_ok=True)
        self.validation = World("val")
        self.lessons = Lessons(arch, self.validation.names, device, config.seed)
        self.step, self.kept = 0, tuple[torch.Tensor, ...]()
        self._seconds = 0.0  # that earlier starts took
        self._started = time.monotonic()  # when the run would have begun, had it never stopped
        self._average: Parts = {}
        self.optimiser = self._fresh_optimiser()

    def _fresh_optimiser(self) -> torch.optim.AdamW:
        fused = self.lessons.device != "cpu"
        return torch.optim.AdamW(self.lessons.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=fused)

    def run(self) -> None:
        """Trains to the end of phase C, from the last checkpoint where there is one.

        Raises:
            DataError: ``folder`` holds a run of another architecture, size, world or configuration; the checkpoint or
                a training picture is damaged.
        """
        self._resume()
        self._started = time.monotonic() - self._seconds
        for phase, steps in enumerate((self._vision_step, self._language_step, self._language_step)):
            first, last = sum(self.config.steps[:phase]), sum(self.config.steps[: phase + 1])
            if self.step >= last:
                continue
            curriculum = self._curriculum(phase)
            if phase:
                self._keep_tokens(curriculum.shelves)
            if phase == C and self.step == first:
                self.optimiser = self._fresh_optimiser()
            # Questions differ in length, A's pictures in four shapes only.
            with nullcontext() if phase else kept_heap():
                for batch in ahead(curriculum, range(self.step, last), self.workers):
                    self._set_rate(phase, (self.step - first) / (last - first))
                    losses = steps(batch.to(self.lessons.device))
                    self.step += 1
                    self._after_step(phase, losses)
        save(self.lessons.model, self.lessons.processor, self.model_folder)

    def _after_step(self, phase: int, losses: Parts) -> None:
        config, ended = self.config, self.step == sum(self.config.steps)
        self._log(phase, losses)
        done, count = self.step - sum(config.steps[:phase]), config.steps[phase]
        self.progress(f"phase {PHASES[phase]}", done, count)
        if phase and (self.step % config.evaluate_every == 0 or ended):
            self._evaluate()
        if self.step % config.checkpoint_every == 0 or ended:
            self._checkpoint()

    def _curriculum(self, phase: int) -> Curriculum:
        config, lessons = self.config, self.lessons
        shelves = stock(
            self.pictures,
            KEPT if phase else TRAINING,
            config.pictures[phase],
            config.objects[phase],
            progress=lambda done, total: self.progress(f"render pictures for {PHASES[phase]}", done, total),
            waiting=lambda why: self._write({"waiting": why}),
        )
        return Curriculum(
            self.arch,
            lessons.names,
            {shelf.size: lessons.maker(shelf.size) for shelf in shelves},
            shelves,
            config.seed,
            config.batch[phase],
            config.questions[phase],
            config.absent_share[phase],
            pixels=phase == 0,
        )

    def _set_rate(self, phase: int, done: float) -> None:
        warm = min(1.0, (done * self.config.steps[phase] + 1) / self.config.warm_up_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.rates[phase] * warm * max(0.03, 0.5 * (1 + math.cos(math.pi * done)))

    def _update(self, loss: torch.Tensor) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.lessons.parameters(), 1.0)
        self.optimiser.step()

    def _vision_step(self, batch: Batch) -> Parts:
        loss, parts = self.lessons.vision_loss(_needed(batch.pixels), batch.targets, batch.size)
        self._update(loss)
        return parts

    def _language_step(self, batch: Batch) -> Parts:
        config, tokens = self.config, self.kept[batch.shelf][batch.index]
        done = self.step - config.steps[0]
        taught = done < config.steps[1]
        loss, parts = self.lessons.answer_loss(
            tokens,
            _needed(batch.turns),
            batch.targets,
            config.dense_weight if taught else 0.0,
            config.guide_weight if taught and done < config.guided_steps else 0.0,
        )
        self._update(loss)
        return parts

    @torch.no_grad()
    def _keep_tokens(self, shelves: Sequence[Shelf]) -> None:
        """Fills ``kept``: the image tokens (pictures, R * C, width) of every shelf."""
        kept = []
        for shelf in shelves:
            pictures = InOrder(shelf, self.config.batch[1])
            tokens = [
                self.lessons.tokens(pixels.to(self.lessons.device)).to(torch.bfloat16)
                for pixels in ahead(pictures, range(len(pictures)), self.workers)
            ]
            kept.append(torch.cat(tokens))
            self._write({"kept": len(shelf.files), "width": shelf.size[0], "height": shelf.size[1]})
        self.kept = tuple(kept)

    def _evaluate(self) -> None:
        lessons, size = self.lessons, WorldConfig().shapes[0]
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
        write_checkpoint(
            self.folder / "last.pt",
            self._run(),
            self._parts(),
            {"step": self.step, "seconds": time.monotonic() - self._started},
        )

    def _resume(self) -> None:
        found = read_checkpoint(self.folder / "last.pt", self._run(), self._parts(), self.lessons.device)
        self.step, self._seconds = found.get("step", 0), found.get("seconds", 0.0)

    def _parts(self) -> dict[str, Any]:
        return {"model": self.lessons.model, "dense": self.lessons.dense, "optimiser": self.optimiser}

    def _run(self) -> dict[str, Any]:
        """What a checkpoint must agree in to be gone on with."""
        return {
            "world": WORLD_VERSION,
            "arch": self.arch.name,
            **asdict(self.arch.size),
            **{k: v for k, v in asdict(self.config).items() if "every" not in k},
        }

    def _log(self, phase: int, losses: Parts) -> None:
        for name, value in losses.items():
            self._average[name] = 0.97 * self._average.get(name, value) + 0.03 * value
        if self.step % 50 == 0:
            shown = {k: round(float(self._average[k]), 4) for k in losses}
            self._write(
                {"step": self.step, "phase": PHASES[phase], "seconds": round(time.monotonic() - self._started), **shown}
            )

    def _write(self, line: dict[str, Any]) -> None:
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


T = TypeVar("T")


def _needed(part: T | None) -> T:
    """A part of a batch that its phase has.

    Raises:
        ValueError: it has not.
    """
    if part is None:
        raise ValueError("the curriculum of this phase lacks a part that its step needs")
    return part
