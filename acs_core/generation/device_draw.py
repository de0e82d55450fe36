"""Drawing on the device: the next token of each response is selected where the logits are, as part of a recorded step.

Token by token, the host reads what was selected, and the device waits until the host has queued the next step. Here the
selected tokens are fed to the next step on the device. The host reads them from a copy some steps later, while the
device works on. What each place selects, and the number of its stream that it selects with, is as token by token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from acs_core.device_array import upload
from acs_core.generation.token_sampler import TableSampler, certainty_of, is_usable


class DeviceDraw:
    """The newest tokens of N responses in static buffers, and their selection.

    Args:
        sampler: selects the tokens; in other calls, one with the same key may give another table.
        n: number of responses N.
        limit: largest number of tokens of a response.
        statistics: whether entropy and log-probability of every token are computed.
        device: the device.

    Attributes:
        newest: (N, 1) token that the next step is fed.
        fed: (N,) number of own tokens that were fed before.
        told: float64 of the last step: selected token and whether its logits were broken, (2, N); with ``statistics``
            (4, N), with entropy and log-probability in nats.
        recorded: the graph of the step; None if it is not recorded.
    """

    def __init__(self, sampler: TableSampler, n: int, limit: int, statistics: bool, device: torch.device) -> None:
        self._choose, self._statistics = sampler.choose, statistics
        self._table = torch.zeros(n, limit, dtype=sampler.table().dtype, device=device)
        self.newest = torch.zeros(n, 1, dtype=torch.long, device=device)
        # Steps that warm up for a recording write to the last slot, which never holds a token that is kept.
        self.fed = torch.full((n,), limit - 1, dtype=torch.long, device=device)
        self.told = torch.zeros(4 if statistics else 2, n, dtype=torch.float64, device=device)
        self.recorded: Any = None

    def begin(self, sampler: TableSampler, written: Sequence[Sequence[int]]) -> None:
        """Go on after the tokens ``written`` of each of the first responses; an empty one has ended, as have others."""
        (n, limit), rows, device = self._table.shape, len(written), self._table.device
        table = sampler.table()[:, :limit].expand(rows, -1)
        self._table[:rows].copy_(upload(table[:, -1:], device))
        self._table[:rows, : table.shape[1]].copy_(upload(table, device))
        # A row that has ended keeps what it has: it writes to the last slot.
        newest = [ids[-1] if ids else 0 for ids in written] + [0] * (n - rows)
        fed = [len(ids) - 1 if ids else limit - 1 for ids in written] + [limit - 1] * (n - rows)
        both = upload([newest, fed], device)
        self.newest.copy_(both[0][:, None])
        self.fed.copy_(both[1])

    def draw(self, logits: torch.Tensor) -> None:
        """Select the tokens after :attr:`newest` from ``logits`` (N, V), which they are then."""
        self.fed += 1
        place = self.fed.clamp_max(self._table.shape[1] - 1)[:, None]
        chosen = self._choose(logits, self._table.gather(1, place)[:, 0])
        told = [chosen, ~is_usable(logits)]
        if self._statistics:
            told += certainty_of(logits, chosen)
        self.told.copy_(torch.stack([values.to(torch.float64) for values in told]))
        self.newest.copy_(chosen[:, None])


class Pending:
    """Values of a step that the device may not have computed yet; they are copied behind it."""

    def __init__(self, told: torch.Tensor) -> None:
        self._computed: Any = None
        if told.device.type != "cuda":
            self._host = told.clone()
            return
        self._host = torch.empty(told.shape, dtype=told.dtype, pin_memory=True)
        self._host.copy_(told, non_blocking=True)
        self._computed = torch.cuda.Event()
        self._computed.record(torch.cuda.current_stream(told.device))

    def wait(self) -> list[list[float]]:
        """Return the values of :attr:`DeviceDraw.told` once they are computed."""
        if self._computed is not None:
            self._computed.synchronize()
        return self._host.tolist()
