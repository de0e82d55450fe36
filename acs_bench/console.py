"""What the commands of ``acs-bench`` share on the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

WIDTH = 120  # of a table that goes into a file or a pipe
out, err = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False)
if not out.is_terminal:
    out.width = WIDTH


@contextmanager
def measuring(threads: int) -> Iterator[None]:
    """Torch with this many threads, and no chatter from transformers."""
    # Importing torch takes seconds: not for --help.
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    yield


def make_subject(shape: str, image_tokens: int | None, phrases: int, device: str, dtype: str, frame: str) -> Any:
    """What the options name; wrong ones are wrong usage."""
    from acs_core.lvlm.loading import DTYPES

    if dtype not in ("auto", *DTYPES):
        raise typer.BadParameter(f"use auto, {', '.join(DTYPES)}", param_hint="--dtype")
    from acs_bench.subject import load_subject

    size = size_of(frame, "--frame")
    say(f"making {shape}")
    return load_subject(shape, image_tokens, phrases, device, dtype, size)


def size_of(text: str, option: str) -> tuple[int, int]:
    """(width, height) of a text like 640x480; another one is wrong usage of ``option``."""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise typer.BadParameter(f"{text!r} is not like 640x480", param_hint=option)
    return int(width), int(height)


def device_of(name: str) -> Any:
    """The torch device of that name."""
    from acs_core.lvlm.loading import pick_device

    return pick_device(name)


def describe_tokens(subject: Any) -> str:
    """How long the subject's first prompt is."""
    prompt = subject.prompts[0]
    image = int((prompt.input_ids == subject.lvlm.hf_model.config.image_token_id).sum())
    return f"{image} image tokens of a prompt of {prompt.length}"


def table_of(*columns: str) -> Table:
    """An empty table; all but the first two columns hold numbers."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for k, name in enumerate(columns):
        table.add_column(name, justify="left" if k < 2 else "right", no_wrap=True)
    return table


def say(text: str) -> None:
    """What runs now."""
    err.print(text, style="dim")


def finish(device: Any, numbers: dict[str, Any], json_file: Path | None) -> None:
    """Says on what it was measured, and writes all of it to ``json_file``."""
    from acs_bench.machine import Machine

    machine = Machine.here(device)
    out.print(machine.describe(), style="dim")
    if json_file:
        command = " ".join(["acs-bench", *sys.argv[1:]])
        data = {"command": command, "machine": machine.to_dict(), **numbers}
        json_file.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
