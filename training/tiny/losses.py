"""Training losses of an embedded model: of the dense head on image tokens, and of the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from training.tiny.arch import Arch
from training.tiny.attention import AttentionSupervision, use_for_training
from training.tiny.dense_head import DenseHead, DenseTargets
from training.tiny.questions import IGNORED, QuestionMaker, Turns

Parts = dict[str, torch.Tensor]


class TinyLosses:
    """A model with fresh weights, its dense head, and their losses, in bfloat16 if autocast supports it.

    Losses are returned as (loss to minimise, its parts by name for the log), scalars on the device. All tensor
    arguments must be on the device.
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
        """Set the model to training mode and to the attention kernels of training."""
        self.model.train()
        use_for_training(self.model)

    def parameters(self) -> list[torch.nn.Parameter]:
        """Return the parameters of the model and of the dense head."""
        return [*self.model.parameters(), *self.dense.parameters()]

    def autocast(self) -> torch.autocast:
        """Return a bfloat16 autocast, enabled if the device supports bfloat16 natively: other CPUs are ten times slower
        with it."""
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=_has_bfloat16(self.device))

    def maker(self, size: tuple[int, int]) -> QuestionMaker:
        """Return the question maker for images of ``size`` (width, height)."""
        if size not in self._makers:
            self._makers[size] = QuestionMaker(self.arch, self.model, self.processor, self.names, size)
        return self._makers[size]

    def tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the projector's image tokens (B, R * C, width) of ``pixels`` (B, H, W, 3) uint8."""
        with self.autocast():
            return self.arch.image_tokens(self.model, pixels)

    def vision_loss(
        self, pixels: torch.Tensor, targets: DenseTargets, size: tuple[int, int]
    ) -> tuple[torch.Tensor, Parts]:
        """Return the dense head's loss on images of ``size`` (width, height)."""
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
        coordinate_temperature: float = 1.0,
    ) -> tuple[torch.Tensor, Parts]:
        """Return the loss of the answers in ``turns``.

        Args:
            tokens: (B, R * C, width) image tokens.
            turns: questions and answers.
            targets: targets of the dense head.
            dense_weight: weight of the dense head's loss, which is added if the head's inputs are being trained.
            guide_weight: weight of the attention supervision's loss.
            coordinate_temperature: what the logits of ``turns.later`` are divided by.
        """
        guide = None
        if guide_weight and len(turns.keys):
            guide = AttentionSupervision(self.arch.guided_layer, turns.emits, turns.keys)
        hidden, read = self._language(tokens, turns, guide)
        labels = turns.labels[:, 1:]
        answered = labels != IGNORED
        with self.autocast():
            logits = self.model.lm_head(hidden[:, :-1][answered])  # (answer tokens, vocabulary)
        later = turns.later[:, 1:][answered]
        logits = logits.float() / torch.where(later, coordinate_temperature, 1.0)[:, None]
        loss = F.cross_entropy(logits, labels[answered])
        parts = {"language": loss.detach()}
        if guide:
            missed = guide.loss()
            loss, parts["guide"] = loss + guide_weight * missed, missed.detach()
        if dense_weight and read.requires_grad:
            dense, more = self._dense_loss(read, targets)
            loss, parts = loss + dense_weight * dense, parts | more
        return loss, parts

    def _language(
        self, tokens: torch.Tensor, turns: Turns, guide: AttentionSupervision | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the last hidden states (B, T, width) and the inputs of the dense head (B, R * C, width)."""
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
