"""``acs-bench forwards``: the number of forwards with and without drafts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from acs_core.bench.console import Device, Dtype, Json, Samples, device_of, finish_rows, measuring, table_of


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
