"""What an embedded model is taught, as losses: the teacher's on image tokens, and that of answering questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from training.tiny.arch import Arch
from training.tiny.attention import use_for_training
from training.tiny.dense import DenseHead, DenseTargets
from training.tiny.guide import Guide
from training.tiny.questions import IGNORED, QuestionMaker, Turns

Parts = dict[str, torch.Tensor]


class Lessons:
    """A model with fresh weights, the teacher's head, and their losses; bfloat16 where autocast allows it.

    Losses come as (loss to minimise, its parts by name for the log), scalars on the device. Everything that is given
    lies on the device already.
    """

    def __init__(self, arch: Arch, names: Sequence[str], device: str, seed: int) -> None:
        self.arch, self.names, self.device = arch, list(names), device
        torch.manual_seed(seed)
        self.processor = arch.build_processor(self.names)
        self.model: Any = arch.build_model(self.processor).to(device)
        self.dense = DenseHead(arch.size.width, len(arch.digit_places)).to(device)
        self._name_ids = torch.tensor([self.processor.tokenizer(n).input_ids[0] for n in self.names], device=device)
        self._makers: dict[tuple[int, int], QuestionMaker] = {}
        self.train()

    def train(self) -> None:
        """Back to training, after the model was used otherwise."""
        self.model.train()
        use_for_training(self.model)

    def parameters(self) -> list[torch.nn.Parameter]:
        """The model's and the teacher's."""
        return [*self.model.parameters(), *self.dense.parameters()]

    def autocast(self) -> torch.autocast:
        """bfloat16, where the device computes in it: a CPU that does not is ten times slower with it."""
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=_has_bfloat16(self.device))

    def maker(self, size: tuple[int, int]) -> QuestionMaker:
        """The question maker for pictures of ``size`` (width, height)."""
        if size not in self._makers:
            self._makers[size] = QuestionMaker(self.arch, self.model, self.processor, self.names, size)
        return self._makers[size]

    def tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, R * C, width) from the projector, for ``pixels`` (B, H, W, 3) uint8."""
        with self.autocast():
            return self.arch.image_tokens(self.model, pixels)

    def vision_loss(
        self, pixels: torch.Tensor, targets: DenseTargets, size: tuple[int, int]
    ) -> tuple[torch.Tensor, Parts]:
        """The teacher's loss on what it reads of pictures of ``size`` (width, height)."""
        read = self.tokens(pixels)
        if self.arch.teacher_layers:
            read = self._language(read, self.maker(size).no_question(len(read)).to(self.device))[1]
        return self._dense_loss(read, targets)

    def answer_loss(
        self,
        tokens: torch.Tensor,
        turns: Turns,
        targets: DenseTargets,
        dense_weight: float = 0.0,
        guide_weight: float = 0.0,
    ) -> tuple[torch.Tensor, Parts]:
        """The loss of answering ``turns`` about pictures given as ``tokens`` (B, R * C, width); with the teacher's at
        ``dense_weight``, where what it reads is being trained, and with the guide's at ``guide_weight``."""
        guide = None
        if guide_weight and len(turns.keys):
            guide = Guide(self.arch.guided_layer, turns.emits, turns.keys)
        hidden, read = self._language(tokens, turns, guide)
        labels = turns.labels[:, 1:]
        answered = labels != IGNORED
        with self.autocast():
            logits = self.model.lm_head(hidden[:, :-1][answered])  # (answer tokens, vocabulary)
        loss = F.cross_entropy(logits.float(), labels[answered])
        parts = {"language": loss.detach()}
        if guide:
            missed = guide.loss()
            loss, parts["guide"] = loss + guide_weight * missed, missed.detach()
        if dense_weight and read.requires_grad:
            dense, more = self._dense_loss(read, targets)
            loss, parts = loss + dense_weight * dense, parts | more
        return loss, parts

    def _language(
        self, tokens: torch.Tensor, turns: Turns, guide: Guide | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(last hidden states (B, T, width), what the teacher reads (B, R * C, width))."""
        start, stop = turns.image
        layers = self.arch.teacher_layers
        with self.autocast():
            embedded = self.model.get_input_embeddings()(turns.ids)  # (B, T, width)
            embedded = torch.cat([embedded[:, :start], tokens.to(embedded.dtype), embedded[:, stop:]], dim=1)
            out = self.model.model.language_model(
                inputs_embeds=embedded,
                attention_mask=turns.mask,
                position_ids=turns.positions,
                use_cache=False,
                output_hidden_states=layers > 0,
                guide=guide,
            )
        return out.last_hidden_state, out.hidden_states[layers][:, start:stop] if layers else tokens

    def _dense_loss(self, read: torch.Tensor, targets: DenseTargets) -> tuple[torch.Tensor, Parts]:
        names = self.model.get_input_embeddings().weight[self._name_ids]
        parts = self.dense(read.reshape(*targets.label.shape, -1), names, targets)
        loss = parts["class"] + 2 * parts["box"] + 0.5 * parts["digits"] + 0.2 * parts["place"]
        return loss, {name: part.detach() for name, part in parts.items()}


def _has_bfloat16(device: str) -> bool:
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    can = torch.cpu.get_capabilities()
    return any(can.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
