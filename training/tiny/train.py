"""Trains an embedded LVLM from nothing, in three phases that checkpoint and resume.

A: the vision half alone against :class:`~training.tiny.dense.DenseHead`, on crowded pictures.
B: the language half alone on the image tokens of A, kept in memory, several questions a picture.
C: both, with a small learning rate.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from training.sprites import load_sprites
from training.tiny.data import IGNORED, Pictures, QuestionMaker, Turns, normalised, render_pictures
from training.tiny.dense import DenseHead, dense_targets
from training.tiny.evaluate import greedy_accuracy
from training.tiny.model import TinyConfig, build_model, build_processor, save
from training.world import WorldConfig

TRAIN_SEED, VAL_SEED = 1, 2
MODEL_NAME = "tiny-internvl"  # of the folder, and so of the model in the files made for it


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast; a step is one optimiser update on ``batch`` pictures."""

    pictures: int = 20_000
    validation_pictures: int = 400
    validation_cases: int = 192
    steps: tuple[int, int, int] = (1300, 1800, 150)
    rates: tuple[float, float, float] = (1.5e-3, 1.5e-3, 4e-4)
    batch: tuple[int, int, int] = (24, 24, 16)
    questions: int = 4
    absent_share: float = 0.1
    dense_weight: float = 0.3  # of the teacher, in phase C
    checkpoint_every: int = 200
    evaluate_every: int = 500
    seed: int = 0


