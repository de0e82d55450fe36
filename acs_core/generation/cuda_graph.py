"""Decode steps on static tensors, recorded once as a CUDA graph and replayed for every token.

Launching the roughly thousand small kernels of a step takes the CPU several times as long as the GPU needs to run them.
A CUDA graph launches them all at once, but only with the addresses and shapes it was recorded with; hence the buffers
of :mod:`acs_core.generation.static_rows`. A step feeds every row the same number of tokens, one of :data:`WIDTHS`; each
width has a graph of its own on the same buffers. Where Triton is installed, the attention of a step is computed by
kernels of :mod:`acs_core.generation.attention_kernel` (``lvlm.graphs.kernel``).

The code also runs without a graph on a CPU, for the tests. On a CPU :mod:`acs_core.generation.generate` uses the eager
decoder instead.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import torch

from acs_core.device_array import upload
from acs_core.generation.device_draw import DeviceDraw
from acs_core.generation.prefill import PrefillState, cache_name
from acs_core.generation.recording import first_error, recorded
from acs_core.generation.shared_cache import no_mask
from acs_core.generation.static_rows import Capacity, StaticRows
from acs_core.generation.token_sampler import TableSampler
from acs_core.lvlm.base import LVLM
from acs_core.lvlm.fused import fuse_projections
from acs_core.plain_text import one_line

log = logging.getLogger(__name__)

WIDTHS = (1, 4, 16)  # tokens per row and step: the newest alone, with a separator drafted, with the end of a response
KEPT_DRAWS = 2  # per decoder: steps that draw, with other temperatures or cuts
KEPT_GRAPHS = 4  # per model; the buffers of each take up to 0.8 GB for ten responses of a 7B model
KEPT_BYTES = 4 * 2**30  # of the buffers of all of them; several prompts that need more are decoded without a recording


class StaticDecoder:
    """A decode step for N responses to prompts about one image; CUDA graphs on a GPU.

    Args:
        lvlm: the model.
        state: prefill of the prompts.
        capacity: sizes of the buffers.
        widths: numbers of tokens per row that a step may have, ascending.
        kernel: see :class:`acs_core.generation.static_rows.StaticRows`.
    """

    def __init__(
        self,
        lvlm: LVLM,
        state: PrefillState,
        capacity: Capacity,
        widths: Sequence[int] = WIDTHS,
        kernel: ModuleType | None = None,
    ) -> None:
        # No reference to the LVLM, which caches this decoder: the cycle would delay the release of both.
        self._text_model, self._device = lvlm.text_model, lvlm.device
        n = capacity.rows
        self.nbytes = capacity.nbytes(state, lvlm.num_heads)
        self.rows = StaticRows(state, lvlm.num_heads, capacity, kernel)
        self.rows.begin(state)
        self._axes = state.prompts[0].position_ids.shape[:-2]  # () or (3,)
        # Tokens, and per row the index of its next own token: one transfer for both.
        self._inputs = {w: torch.zeros(n, w + 1, dtype=torch.long, device=lvlm.device) for w in widths}
        self._first = torch.zeros(n, 1, dtype=torch.long, device=lvlm.device)  # rope positions of the first own tokens
        self._embed, self._head = lvlm.text_model.get_input_embeddings(), lvlm.hf_model.get_output_embeddings()
        self._mask = no_mask(lvlm.device)  # made before the recording, which reads it
        self._graphs: dict[int, Any] = {}
        self._logits: dict[int, torch.Tensor] = {}
        self._draws: dict[tuple[object, ...], DeviceDraw] = {}
        self._can_draw = True  # False after a recording has failed
        if lvlm.device.type == "cuda":
            for width in widths:
                self._graphs[width], self._logits[width] = recorded(partial(self._step, width), self._device)

    def begin(self, state: PrefillState) -> None:
        """Reset the decoder to the prompts of ``state``, of which there may be fewer than it has room for."""
        self.rows.begin(state)
        for k, prompt in enumerate(state.prompts):
            each = self.rows.capacity.each
            self._first[k * each : (k + 1) * each].fill_(prompt.next_position)

    def advance(self, tokens: Mapping[int, Sequence[int]], lengths: Sequence[int]) -> torch.Tensor:
        """Decode one step.

        Args:
            tokens: the tokens to feed to each row, at most as many as the largest width; rows without any get filler.
            lengths: number of own tokens of each of the N rows.

        Returns:
            (N, W, V) logits for a width W of at least the largest number of tokens of a row; overwritten by the next
            call.
        """
        most = max(map(len, tokens.values()))
        width = next(w for w in self._inputs if w >= most)
        filled = [[*tokens.get(row, ())] for row in range(len(lengths))]
        table = [[*ids, *[0] * (width - len(ids)), length] for ids, length in zip(filled, lengths, strict=True)]
        self._inputs[width].copy_(upload(table, self._device))
        if width not in self._graphs:
            return self._step(width)
        with torch.cuda.device(self._device):
            self._graphs[width].replay()
        return self._logits[width]

    def _step(self, width: int) -> torch.Tensor:
        rows, inputs = self.rows, self._inputs[width]
        tokens = inputs[:, :width]
        rows.starts.copy_(inputs[:, width])
        rows.begin_step(width)
        positions = self._first + rows.starts[:, None] + torch.arange(width, device=inputs.device)  # (N, W)
        hidden = self._text_model(
            inputs_embeds=self._embed(tokens),
            attention_mask=self._mask,
            position_ids=positions.expand(*self._axes, *positions.shape),
            use_cache=True,
            acs_attending=rows,
            **{cache_name(self._text_model.__class__): rows},
        ).last_hidden_state
        return self._head(hidden)

    def drawing(self, sampler: TableSampler, statistics: bool) -> DeviceDraw | None:
        """Return the buffers of steps that draw with ``sampler``; on a GPU, such a step is recorded at the first call.

        Returns:
            The buffers; None if the step cannot be recorded.

        Raises:
            torch.OutOfMemoryError: the GPU has no memory for that.
        """
        if not self._can_draw:
            return None
        key = (*sampler.key(), statistics)
        drawn = self._draws.pop(key, None)
        if drawn is None:
            while len(self._draws) >= KEPT_DRAWS:
                self._draws.pop(next(iter(self._draws)))
            drawn = DeviceDraw(sampler, self.rows.n, self.rows.capacity.own, statistics, self._device)
            if self._device.type == "cuda":
                try:
                    drawn.recorded, _ = recorded(partial(self._draw_step, drawn), self._device)
                except RuntimeError as error:
                    first = first_error(error)
                    if isinstance(first, torch.OutOfMemoryError):
                        raise first from None
                    self._can_draw = False
                    log.warning("tokens cannot be drawn in a CUDA graph, which will be slower: %s", first)
                    return None
        self._draws[key] = drawn  # the most recently used last
        return drawn

    def draw(self, drawn: DeviceDraw) -> None:
        """Feed the newest tokens of ``drawn`` and draw the next ones."""
        if drawn.recorded is None:
            self._draw_step(drawn)
            return
        with torch.cuda.device(self._device):
            drawn.recorded.replay()

    def _draw_step(self, drawn: DeviceDraw) -> None:
        self._inputs[1][:, :1].copy_(drawn.newest)
        self._inputs[1][:, 1].copy_(drawn.fed)
        drawn.draw(self._step(1)[:, 0])


def static_decoder(lvlm: LVLM, state: PrefillState, n: int, limit: int) -> StaticDecoder | None:
    """Return a decoder of ``n`` responses of up to ``limit`` tokens to each prompt of ``state``, reset to them.

    Decoders are cached per model by their sizes; one for more prompts serves fewer, too, down to half.

    Returns:
        The decoder; None if a step cannot be recorded, or if the buffers of several prompts would be too large.

    Raises:
        torch.OutOfMemoryError: the GPU has no memory for the buffers.
    """
    if limit < 2 or not lvlm.graphs.usable:
        return None
    needed = Capacity.for_state(state, n, limit)
    kept = lvlm.graphs.kept
    # A smaller one that is kept would leave fewer rows in vain, but a recording costs more than these.
    capacity = min((c for c in kept if c.holds(needed)), key=lambda c: c.prompts, default=needed)
    kernel = attention_kernel(lvlm)  # may raise, before the decoder is taken out
    decoder = kept.pop(capacity, None)
    if decoder is None or decoder.rows.kernel is not kernel:
        decoder = None  # before another one is made, which needs its memory
        nbytes = capacity.nbytes(state, lvlm.num_heads)
        if capacity.prompts > 1 and nbytes > KEPT_BYTES:
            return None
        while kept and (len(kept) >= KEPT_GRAPHS or nbytes + sum(d.nbytes for d in kept.values()) > KEPT_BYTES):
            kept.pop(next(iter(kept)))
        decoder = _made(lvlm, state, capacity, kernel)
        if decoder is None:
            return None
    kept[capacity] = decoder  # the most recently used last
    decoder.begin(state)
    return decoder


def attention_kernel(lvlm: LVLM) -> ModuleType | None:
    """Return the module of the attention kernels if the decode steps of ``lvlm`` are to use them; None if not.

    With ``lvlm.graphs.kernel`` None, a Triton that is installed and cannot be imported is done without, from then on.

    Raises:
        ImportError: ``lvlm.graphs.kernel`` is True, and there is no Triton that can be imported.
    """
    graphs = lvlm.graphs
    wanted = graphs.kernel
    if wanted is None:
        wanted = lvlm.device.type == "cuda" and importlib.util.find_spec("triton") is not None
    if not wanted:
        return None
    try:
        kernel = importlib.import_module("acs_core.generation.attention_kernel")
    except Exception as error:  # a Triton of another version may lack more than a library
        if graphs.kernel:
            raise ImportError(f"{error}") from error
        graphs.kernel = False
        log.warning("Triton cannot be imported, decode steps do without its kernels: %s", one_line(f"{error}"))
        return None
    return kernel if lvlm.hf_model.dtype in kernel.DTYPES else None


def _made(lvlm: LVLM, state: PrefillState, capacity: Capacity, kernel: ModuleType | None) -> StaticDecoder | None:
    """Return a new decoder, without the kernels if they do not run; None if a step cannot be recorded.

    Raises:
        torch.OutOfMemoryError: the GPU has no memory for it.
    """
    try:
        if lvlm.graphs.fused or (lvlm.graphs.fused is None and lvlm.device.type == "cuda"):
            fuse_projections(lvlm.text_model)
        return StaticDecoder(lvlm, state, capacity, kernel=kernel)
    except Exception as error:  # kernels are compiled for the device, which raises errors of many kinds
        first = first_error(error)
        lvlm.graphs.kept.clear()
        if isinstance(first, torch.OutOfMemoryError):
            raise first from None
        if kernel is None and not isinstance(error, RuntimeError):
            raise
        reason = one_line(f"{first}")
        del first
    # Outside the handler, whose traceback keeps the buffers of the failed attempt alive.
    if kernel is not None:
        made = _made(lvlm, state, capacity, None)
        if made is not None:
            lvlm.graphs.kernel = False
            log.warning("the attention kernels do not run here, decode steps do without them: %s", reason)
        return made
    lvlm.graphs.usable = False  # an operation cannot be recorded, such as those of quantised layers
    log.warning("decode steps cannot be recorded as a CUDA graph and will be slower: %s", reason)
    return None
