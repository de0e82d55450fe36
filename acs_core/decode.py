"""Decode steps: how the rows of a batch get their next logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from acs_core.branches import Branches
from acs_core.lvlm.base import LVLM
from acs_core.reading import Reading
from acs_core.static_decode import StaticDecoder, static_decoder

_WORTH_NARROWING = 0.75  # share of rows still running below which the others leave the batch


class Steps(Protocol):
    """Decode steps: one forward of the language model for the newest token of each running row."""

    @property
    def rows(self) -> torch.Tensor:
        """The running rows (b,), ascending, on the CPU."""

    def advance(self, tokens: torch.Tensor, finished: Sequence[bool]) -> torch.Tensor:
        """Feeds ``tokens`` (b,) of the running rows: logits (b', V) of those that run on."""

    def written(self) -> Branches:
        """All that the rows have written."""


class GrowingSteps:
    """Rows that grow, and leave once enough have ended."""

    def __init__(self, lvlm: LVLM, reading: Reading, n: int) -> None:
        self._lvlm = lvlm
        self._branches = Branches(reading.trunk, reading.tails, [n] * len(reading.prompts))
        self._embed = lvlm.text_model.get_input_embeddings()
        self._head = lvlm.hf_model.get_output_embeddings()
        self._next = torch.tensor([p.next_position for p in reading.prompts]).repeat_interleave(n)  # (N,)
        self._axes = reading.prompts[0].position_ids.shape[:-2]  # () or (3,)

    @property
    def rows(self) -> torch.Tensor:
        """See :class:`Steps`."""
        return self._branches.rows

    def written(self) -> Branches:
        """See :class:`Steps`."""
        return self._branches

    def advance(self, tokens: torch.Tensor, finished: Sequence[bool]) -> torch.Tensor:
        """See :class:`Steps`; leaves out rows that ended once enough have."""
        branches = self._branches
        running = [row for row in branches.rows.tolist() if not finished[row]]
        if len(running) <= _WORTH_NARROWING * len(branches.rows):
            tokens = tokens[torch.isin(branches.rows, torch.tensor(running)).to(tokens.device)]
            branches.narrow(running)
        positions = (self._next[branches.rows] + branches.length).to(tokens.device)[:, None]  # (b, 1)
        hidden = self._lvlm.text_model(
            inputs_embeds=self._embed(tokens[:, None]),
            # A dict is taken as masks that are ready: there is nothing to hide from a row.
            attention_mask={"full_attention": None},
            position_ids=positions.expand(*self._axes, *positions.shape),
            past_key_values=branches,
            use_cache=True,
            acs_attending=branches,
        ).last_hidden_state
        branches.end_step()
        return self._head(hidden[:, -1])


class RecordedSteps:
    """All rows to the end, by a step that a GPU has recorded."""

    def __init__(self, decoder: StaticDecoder, reading: Reading) -> None:
        self._decoder, self._reading = decoder, reading
        self._taken = 0
        self.rows = torch.arange(decoder.rows.n)

    def written(self) -> Branches:
        """See :class:`Steps`."""
        return self._decoder.rows.copy_out(self._reading, self._taken)

    def advance(self, tokens: torch.Tensor, finished: Sequence[bool]) -> torch.Tensor:
        """See :class:`Steps`."""
        self._taken += 1
        return self._decoder.advance(tokens)


def decode_steps(lvlm: LVLM, reading: Reading, n: int, limit: int) -> Steps:
    """Steps for ``n`` responses of up to ``limit`` tokens to each prompt of ``reading``."""
    decoder = static_decoder(lvlm, reading, n, limit) if lvlm.device.type == "cuda" else None
    return RecordedSteps(decoder, reading) if decoder else GrowingSteps(lvlm, reading, n)
