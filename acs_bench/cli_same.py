"""The commands of ``acs-bench`` that compare what a model says and sees: with quantised weights, on another device."""

from __future__ import annotations

from typing import Annotated

import typer

from acs_bench.cli_options import Device, Dtype, Json, Model, Picture, Samples, Threads
from acs_bench.console import device_of, finish, measuring, out, say, table_of

commands = typer.Typer()


@commands.command(epilog="Example: acs-bench quantization --model tiny-internvl --image docs/sample.png --phrase key")
def quantization(
    image: Picture,
    phrase: Annotated[str, typer.Option(help="What to ask for.")],
    model: Model = "tiny-internvl",
    samples: Samples = 10,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 1,
    json_file: Json = None,
) -> None:
    """What 8-bit and 4-bit weights do to a model's attention, on the same responses, and to its speed and size."""
    from acs_bench.quantization import compare_quantizations
    from acs_core.image import read_image

    with measuring(threads):
        rows = compare_quantizations(model, read_image(image), phrase, samples, device, dtype, say)
        table = table_of(
            "weights", "MB", "s a call", "map correlation", "lowest 5 %", "entropy gap, nats", "rank correlation"
        )
        for row in rows:
            seen = (row.map_correlation, row.map_correlation_low, row.entropy_gap, row.rank_correlation)
            table.add_row(row.quantization, f"{row.weights_mb:.1f}", f"{row.seconds:.2f}", *(f"{v:.3f}" for v in seen))
        out.print(f"{model}, {image.name}, {phrase!r}, the same {samples} responses")
        out.print(table)
        finish(device_of(device), {"rows": [row.to_dict() for row in rows]}, json_file)


@commands.command(
    "check-device", epilog="Example: acs-bench check-device --image docs/sample.png --phrase key --device cuda"
)
def check(
    image: Picture,
    phrase: Annotated[list[str], typer.Option(help="What to ask for; may be repeated.")],
    model: Model = "tiny-internvl",
    samples: Samples = 10,
    device: Device = "auto",
    dtype: Annotated[list[str], typer.Option(help="float32, float16 or bfloat16; may be repeated.")] = [  # noqa: B006
        "float32",
        "bfloat16",
    ],
    threads: Threads = 1,
    json_file: Json = None,
) -> None:
    """Whether a device answers as a CPU does in float32, and its recorded decode steps as its growing ones."""
    from acs_bench.check_device import check_device
    from acs_core.image import read_image

    with measuring(threads):
        rows = check_device(model, read_image(image), phrase, samples, device, dtype, say)
        table = table_of(
            "weights", "greedy as on the CPU", "largest map gap", "recorded = growing", "growing, ms", "recorded, ms"
        )
        for row in rows:
            alike, recorded = "none recorded", "-"
            if row.recorded_ms is not None:
                alike, recorded = f"{row.responses_alike} of {row.responses}", f"{row.recorded_ms:.1f}"
            greedy = f"{row.greedy_alike} of {row.phrases}"
            table.add_row(row.dtype, greedy, f"{row.map_gap:.2g}", alike, f"{row.growing_ms:.1f}", recorded)
        out.print(f"{model} on {rows[0].device}, {image.name}, {samples} responses a phrase")
        out.print(table)
        finish(device_of(device), {"rows": [row.to_dict() for row in rows]}, json_file)
