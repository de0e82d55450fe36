"""Further commands of ``acs-bench``: ``load``, ``busy``, ``forwards`` and ``startup``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from acs_core.bench.console import (
    Device,
    Dtype,
    Json,
    Model,
    Repeats,
    Samples,
    device_of,
    finish_rows,
    measuring,
    table_of,
)


def load(
    model: Model = "tiny-internvl",
    device: Device = "auto",
    json_file: Json = None,
) -> None:
    """Measure the time until a model can answer: with the Python packages and the model dropped from the page cache,
    with the model dropped, and with nothing dropped."""
    from acs_core.bench.loading import loading_times

    rows = loading_times(model, device)  # before torch is imported here: files in use stay in the page cache
    with measuring(1):
        columns = ("imports, s", "load, s", "1st answer, s", "next, s", "added MB", "weights, MB", "still cached, MB")
        table = table_of("cache", *columns)
        for row in rows:
            seconds = (row.import_s, row.load_s, row.first_answer_s, row.next_answer_s)
            left = "unknown" if row.still_cached_mb is None else f"{row.still_cached_mb:.0f}"
            sizes = (f"{row.added_mb:.0f}", f"{row.weights_mb:.0f}", left)
            table.add_row(row.cache, *(f"{s:.2f}" for s in seconds), *sizes)
        finish_rows(device_of(device), table, rows, json_file)


def busy(
    model: Model = "tiny-internvl",
    answers: Annotated[int, typer.Option(help="Answers per case.", min=1)] = 9,
    json_file: Json = None,
) -> None:
    """Measure the time of an answer while other programs use the CPU, with threads that spin or sleep while they
    wait."""
    from acs_core.bench.busy import busy_answers

    with measuring(1):
        rows = busy_answers(model, answers)
        table = table_of("threads", "waiting", "neighbours", "median, ms", "longest, ms")
        for row in rows:
            waiting = row.waiting if row.threads > 1 else "-"
            times = (f"{ms:.0f}" for ms in (row.median_ms, row.most_ms))
            table.add_row(str(row.threads), waiting, str(row.neighbours), *times)
        finish_rows(device_of("cpu"), table, rows, json_file)


def forwards(
    shape: Annotated[str, typer.Option(help="small, 7b, 8b, ...: the model that is forced to answer.")] = "small",
    model: Annotated[str | None, typer.Option(help="A model's name, folder or hub id, that draws its answers.")] = None,
    image: Annotated[Path | None, typer.Option(help="Image file, with --model.")] = None,
    phrase: Annotated[str, typer.Option(help="Phrase, with --model.")] = "key",
    samples: Samples = 10,
    calls: Annotated[int, typer.Option(help="Calls, with --model.", min=1, max=1000)] = 8,
    device: Device = "auto",
    dtype: Dtype = "auto",
    json_file: Json = None,
) -> None:
    """Count the forwards of the same responses, written token by token and with drafts.

    Without --model, answers in the tokens of Qwen's vocabulary are forced on a model of random weights.
    """
    from acs_core.bench.forwards import drawn_forwards, forced_forwards

    if (model is None) is not (image is None):
        raise typer.BadParameter("use both or neither", param_hint="--model, --image")
    with measuring(1):
        if model is None or image is None:
            rows = forced_forwards(shape, device, dtype, samples)
        else:
            from acs_core.artifacts.registry import resolve_model
            from acs_core.image import read_image
            from acs_core.lvlm import load_lvlm

            lvlm = load_lvlm(resolve_model(model), device=device, dtype=dtype)
            rows = drawn_forwards(lvlm, read_image(image), phrase, samples, calls)
        table = table_of("answers", "same", "tokens", "plain", "drafted", "ratio")
        for row in rows:
            same = "yes" if row.same else "no"
            table.add_row(row.answers, same, f"{row.tokens:.1f}", str(row.plain), str(row.drafted), f"{row.ratio:.2f}")
        finish_rows(device_of(device), table, rows, json_file)


def startup(model: Model = "tiny-internvl", repeats: Repeats = 2, json_file: Json = None) -> None:
    """Measure the CPU time of every command's --help, and of loading a model with and without unused imports."""
    from acs_core.bench.startup import startup_times

    with measuring(1):
        rows = startup_times(model, repeats)
        table = table_of("process", "CPU, s")
        for row in rows:
            table.add_row(row.what, f"{row.cpu_s:.2f}")
        finish_rows(device_of("cpu"), table, rows, json_file)
