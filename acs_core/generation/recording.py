"""Recording of operations as a CUDA graph, which launches them all at once."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch


def recorded(step: Callable[[], Any], device: torch.device) -> tuple[Any, Any]:
    """Record ``step`` as a CUDA graph, after two warm-up steps in which libraries initialise themselves; return the
    graph, and what ``step`` returned while it was recorded."""
    gc.collect()  # destroying an old graph during a recording would break it
    # Streams belong to the current device, which need not be the model's. The outer stream context restores the
    # current stream even if the recording fails, which its own context does not.
    with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)):
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # "thread_local" lets other threads use the GPU meanwhile.
        with torch.cuda.graph(graph, stream=torch.cuda.Stream(device), capture_error_mode="thread_local"):
            made = step()
        return graph, made


def first_error(error: BaseException) -> BaseException:
    """Return the original error: a recording that fails raises further errors while it is closed."""
    while error.__context__ is not None:
        error = error.__context__
    return error
