"""The forward of the vision tower, recorded once per size of the picture.

A tower launches several hundred small operations for a picture, and computes on the host, from the size of the picture,
the places and the windows of the patches. For a camera whose frames have one size all of that is the same from frame to
frame: as a CUDA graph it is launched at once, and only the pixels are copied before.

A recording costs about as much as three forwards. A size is recorded when it comes the second time; where another size
loses its recording by that, the one used longest ago, when it has come :data:`TIMES_TO_REPLACE` times. The code also
runs without a graph on a CPU, for the tests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from acs_core.generation.recording import first_error, recorded
from acs_core.lvlm.base import LVLM, Prompt
from acs_core.plain_text import one_line

log = logging.getLogger(__name__)

KEPT_TOWERS = 2  # per model; each holds the memory of a forward
KNOWN_SIZES = 16
TIMES_TO_REPLACE = 8  # since a size came first, or lost its recording: pictures of many sizes in turn record seldom
_PIXELS = "pixel_values"


class RecordedTower:
    """The forward of a vision tower for pictures of one size; a CUDA graph on a GPU.

    Args:
        forward: the tower's own forward.
        pixels: its first argument for a picture of that size.
        options: its other arguments, which depend on the size alone.
        windows: the windows of the tower's attention, whose places the graph reads; None if it has none.
    """

    def __init__(
        self, forward: Callable[..., Any], pixels: torch.Tensor, options: Mapping[str, Any], windows: Any
    ) -> None:
        self._forward, self._pixels, self._options, self._windows = forward, pixels.clone(), dict(options), windows
        self._graph: Any = None
        self._made: Any = None
        self._device = pixels.device
        if pixels.is_cuda:
            self._graph, self._made = recorded(self._step, self._device)

    def run(self, pixels: torch.Tensor) -> Any:
        """Return what the forward returns for ``pixels``; the next call overwrites its tensors."""
        self._pixels.copy_(pixels)
        if self._graph is None:
            return self._step()
        with torch.cuda.device(self._device):
            self._graph.replay()
        # The models write into the record of the outputs.
        return type(self._made)(**self._made)

    def _step(self) -> Any:
        return self._forward(self._pixels, **self._options)


@contextmanager
def recorded_vision(lvlm: LVLM, prompt: Prompt) -> Iterator[None]:
    """Use recordings of the model's vision tower for the picture of ``prompt`` inside the block, where they are wanted
    (``lvlm.graphs.vision``) and possible; what cannot be recorded is computed as without this."""
    graphs, model = lvlm.graphs, lvlm.hf_model.model
    tower = getattr(model, "visual", getattr(model, "vision_tower", None))
    wanted = lvlm.device.type == "cuda" if graphs.vision is None else graphs.vision
    # A forward that others have replaced moves weights between devices.
    if not wanted or tower is None or not prompt.vision or "forward" in vars(tower):
        yield
        return
    plain = tower.forward
    tower.forward = lambda *args, **options: _forward(lvlm, prompt, tower, plain, args, options)
    try:
        yield
    finally:
        del tower.forward


def _forward(
    lvlm: LVLM,
    prompt: Prompt,
    tower: Any,
    plain: Callable[..., Any],
    args: tuple[torch.Tensor, ...],
    options: dict[str, Any],
) -> Any:
    graphs = lvlm.graphs
    if len(args) > 1:  # a model that names its arguments otherwise: a recording keeps those with names
        return plain(*args, **options)
    pixels = args[0] if args else options[_PIXELS]
    # The grid of the picture is given on the device; that of the prompt says the same on the host.
    key = (prompt.grid, prompt.input_size, tuple(pixels.shape))
    kept = graphs.towers.pop(key, None)
    times = graphs.sizes.pop(key, 0) + 1
    if kept is None and times >= (2 if len(graphs.towers) < KEPT_TOWERS else TIMES_TO_REPLACE):
        while len(graphs.towers) >= KEPT_TOWERS:
            oldest = next(iter(graphs.towers))
            del graphs.towers[oldest]
            graphs.sizes.pop(oldest, None)
        kept = _made(lvlm, prompt, tower, plain, pixels, options)
    graphs.sizes[key] = times
    while len(graphs.sizes) > KNOWN_SIZES:
        graphs.sizes.pop(next(iter(graphs.sizes)))
    if kept is None:
        return plain(*args, **options)
    graphs.towers[key] = kept  # the most recently used last
    return kept.run(pixels)


def _made(
    lvlm: LVLM, prompt: Prompt, tower: Any, plain: Callable[..., Any], pixels: torch.Tensor, options: dict[str, Any]
) -> RecordedTower | None:
    """Return a recording; None if there cannot be one, now and later.

    An error of the forward itself comes again from the plain forward.
    """
    given = {name: value for name, value in options.items() if name not in (_PIXELS, "acs_attending")}
    try:
        given |= lvlm.adapter.tower_inputs(tower, prompt.vision)
        return RecordedTower(plain, pixels, given, getattr(tower.config, "acs_windows", None))
    except Exception as error:  # what cannot be recorded raises many kinds of errors; no memory is one
        reason = one_line(f"{first_error(error)}")
    lvlm.graphs.towers.clear()
    lvlm.graphs.vision = False
    log.warning("the vision tower cannot be recorded as a CUDA graph and will be slower: %s", reason)
    return None
