"""Training of an embedded LVLM in phases that can be resumed, from random weights or from those of a model.

A: the vision half, with the loss of :class:`~training.tiny.dense_head.DenseHead`, on crowded images. If positions enter
through the language model (Qwen2.5-VL), its first layers are trained too.

B: the language half, on the image tokens of A, which are kept in memory, with several questions per image.

C: as B, without dense head and attention supervision, with few images per step, half of the questions about absent
objects, and a new optimiser: the model learns to refuse.

D: the whole model on the answers, with attention supervised at all coordinates, on crowded images with look-alikes:
boxes become exact.

E: as D, with a share of wrong answers (:mod:`training.tiny.mistakes`): the model learns to err in the object rather
than by pixels, and to attend to the object whose box it writes.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch

from acs_core.errors import with_file
from acs_core.heap import M_MMAP_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, trim_heap, tune_heap
from acs_core.output import write_picture
from acs_core.output_folder import OutputFolder
from training.checkpoint_file import read_state, write_state
from training.errors import DataError
from training.tiny import evaluate
from training.tiny.arch import Arch, load_weights, save
from training.tiny.curriculum import Curriculum, ImageBatch, InOrder, ahead
from training.tiny.image_pool import ImagePool, image_pools, render
from training.tiny.losses import Parts, TinyLosses
from training.tiny.recipe import PhaseConfig, TrainConfig
from training.world.photographs import fingerprint
from training.world.scene import KEPT, TRAINING, WORLD_VERSION, WorldConfig
from training.world.world import World

ADVICE = "delete it, training then starts anew"
MOST = 2**31 - 1
# Values that glibc adjusts itself to after large pieces are freed. Setting any value ends that adjustment.
USUAL = ((M_MMAP_MAX, 65536), (M_MMAP_THRESHOLD, 32 << 20), (M_TRIM_THRESHOLD, 64 << 20))


class TinyTrainer:
    """Training run in ``folder``, which holds its checkpoint ``last.pt``, its log ``log.jsonl``, validation images, and
    finally the model in ``model_folder``.

    ``pictures`` is the folder of the training images, by default inside ``folder``; several runs may share it.
    ``workers`` processes prepare batches. ``base`` is the folder of a model whose weights the run starts from; None for
    random ones. ``backgrounds`` is a folder of photographs that are backgrounds of training images.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        arch: Arch,
        device: str = "cpu",
        pictures: Path | None = None,
        workers: int = 0,
        progress: Callable[[str, int, int], None] = lambda what, done, total: None,
        base: Path | None = None,
        backgrounds: Path | None = None,
    ) -> None:
        self.base, self.backgrounds = base, backgrounds
        self.folder, self.config, self.arch = folder, config, arch
        self.pictures, self.workers, self.progress = pictures or folder / "pictures", workers, progress
        self.model_folder = folder / arch.model_name
        self.validation = World("val")
        self.losses = TinyLosses(arch, self.validation.names, device, config.seed)
        self.step, self.kept = 0, tuple[torch.Tensor, ...]()
        self._seconds = 0.0  # spent by earlier starts of this run
        self._started = time.monotonic()  # start of the run, less the time it was stopped
        self._average: Parts = {}
        self.optimiser = self._fresh_optimiser()

    def _fresh_optimiser(self) -> torch.optim.AdamW:
        fused = self.losses.device != "cpu"
        return torch.optim.AdamW(self.losses.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=fused)

    def run(self) -> None:
        """Train to the end of the last phase, from the last checkpoint if there is one.

        Raises:
            DataError: ``folder`` holds a run of another architecture, size, world or configuration; the checkpoint or a
                training image is damaged.
            OutputError: ``folder`` holds files that acs did not write, or another process trains there.
        """
        with OutputFolder(self.folder, "acs-train tiny") as out, with_file(self.folder, only_unnamed=True):
            self._train()
            with out.stage(f"{self.model_folder.name}/*") as staged:
                save(self.arch, self.losses.model, self.losses.processor, staged / self.model_folder.name)

    def _train(self) -> None:
        if not self._resume() and self.base is not None:
            load_weights(self.losses.model, self.losses.processor.tokenizer, self.base)
        self._started = time.monotonic() - self._seconds
        first = 0
        for phase in self.config.phases:
            if self.step < first + phase.steps:
                self._train_phase(phase, first)
            first += phase.steps

    def _train_phase(self, phase: PhaseConfig, first: int) -> None:
        """Train from the current step to the end of ``phase``, whose first step is ``first``."""
        curriculum = self._curriculum(phase)
        if not curriculum.pixels:
            self._keep_tokens(curriculum.pools, phase.batch)
        if phase.new_optimiser and self.step == first:
            self.optimiser = self._fresh_optimiser()
        # Batches without questions have only four shapes; others vary with the length of the questions.
        with nullcontext() if phase.questions else kept_heap():
            for batch in ahead(curriculum, range(self.step, first + phase.steps), self.workers):
                done = self.step - first
                self._set_rate(phase, done)
                losses = self._step(phase, done, batch.to(self.losses.device))
                self.step += 1
                self._after_step(phase, done + 1, losses)

    def _after_step(self, phase: PhaseConfig, done: int, losses: Parts) -> None:
        config, ended = self.config, self.step == self.config.steps
        self._log(phase, losses)
        self.progress(f"phase {phase.name}", done, phase.steps)
        if phase.questions and (self.step % config.evaluate_every == 0 or ended):
            self._evaluate()
        if self.step % config.checkpoint_every == 0 or ended:
            self._checkpoint()

    def _curriculum(self, phase: PhaseConfig) -> Curriculum:
        losses = self.losses
        pools = image_pools(
            self.pictures,
            KEPT if phase.questions else TRAINING,
            phase.pictures,
            phase.objects,
            progress=lambda done, total: self.progress(f"render pictures for {phase.name}", done, total),
            waiting=lambda why: self._write({"waiting": why}),
            lookalikes=phase.lookalikes,
            colours=phase.colours,
            backgrounds=self.backgrounds,
        )
        return Curriculum(
            self.arch,
            losses.names,
            {pool.size: losses.maker(pool.size) for pool in pools},
            pools,
            self.config.seed,
            phase,
        )

    def _set_rate(self, phase: PhaseConfig, done: int) -> None:
        warm = min(1.0, (done + 1) / (phase.warm_up_steps or self.config.warm_up_steps))
        falling = max(0.03, 0.5 * (1 + math.cos(math.pi * done / phase.steps)))
        for group in self.optimiser.param_groups:
            group["lr"] = phase.rate * warm * falling

    def _update(self, loss: torch.Tensor) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.losses.parameters(), 1.0)
        self.optimiser.step()

    def _step(self, phase: PhaseConfig, done: int, batch: ImageBatch) -> Parts:
        """Update the weights once; ``done`` steps of the phase are done."""
        losses = self.losses
        if not phase.questions:
            loss, parts = losses.vision_loss(_needed(batch.pixels), batch.targets, batch.size)
        else:
            tokens = losses.tokens(_needed(batch.pixels)) if phase.end_to_end else self.kept[batch.pool][batch.index]
            guide = self.config.guide_weight if done < phase.guided_steps else 0.0
            turns, sharp = _needed(batch.turns), phase.coordinate_temperature
            loss, parts = losses.answer_loss(tokens, turns, batch.targets, phase.dense_weight, guide, sharp)
        self._update(loss)
        return parts

    @torch.no_grad()
    def _keep_tokens(self, pools: Sequence[ImagePool], count: int) -> None:
        """Compute the image tokens (images, R * C, width) of every pool, ``count`` images at a time, and store them in
        ``kept``."""
        kept = []
        for pool in pools:
            pictures = InOrder(pool, count)
            tokens = [
                self.losses.tokens(pixels.to(self.losses.device)).to(torch.bfloat16)
                for pixels in ahead(pictures, range(len(pictures)), self.workers)
            ]
            kept.append(torch.cat(tokens))
            self._write({"kept": len(pool.files), "width": pool.size[0], "height": pool.size[1]})
        self.kept = tuple(kept)

    def _evaluate(self) -> None:
        losses, size = self.losses, WorldConfig().shapes[0]
        losses.model.eval()
        losses.model.set_attn_implementation("sdpa")
        pictures = render(self.validation, TRAINING, range(self.config.validation_pictures), size)
        answers = evaluate.ask(
            self.arch,
            losses.model,
            losses.processor,
            losses.maker(size),
            pictures,
            losses.names,
            self.config.validation_cases,
        )
        self._write({"step": self.step, **evaluate.summary(answers, pictures)})
        shown = evaluate.sheet(answers, pictures)
        write_picture(self.folder / f"validation-{self.step:06d}.png", shown, "acs-train tiny")
        losses.train()

    def _checkpoint(self) -> None:
        write_checkpoint(
            self.folder / "last.pt",
            self._run(),
            self._parts(),
            {"step": self.step, "seconds": time.monotonic() - self._started},
        )

    def _resume(self) -> bool:
        """Load the last checkpoint; returns False if there is none."""
        found = read_checkpoint(self.folder / "last.pt", self._run(), self._parts(), self.losses.device)
        self.step, self._seconds = int(found.get("step", 0)), found.get("seconds", 0.0)
        return bool(found)

    def _parts(self) -> dict[str, Any]:
        return {"model": self.losses.model, "dense": self.losses.dense, "optimiser": self.optimiser}

    def _run(self) -> dict[str, Any]:
        """Return the settings that a checkpoint must share with this run to be resumed."""
        return {
            "world": WORLD_VERSION,
            "arch": self.arch.name,
            "base": str(self.base or ""),
            "backgrounds": fingerprint(self.backgrounds) if self.backgrounds else "",
            **asdict(self.arch.size),
            **{k: v for k, v in asdict(self.config).items() if "every" not in k},
        }

    def _log(self, phase: PhaseConfig, losses: Parts) -> None:
        for name, value in losses.items():
            self._average[name] = 0.97 * self._average.get(name, value) + 0.03 * value
        if self.step % 50 == 0:
            shown = {k: round(float(self._average[k]), 4) for k in losses}
            self._write(
                {"step": self.step, "phase": phase.name, "seconds": round(time.monotonic() - self._started), **shown}
            )

    def _write(self, line: dict[str, Any]) -> None:
        with with_file(self.folder / "log.jsonl"), (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


T = TypeVar("T")


def _needed(part: T | None) -> T:
    """Return ``part`` of a batch, which the current phase needs.

    Raises:
        ValueError: it is None.
    """
    if part is None:
        raise ValueError("the curriculum of this phase lacks a part that its step needs")
    return part


@contextmanager
def kept_heap() -> Iterator[None]:
    """Keep freed memory in the process within the block, and return it to the system afterwards.

    A training step frees gigabytes in large pieces. glibc returns them to the system at once, so that the next step has
    to request the pages again, and the system clears them. This is meant for steps of repeating sizes: with varying
    sizes the heap becomes fragmented. It has no effect if the C library has no such settings.
    """
    tune_heap(((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, MOST)))
    try:
        yield
    finally:
        tune_heap(USUAL)
        trim_heap()


def write_checkpoint(file: Path, run: dict[str, Any], parts: dict[str, Any], numbers: dict[str, Any]) -> None:
    """Replace the checkpoint ``file`` atomically.

    Args:
        file: the checkpoint.
        run: settings of the run.
        parts: modules and optimisers by name.
        numbers: further values by name.
    """
    write_state(file, {"run": run, **numbers, **{name: part.state_dict() for name, part in parts.items()}})


def read_checkpoint(file: Path, run: dict[str, Any], parts: dict[str, Any], device: str) -> dict[str, float]:
    """Load ``parts`` from the checkpoint ``file`` and return its further values by name; {} if there is no such file.

    Raises:
        DataError: the file is damaged, of another run, or holds anything but tensors and plain values.
    """
    if not file.exists():
        return {}
    state = read_state(file, device, ADVICE)
    found = state.pop("run", None)
    if not isinstance(found, dict):
        raise DataError(f"{file} does not say which run it is of: {ADVICE}")
    for k in run:
        if found.get(k) != run[k]:
            raise DataError(f"{file.parent} holds a run with {k} {found.get(k)}, not {run[k]}: choose another folder")
    try:
        for name, part in parts.items():
            part.load_state_dict(state.pop(name))
        return {str(name): _number(value) for name, value in state.items()}
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{file} does not belong to this run ({error!r:.200}): {ADVICE}") from error


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise TypeError(f"{str(value)[:60]} where a number at or above 0 should be")
    return value
