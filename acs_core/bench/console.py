"""Options and terminal output shared by the commands of ``acs-bench``."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer
from rich.table import Table

from acs_core.artifacts.model_name import is_hub_id
from acs_core.output import checked_option, write_json
from acs_core.terminal import make_console, print_table
from acs_core.types import LEAST_IMAGE_TOKENS, MAX_IMAGE_TOKENS

Shape = Annotated[
    str, typer.Option(help="small, 7b, 8b, ... (random weights of that size), or a model's name or folder.")
]
Model = Annotated[str, typer.Option(help="A model's name, folder or hub id.")]
Picture = Annotated[Path, typer.Option(help="Image file.")]
ImageTokens = Annotated[int, typer.Option(help="Image tokens, for a shape.", min=1, max=1_000_000)]
Frame = Annotated[str, typer.Option(help="WIDTHxHEIGHT of the image, for a real model.")]
Samples = Annotated[int, typer.Option(help="Responses N.", min=1, max=1024)]
Budget = Annotated[
    int | None,
    typer.Option(
        "--max-image-tokens",
        help="Budget of image tokens of a picture; default: that of the model's family.",
        min=LEAST_IMAGE_TOKENS,
        max=MAX_IMAGE_TOKENS,
    ),
]
NewTokens = Annotated[int, typer.Option(help="Tokens of each response.", min=8, max=8192)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, float16 or bfloat16.")]
Threads = Annotated[int, typer.Option(help="CPU threads.", min=1, max=1024)]
Repeats = Annotated[int, typer.Option(help="Runs of each measurement; the median is reported.", min=1)]
Json = Annotated[
    Path | None, typer.Option("--json", callback=checked_option, help="Also write the numbers to this file.")
]
WIDTH = 120  # of tables in files and pipes
out, err = make_console(piped_width=WIDTH, soft_wrap=True), make_console(stderr=True)


@contextmanager
def measuring(threads: int) -> Iterator[None]:
    """Set torch's number of threads and silence the messages of transformers."""
    # Importing torch takes seconds, which --help must not wait for.
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    yield


def make_subject(shape: str, image_tokens: int | None, phrases: int, device: str, dtype: str, frame: str) -> Any:
    """Return the model and prompts that the options name; invalid ones are a usage error."""
    from acs_core.lvlm.loading import DTYPES

    if dtype not in ("auto", *DTYPES):
        raise typer.BadParameter(f"use auto, {', '.join(DTYPES)}", param_hint="--dtype")
    from acs_core.bench.subject import load_subject

    size = size_of(frame, "--frame")
    say(f"making {shape}")
    return load_subject(shape, image_tokens, phrases, device, dtype, size)


def size_of(text: str, option: str) -> tuple[int, int]:
    """Return (width, height) of a text like 640x480; any other text is a usage error of ``option``."""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise typer.BadParameter(f"{text!r} is not like 640x480", param_hint=option)
    return int(width), int(height)


def numbers_of(text: str, option: str, most: int) -> list[int]:
    """Return the numbers from 1 to ``most`` in a text like 1,10,64; any other text is a usage error of ``option``."""
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) < 10 and 1 <= int(part) <= most for part in parts):
        raise typer.BadParameter(f"{text!r} is not like 1,10 with numbers up to {most}", param_hint=option)
    return [int(part) for part in parts]


def device_of(name: str) -> Any:
    """Return the torch device of that name."""
    from acs_core.lvlm.loading import pick_device

    return pick_device(name)


def describe_tokens(subject: Any) -> str:
    """Describe the length of the subject's first prompt."""
    prompt = subject.prompts[0]
    image = int((prompt.input_ids == subject.lvlm.hf_model.config.image_token_id).sum())
    return f"{image} image tokens of a prompt of {prompt.length}"


def table_of(*columns: str) -> Table:
    """Return an empty table; all but the first two columns hold numbers."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for k, name in enumerate(columns):
        table.add_column(name, justify="left" if k < 2 else "right", no_wrap=True)
    return table


def say(text: str) -> None:
    """Print the running step on standard error."""
    err.print(text, style="dim")


class Row(Protocol):
    """Row of a table of measurements."""

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values."""


def finish_rows(device: Any, table: Table, rows: Sequence[Row], json_file: Path | None) -> None:
    """Print ``table``, then finish as :func:`finish` does, with ``rows`` as the numbers."""
    print_table(out, table)
    finish(device, {"rows": [row.to_dict() for row in rows]}, json_file)


def finish(device: Any, numbers: dict[str, Any], json_file: Path | None) -> None:
    """Print the machine of the measurement, and write ``numbers`` with it to ``json_file``."""
    from acs_core.bench.measure import MachineInfo

    machine = MachineInfo.here(device)
    out.print(machine.describe(), style="dim")
    if json_file:
        content = {"command": shown_command(sys.argv[1:]), "machine": machine.to_dict(), **numbers}
        write_json(json_file, content, "acs-bench")


def shown_command(arguments: Sequence[str]) -> str:
    """Return the command line of ``acs-bench`` with paths as their last part: files of numbers are given to others."""
    return shlex.join(["acs-bench", *map(_without_folder, arguments)])


def short_name(model: str) -> str:
    """Return the last part of a hub id or of the path of a model folder."""
    return Path(model).absolute().name


def _without_folder(argument: str) -> str:
    option, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    is_path = bool(value) and (Path(value).is_dir() or (os.sep in value and not is_hub_id(value)))
    return option + equals + (short_name(value) if is_path else value)