class TinyTrainer:
    """One training run in ``folder``: its pictures, its checkpoint ``last.pt``, its log ``log.jsonl``, its weights."""

    def __init__(self, folder: Path, config: TrainConfig, size: TinyConfig | None = None, device: str = "cpu") -> None:
        self.folder, self.config, self.size, self.device = folder, config, size or TinyConfig(), device
        folder.mkdir(parents=True, exist_ok=True)
        sprites = load_sprites()
        self.names = [s.name for s in sprites]
        torch.manual_seed(config.seed)
        self.processor = build_processor(self.size, self.names)
        model: Any = build_model(self.size, self.processor)
        self.model = model.to(device)
        self.dense = DenseHead(self.size.width, self.size.grid).to(device)
        self.questions = QuestionMaker(self.processor, self.names, self.size.image_size)
        self.name_ids = torch.tensor([self.processor.tokenizer(n).input_ids[0] for n in self.names], device=device)
        crowded = WorldConfig(size=self.size.image_size, min_objects=2, max_objects=5)
        plain = WorldConfig(size=self.size.image_size)
        self.train = render_pictures(folder, config.pictures, TRAIN_SEED, sprites, crowded, self._rendered)
        self.val = render_pictures(folder, config.validation_pictures, VAL_SEED, sprites, plain)
        self.step, self.features = 0, torch.empty(0)
        self._average: dict[str, float] = {}

    def run(self) -> None:
        """Trains to the end of phase C, from the last checkpoint where there is one."""
        self.optimiser = torch.optim.AdamW(self._groups(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
        self._resume()
        total, started = sum(self.config.steps), time.monotonic()
        while self.step < total:
            phase, done = self._phase()
            self._set_rates(phase, done)
            losses = (self._vision_step, self._language_step, self._joint_step)[phase](
                np.random.default_rng([self.config.seed, self.step])  # by step, so that a resumed run draws the same
            )
            self.step += 1
            self._log(phase, losses, started)
            if self.step % self.config.checkpoint_every == 0 or self.step == total:
                self._checkpoint()
            if phase > 0 and (self.step % self.config.evaluate_every == 0 or self.step == total):
                self._evaluate()
        save(self.model, self.processor, self.folder / MODEL_NAME)

    def _groups(self) -> list[dict[str, Any]]:
        language = [p for n, p in self.model.named_parameters() if "language_model" in n or "lm_head" in n]
        vision = [p for n, p in self.model.named_parameters() if "language_model" not in n and "lm_head" not in n]
        return [{"params": vision + list(self.dense.parameters())}, {"params": language}]

    def _phase(self) -> tuple[int, float]:
        """(phase, fraction of it done)."""
        first = 0
        for phase, count in enumerate(self.config.steps):
            if self.step < first + count:
                return phase, (self.step - first) / count
            first += count
        raise ValueError("all steps are done")

    def _set_rates(self, phase: int, done: float) -> None:
        warm = min(1.0, (done * self.config.steps[phase] + 1) / 150)
        rate = self.config.rates[phase] * warm * max(0.03, 0.5 * (1 + math.cos(math.pi * done)))
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def _pick(self, rng: np.random.Generator, phase: int) -> np.ndarray:
        return np.sort(rng.choice(len(self.train.objects), self.config.batch[phase], replace=False))

    def _image_tokens(self, pictures: Pictures, index: np.ndarray) -> torch.Tensor:
        """(B, G*G, width), with the picture's image tokens."""
        pixels = normalised(pictures.pixels[index]).to(self.device)
        tokens = self.model.model.get_image_features(pixel_values=pixels).pooler_output
        return tokens if isinstance(tokens, torch.Tensor) else torch.stack(list(tokens))

    def _dense_loss(self, tokens: torch.Tensor, index: np.ndarray) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        grid = self.size.grid
        targets = dense_targets([self.train.objects[i] for i in index], self.names, grid, self.size.image_size)
        names = self.model.get_input_embeddings().weight[self.name_ids]
        losses = self.dense(tokens.view(len(index), grid, grid, -1), names, targets)
        return 0.5 * losses["class"] + 2 * losses["box"] + 0.5 * losses["digits"] + 0.2 * losses["place"], losses

    def _turns(self, rng: np.random.Generator, index: np.ndarray) -> Turns:
        scenes = [self.train.objects[i] for i in index]
        asked = [self.questions.pick(rng, s, self.config.questions, self.config.absent_share) for s in scenes]
        return self.questions.turns(scenes, asked)

    def _language_loss(self, tokens: torch.Tensor, turns: Turns) -> torch.Tensor:
        ids = turns.ids.to(self.device)
        embedded = self.model.get_input_embeddings()(ids)  # (B, T, width)
        at = int((ids[0] == self.processor.image_token_id).nonzero()[0])
        embedded = torch.cat([embedded[:, :at], tokens.to(embedded.dtype), embedded[:, at + tokens.shape[1] :]], dim=1)
        hidden = self.model.model.language_model(
            inputs_embeds=embedded,
            attention_mask=turns.mask.to(self.device),
            position_ids=turns.positions.to(self.device),
            use_cache=False,
        ).last_hidden_state
        labels = turns.labels[:, 1:].to(self.device)
        answered = labels != IGNORED
        logits = self.model.lm_head(hidden[:, :-1][answered])  # (answer tokens, vocabulary)
        return F.cross_entropy(logits.float(), labels[answered])

    def _update(self, loss: torch.Tensor) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for g in self.optimiser.param_groups for p in g["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimiser.step()

    def _vision_step(self, rng: np.random.Generator) -> dict[str, float]:
        index = self._pick(rng, 0)
        with torch.autocast(self.device, torch.bfloat16):
            tokens = self._image_tokens(self.train, index)
        loss, parts = self._dense_loss(tokens, index)
        self._update(loss)
        return {k: v.item() for k, v in parts.items()}

    def _language_step(self, rng: np.random.Generator) -> dict[str, float]:
        if not len(self.features):
            self._keep_features()
        index = self._pick(rng, 1)
        with torch.autocast(self.device, torch.bfloat16):
            loss = self._language_loss(self.features[index].to(self.device), self._turns(rng, index))
        self._update(loss)
        return {"language": loss.item()}

    def _joint_step(self, rng: np.random.Generator) -> dict[str, float]:
        index = self._pick(rng, 2)
        with torch.autocast(self.device, torch.bfloat16):
            tokens = self._image_tokens(self.train, index)
            language = self._language_loss(tokens, self._turns(rng, index))
        dense, parts = self._dense_loss(tokens, index)
        self._update(language + self.config.dense_weight * dense)
        return {"language": language.item(), **{k: v.item() for k, v in parts.items()}}

    @torch.no_grad()
    def _keep_features(self) -> None:
        chunks = np.array_split(np.arange(len(self.train.objects)), max(1, len(self.train.objects) // 64))
        with torch.autocast(self.device, torch.bfloat16):
            self.features = torch.cat([self._image_tokens(self.train, c).to("cpu", torch.bfloat16) for c in chunks])

    def _evaluate(self) -> None:
        self.model.eval()
        accuracy = greedy_accuracy(self.model, self.processor, self.val, limit=self.config.validation_cases)
        self.model.train()
        self._write({"step": self.step, **accuracy})

    def _checkpoint(self) -> None:
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "dense": self.dense.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "config": asdict(self.config),
        }
        partial = self.folder / "last.pt.part"
        torch.save(state, partial)
        partial.replace(self.folder / "last.pt")

    def _resume(self) -> None:
        file = self.folder / "last.pt"
        if not file.exists():
            return
        state = torch.load(file, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.dense.load_state_dict(state["dense"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]

    def _rendered(self, done: int, total: int) -> None:
        if done % 2000 == 0:
            self._write({"rendered": done, "of": total})

    def _log(self, phase: int, losses: dict[str, float], started: float) -> None:
        for name, value in losses.items():
            self._average[name] = 0.97 * self._average.get(name, value) + 0.03 * value
        if self.step % 50 == 0:
            shown = {k: round(self._average[k], 4) for k in losses}
            self._write(
                {"step": self.step, "phase": "ABC"[phase], "seconds": round(time.monotonic() - started), **shown}
            )

    def _write(self, line: dict[str, Any]) -> None:
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
